"""What a training set says of itself: its manifest, read and checked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import TrainingSetError

MANIFEST_FILE = "manifest.json"
SPLITS = ("train", "validation", "test")
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "purpose": str,
    "snapshots": dict,
    "seed": int,
    "code_version": str,
    "features": list,
    "rows": dict,
    "excluded": dict,
    "split_ms": dict,
    "catalogue": list,
    "popularity": dict,
    "schema_hash": str,
}


@dataclass(frozen=True)
class Manifest:
    """The facts a training set was built from. Times are milliseconds since the epoch, UTC."""

    name: str
    purpose: str
    snapshots: dict[str, int | str]
    seed: int
    code_version: str
    features: list[str]
    rows: dict[str, int]
    excluded: dict[str, int]
    split_ms: dict[str, int]
    catalogue: tuple[str, ...]
    popularity: dict[str, int]
    schema_hash: str
    digest: str
    """SHA-256 of the manifest's canonical JSON, 64 hex digits: what makes this training set this one."""

    @property
    def validation_end_ms(self) -> int:
        """The label horizon of whatever is trained on this set: nothing from here on was learnt or chosen by."""
        return self.split_ms["validation_end"]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the training set in `folder`.

    Raises:
        TrainingSetError: there is none, it is not JSON, or it lacks what the models need.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise TrainingSetError(f"no training set at {folder}: {MANIFEST_FILE} is missing; build one first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TrainingSetError(f"{path} is not JSON ({error}); rebuild the training set") from None
    _check(path, content)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    known = {name: content[name] for name in _NEEDED}
    known["catalogue"] = tuple(content["catalogue"])
    return Manifest(**known, digest=hashlib.sha256(canonical.encode()).hexdigest())


def _check(path: Path, content: Any) -> None:
    if not isinstance(content, dict):
        raise TrainingSetError(f"{path} is no manifest: expected an object, received {type(content).__name__}")
    missing = sorted(_NEEDED.keys() - content.keys())
    if missing:
        raise TrainingSetError(
            f"{path} is of an unknown format: it lacks {', '.join(missing)}; rebuild the training set"
        )
    for name, kind in _NEEDED.items():
        if not isinstance(content[name], kind):
            raise TrainingSetError(f"{path}: `{name}` is {type(content[name]).__name__}, which no reader expects")
    for split in SPLITS:
        if split not in content["rows"]:
            raise TrainingSetError(f"{path}: `rows` does not count the {split} split")
    for bound in ("train_end", "validation_end"):
        if not isinstance(content["split_ms"].get(bound), int):
            raise TrainingSetError(f"{path}: `split_ms` lacks {bound} in milliseconds")
    if len(set(content["catalogue"])) != len(content["catalogue"]):
        raise TrainingSetError(f"{path}: `catalogue` names a title twice")
