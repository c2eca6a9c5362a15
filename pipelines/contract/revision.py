"""The event contract as it was in another revision of the working tree's git repository."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from pipelines.contract.events import Contract, load_contract
from pipelines.errors import NoBaseline


def contract_at(revision: str, schemas: Path) -> Contract:
    """The contract that the folder `schemas` held at `revision` (anything git can name: HEAD~1, origin/main, a tag).

    Raises `NoBaseline` where there is no git, no repository, no such revision, or no schemas in it, and
    `ContractError` where those are no contract.
    """
    folder = schemas.resolve()
    if not folder.is_dir():
        raise NoBaseline(f"there is no folder of event schemas at {schemas}; set the folder of configs/schemas")
    said = _git(folder, "rev-parse", "--show-toplevel", "--show-prefix", wrong=f"{schemas} is in no git checkout")
    top, within = said.decode().splitlines()
    commit = _git(
        folder,
        *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"),
        wrong=f"this git checkout has no revision {revision!r} (a shallow clone has few: `git fetch --unshallow`)",
    )
    tree = f"{commit.decode().strip()}:{within}"
    wrong = f"revision {revision!r} has no event schemas in {within or 'its root'}: git tracks nothing there"
    _git(folder, "cat-file", "-e", tree, wrong=wrong)
    packed = _git(Path(top), "archive", "--format=tar", tree, wrong=f"git cannot read {within} of {revision!r}")
    with tempfile.TemporaryDirectory(prefix="reel-contract-") as scratch:
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            files.extractall(scratch, filter="data")
        return load_contract(Path(scratch), strict=False)


def _git(folder: Path, *arguments: str, wrong: str) -> bytes:
    """What git says in `folder`; `wrong` is what it means if git says no."""
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise NoBaseline("comparing with a revision needs git, and there is no git in PATH") from None
    except subprocess.CalledProcessError as refusal:
        said = " ".join(refusal.stderr.decode(errors="replace").split())
        raise NoBaseline(f"{wrong}{f' ({said})' if said else ''}; name another --revision, or a --registry") from None
