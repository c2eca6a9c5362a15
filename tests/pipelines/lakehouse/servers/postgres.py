"""A PostgreSQL of the tests' own, in a temporary folder, run by a user that is not root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.processes import HOST, find_free_port

USER = "postgres"  # the one that Debian's package makes; PostgreSQL refuses to run as root


class PostgresMissing(Exception):
    """There is no PostgreSQL server on this machine."""


@contextmanager
def postgres() -> Iterator[str]:
    """An SQLAlchemy address of an empty database, for the length of the block. Raises PostgresMissing."""
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="reel-postgres-"))
    guard: subprocess.Popen[bytes] | None = None
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        data, port = folder / "data", find_free_port()
        _run([binaries / "initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"])
        options = f"-p {port} -h {HOST} -k {folder} -c fsync=off"
        _run([binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"])
        # It waits for the end of its input, which comes when this process closes it, and also if it is killed.
        stop = f"read _; {' '.join(_as_user([binaries / 'pg_ctl']))} -D {data} -m immediate stop; rm -rf {folder}"
        guard = subprocess.Popen(
            ["sh", "-c", stop], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/", start_new_session=True
        )
        yield f"postgresql+psycopg2://{USER}@{HOST}:{port}/{USER}"
    finally:
        if guard is not None:
            guard.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path is None:
        raise PostgresMissing("PostgreSQL is not installed (apt-get install postgresql)")
    return Path(on_path).parent


def _as_user(command: Sequence[object]) -> list[str]:
    own = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    return [*own, *map(str, command)]


def _run(command: Sequence[object]) -> None:
    done = subprocess.run(
        _as_user(command),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
