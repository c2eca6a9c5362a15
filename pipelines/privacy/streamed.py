"""What the stream's checkpoint holds of people (`pipelines.stream.checkpoint`): theirs for an export, and its end.

Its rows are copies, of a day or two, of what is in bronze and silver, or will be with the next ingest; it also has what
the registries say. A file of it never changes, and a checkpoint without one of its files is none. So whoever has to go
out of it takes it away as a whole, and the stream begins anew from what `reel features` published.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines.privacy.person import Person
from pipelines.privacy.training_sets import Names
from pipelines.stream.checkpoint import FILE, discard
from pipelines.stream.files import read_rows


def files_of(folder: Path) -> list[Path]:
    """Every file of rows."""
    return sorted(folder.glob("*.arrow"))


def rows_of(paths: list[Path], person: Person) -> Iterator[pa.Table]:
    """The person's rows, file by file; of files that have any."""
    for path in paths:
        try:
            rows = read_rows(path)
        except FileNotFoundError:  # the stream has written the next checkpoint meanwhile
            continue
        theirs = person.mask(rows)
        if theirs.any():
            yield rows.filter(pa.array(theirs))


def discard_with(folder: Path, names: Names) -> int:
    """Take the checkpoint away if some row of events in it is of the `names`; how many files that were.

    What the registries say of them stays: it is what the stream knows them by.
    """
    registries = set(_known_files(folder))
    for path in files_of(folder):
        if path.name not in registries and (names.whose(read_rows(path)) >= 0).any():
            return discard(folder)
    return 0


def expire(folder: Path, before_ms: float) -> int:
    """Take the checkpoint away if it has rows that were written so long ago; how many files that were."""
    registries = set(_known_files(folder))
    written_ms = [path.stat().st_mtime * 1000 for path in files_of(folder) if path.name not in registries]
    return discard(folder) if min(written_ms, default=before_ms) < before_ms else 0


def _known_files(folder: Path) -> list[str]:
    """The files with what is known of everybody."""
    try:
        said = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return []
    return [str(name) for name in said["known"].values()]
