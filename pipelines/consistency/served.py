"""The log of served features (`serving/feature_log.py`), read to be compared: cut by group and entity, in Ray tasks."""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from features.columns import flat, milliseconds
from features.entities import entity as entity_of
from features.groups import GROUPS
from pipelines.cluster import as_list, join_cluster, result_of, run_tasks
from pipelines.consistency.known import Known
from pipelines.feature_tables import Target
from pipelines.lakehouse.scans import in_groups
from pipelines.privacy.predictions import LOCK_FILE, files_of

TARGETS = tuple(
    Target(group, entity) for group in GROUPS for entity in group.entities if entity != "session_id"
)  # nobody can be asked for features of a session
ROWS_AT_ONCE = 250_000
_CUT_COLUMNS = ("at", "as_of", "version", "values", "age_ms", "boundary", "reason", "stream")


@dataclass(frozen=True)
class Period:
    """Answers of one target: those given after `since_ms`, up to `until_ms`."""

    since_ms: int
    until_ms: int

    def mask(self, at_ms: np.ndarray) -> np.ndarray:
        """Which instants are in it."""
        return (at_ms > self.since_ms) & (at_ms <= self.until_ms)


@dataclass
class Cut:
    """Rows of one target: in Ray's store in parts, and what is known of them here.

    `boundaries`: of hourly and daily groups, when each boundary was first served, by boundary.
    """

    rows: int = 0
    without_instant: int = 0
    parts: list[Any] = field(default_factory=list)
    boundaries: dict[int, int] = field(default_factory=dict)


def key_column(target: Target) -> str:
    """The log's column with the keys of a target."""
    return target.entity if entity_of(target.entity).is_personal else "key"


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Hold the log's lock together with those who write, against those who write files anew."""
    handle = os.open(folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def portions(folder: Path) -> list[list[Path]]:
    """Files of the log, gathered so that each portion is one task's work."""
    return list(in_groups(files_of(folder), lambda path: pq.read_metadata(path).num_rows, ROWS_AT_ONCE))


def first_untold(
    files: Sequence[list[Path]], periods: Mapping[str, Period], known: Mapping[str, Known]
) -> dict[str, tuple[int, int]]:
    """Of each target with answers that the batch cannot tell of yet: when the first of these was given, and how many
    there are from then on.
    """
    firsts: dict[str, int] = {}
    for found in run_tasks(_Untold(periods, known), files):
        for name, at_ms in found.items():
            firsts[name] = min(at_ms, firsts.get(name, at_ms))
    if not firsts:
        return {}
    left = dict.fromkeys(firsts, 0)
    after = {name: Period(at_ms - 1, periods[name].until_ms) for name, at_ms in firsts.items()}
    for counts in run_tasks(_Count(after), files):
        for name, count in counts.items():
            left[name] += count
    return {name: (at_ms, left[name]) for name, at_ms in firsts.items()}


def cut(files: Sequence[list[Path]], periods: Mapping[str, Period]) -> dict[str, Cut]:
    """The rows of each target's period; targets without any are left out."""
    join_cluster()
    task: Any = ray.remote(_cut).options(num_returns=1 + len(TARGETS))
    shared = ray.put(periods)
    done: dict[str, Cut] = {}
    for counted, *tables in [as_list(task.remote(shared, portion)) for portion in files]:
        for target, part, told in zip(TARGETS, tables, result_of(counted), strict=True):
            whole = done.setdefault(target.name, Cut())
            whole.rows += told.rows
            whole.without_instant += told.without_instant
            for boundary, at_ms in told.boundaries.items():
                whole.boundaries[boundary] = min(at_ms, whole.boundaries.get(boundary, at_ms))
            if told.rows:
                whole.parts.append(part)
    return {name: one for name, one in done.items() if one.rows or one.without_instant}


def _rows_of(rows: pa.Table, target: Target, period: Period) -> pa.Table:
    is_theirs = np.asarray(pc.and_(pc.equal(rows["group"], target.group.name), pc.equal(rows["entity"], target.entity)))
    return rows.filter(pa.array(is_theirs & period.mask(milliseconds(rows["at"]))))


def _read(paths: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    return pa.concat_tables([pq.read_table(path, columns=list(columns), partitioning=None) for path in paths])


@dataclass(frozen=True)
class _Untold:
    periods: Mapping[str, Period]
    known: Mapping[str, Known]

    def __call__(self, paths: list[Path]) -> dict[str, int]:
        rows = _read(paths, ("at", "as_of", "group", "entity", "stream"))
        firsts = {}
        for target in TARGETS:
            theirs = _rows_of(rows, target, self.periods[target.name])
            untold = theirs.filter(pa.array(~self.known[target.name].tells(target, theirs)))
            if untold.num_rows:
                firsts[target.name] = int(milliseconds(untold["at"]).min())
        return firsts


@dataclass(frozen=True)
class _Count:
    periods: Mapping[str, Period]

    def __call__(self, paths: list[Path]) -> dict[str, int]:
        rows = _read(paths, ("at", "group", "entity"))
        return {
            target.name: _rows_of(rows, target, self.periods[target.name]).num_rows
            for target in TARGETS
            if target.name in self.periods
        }


def _cut(periods: Mapping[str, Period], paths: list[Path]) -> list[Any]:
    """What is known of each target's rows, then these."""
    rows = _read(paths, (*_CUT_COLUMNS, "group", "entity", "key", "user_id", "profile_id"))
    facts, tables = [], []
    for target in TARGETS:
        theirs = _rows_of(rows, target, periods[target.name])
        valued = theirs.filter(theirs["as_of"].is_valid())
        facts.append(Cut(valued.num_rows, theirs.num_rows - valued.num_rows, [], _first_served(valued)))
        tables.append(valued.select([key_column(target), *_CUT_COLUMNS]))
    return [facts, *tables]


def _first_served(rows: pa.Table) -> dict[int, int]:
    has_one = rows.filter(rows["boundary"].is_valid())
    boundaries, at_ms = milliseconds(has_one["boundary"]), milliseconds(has_one["at"])
    return {int(one): int(at_ms[boundaries == one].min()) for one in np.unique(boundaries)}


def texts(column: pa.ChunkedArray) -> list[str | None]:
    """A column of texts in Python."""
    found: list[str | None] = flat(column).to_pylist()
    return found
