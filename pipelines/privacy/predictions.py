"""The log of what models answered (`serving/prediction_log.py`): taking people out, theirs for an export, and its end.

Its files are Parquet, each written once by a process of the service and then never again, in a folder a day;
maintenance puts those of a day that is over together. A file with rows of somebody who goes is written anew without
them and put in the place of the old one.

The service checks with the online store who may be logged, and writes, while it holds the folder's lock. So whoever
erases takes a person out of the online store first, then waits for the lock: every row of theirs that was checked
before is in a file by then, and none can follow.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.cluster import run_tasks
from pipelines.privacy.person import Person
from pipelines.privacy.training_sets import Names
from pipelines.processes import locked
from pipelines.report import add_counts

LOCK_FILE = "lock"
_DAY = "date="
_HOLDS = b"reel.holds"


def files_of(folder: Path) -> list[Path]:
    """Every file of the log, oldest day first."""
    return sorted(folder.glob(f"{_DAY}*/*.parquet"))


def rows_of(paths: list[Path], person: Person) -> Iterator[pa.Table]:
    """The person's rows, file by file; of files that have any."""
    for path in paths:
        rows = pq.read_table(path, partitioning=None)
        theirs = person.mask(rows)
        if theirs.any():
            yield rows.filter(pa.array(theirs))


def erase(folder: Path, names: Names) -> dict[str, int]:
    """Take people out of the log; how many rows of each request. Not before they are taken out of the online store."""
    gone: dict[str, int] = {}
    if folder.exists():
        with locked(folder / LOCK_FILE):
            for counts in run_tasks(partial(_rewrite, names), files_of(folder)):
                add_counts(gone, counts)
    return gone


def expire(folder: Path, days: float, now_ms: int) -> int:
    """Delete the days whose last instant is so long ago; how many rows that were."""
    gone = 0
    for place in sorted(folder.glob(f"{_DAY}*")):
        end = datetime.combine(date.fromisoformat(place.name.removeprefix(_DAY)), datetime.min.time(), UTC)
        if end + timedelta(days=1 + days) <= datetime.fromtimestamp(now_ms / 1000, UTC):
            gone += sum(pq.read_metadata(path).num_rows for path in place.glob("*.parquet"))
            shutil.rmtree(place)
    return gone


def put_together(folder: Path, today: date) -> int:
    """One file for each day that is over, in place of one a minute and process; how many files less.

    The file says which ones it holds the rows of, so that a run that was killed before it had deleted these is made
    good by the next.
    """
    if not folder.exists():
        return 0
    fewer = 0
    with locked(folder / LOCK_FILE):
        for place in sorted(folder.glob(f"{_DAY}*")):
            if date.fromisoformat(place.name.removeprefix(_DAY)) < today:
                fewer += _delete_held(place) + _put_together(place)
    return fewer


def _put_together(place: Path) -> int:
    parts = sorted(place.glob("*.parquet"))
    if len(parts) < 2:
        return 0
    rows = pa.concat_tables(pq.read_table(path, partitioning=None) for path in parts)
    names = json.dumps([path.name for path in parts])
    whole = place / f"whole-{uuid.uuid4().hex[:12]}.parquet"
    draft = whole.with_suffix(".draft")
    pq.write_table(rows.replace_schema_metadata({_HOLDS: names}), draft, compression="zstd")
    draft.replace(whole)
    return _delete_held(place) - 1


def _delete_held(place: Path) -> int:
    """Delete files whose rows another one holds; how many."""
    metadata = [pq.read_schema(path).metadata or {} for path in place.glob("whole-*.parquet")]
    held = {name for one in metadata for name in json.loads(one.get(_HOLDS, b"[]"))}
    there = [place / name for name in held if (place / name).exists()]
    for path in there:
        path.unlink()
    return len(there)


def _rewrite(names: Names, path: Path) -> dict[str, int]:
    """Write a file anew without what goes; how many rows of each request that were. One without rows is deleted."""
    rows = pq.read_table(path, partitioning=None)
    counts = names.counts(rows)
    if not counts:
        return counts
    kept = rows.filter(pa.array(names.whose(rows) < 0))
    if len(kept) == 0:
        path.unlink()
        return counts
    draft = path.with_suffix(".erasing")
    pq.write_table(kept, draft, compression="zstd")
    draft.replace(path)
    return counts
