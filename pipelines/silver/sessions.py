"""Playback sessions kept up to date: those whose playback has new events are made anew, all others stay.

    1. the files appended to `silver.playback` since the last update say which chains have news
    2. `silver.playback_sessions` says which of these chains it knows, and when their events were
    3. Ray tasks read the new files, and of the old ones those that hold events of such a chain, cut by chain
    4. sessions are made of all events of a chain; sessions of other chains that shared a file are written again
    5. one commit: the new files in the place of the old ones, and how far `silver.playback` has been read

Step 2 reads one column of eight bytes of all sessions: a playback with an id may go on after any time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.playback_sessions import CHAIN_COLUMNS, EVENT_COLUMNS, chains, playback_sessions
from pipelines.cluster import buckets_for, run_tasks, shuffle
from pipelines.lakehouse.commits import progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.lineage import Inputs, Run
from pipelines.lakehouse.scans import (
    appended_files,
    in_groups,
    live_files,
    lower_instant_ms,
    read_files,
    upper_instant_ms,
)
from pipelines.silver.ids import among
from pipelines.silver.sources import STALE_MS

SESSIONS, PLAYBACK = "silver.playback_sessions", "silver.playback"
ROWS_PER_TASK = 250_000
CHAINS_PER_TASK = 2_000_000

Chains = NDArray[np.int64]
Paths = tuple[str, ...]


@dataclass(frozen=True)
class Updated:
    """The table as it is then, and how many sessions were made anew."""

    table: Table
    sessions: int


@dataclass(frozen=True)
class Known:
    """Of one file of sessions: how many of its chains have news, and between which instants their events were."""

    path: str
    touched: int
    spans_ms: NDArray[np.int64]  # [first, last] of each chain, shape (touched, 2)


@dataclass(frozen=True)
class Source:
    """Files of playback that one task reads, and of which chains."""

    paths: Paths
    of: Chains | None  # None: of all


def update_sessions(sessions: Table, playback: Table, made: Run) -> Updated:
    """Bring `sessions` up to date with `playback`. Raises ConcurrentCommitError, ExpiredSnapshotError."""
    snapshot = playback.current_snapshot()
    read_to: Mapping[str, int] = progress_of(sessions).get("sources", {})
    after = read_to.get(PLAYBACK)
    if snapshot is None or snapshot.snapshot_id == after:
        return Updated(sessions, 0)
    fresh = [file for file in appended_files(playback, after) if file.record_count]
    if not fresh and after is not None and snapshot.timestamp_ms - _made_ms(playback, after) < STALE_MS:
        return Updated(sessions, 0)
    work = _Work(TableFiles.of(playback), TableFiles.of(sessions))
    stale, files, count = work.renew(fresh, live_files(playback) if fresh else [], live_files(sessions), playback)
    facts = made.facts(Inputs(appended={PLAYBACK: (after, snapshot.snapshot_id)}))
    table = replace_files(sessions, stale, files, {"sources": {PLAYBACK: snapshot.snapshot_id}}, facts)
    return Updated(made.wrote(table), count)


@dataclass(frozen=True)
class _Work:
    """What tasks need of both tables."""

    playback: TableFiles
    sessions: TableFiles

    def renew(
        self, fresh: Sequence[DataFile], all_playback: Sequence[DataFile], known: Sequence[DataFile], table: Table
    ) -> tuple[list[DataFile], list[DataFile], int]:
        """(files of sessions to be replaced, files to put in their place, sessions made)."""
        if not fresh:
            return [], [], 0
        new_paths = {file.file_path for file in fresh}
        groups = list(_groups(fresh, ROWS_PER_TASK))
        touched: Chains = np.unique(np.concatenate(list(run_tasks(self._chains_of, groups))))
        found = [
            one
            for part in run_tasks(partial(self._find, touched), list(_groups(known, CHAINS_PER_TASK)))
            for one in part
            if one.touched
        ]
        old = _overlapping(table, [f for f in all_playback if f.file_path not in new_paths], found)
        sources = [Source(group, None) for group in groups]
        sources += [Source(group, touched) for group in _groups(old, ROWS_PER_TASK)]
        files: list[DataFile] = []
        buckets = buckets_for(sum(file.record_count for file in (*fresh, *old)), 1)
        for made in shuffle(sources, partial(self._cut, buckets), self._make, buckets):
            files += made
        count = sum(file.record_count for file in files)
        stale_paths = [one.path for one in found]
        for kept in run_tasks(partial(self._keep, touched), stale_paths):
            files += kept
        stale = {file.file_path: file for file in known}
        return [stale[path] for path in stale_paths], files, count

    def _chains_of(self, paths: Paths) -> Chains:
        return np.unique(np.asarray(chains(read_files(self.playback, paths, CHAIN_COLUMNS))))

    def _find(self, touched: Chains, paths: Paths) -> list[Known]:
        found = []
        for path in paths:
            of = np.asarray(read_files(self.sessions, [path], ["chain"])["chain"])
            has_news = _among(of, touched)
            spans_ms = np.empty((0, 2), np.int64)
            if has_news.any():
                times = read_files(self.sessions, [path], ["chain_first_at", "chain_last_at"])
                columns = [np.asarray(column.cast(pa.int64())) // 1000 for column in times.columns]
                spans_ms = np.unique(np.stack(columns, axis=1)[has_news], axis=0)
            found.append(Known(path, int(has_news.sum()), spans_ms))
        return found

    def _cut(self, buckets: int, source: Source) -> list[pa.Table]:
        rows = read_files(self.playback, source.paths, EVENT_COLUMNS)
        of = np.asarray(chains(rows))
        wanted = np.ones(len(of), dtype=bool) if source.of is None else _among(of, source.of)
        return [rows.filter(pa.array(wanted & (of % buckets == bucket))) for bucket in range(buckets)]

    def _make(self, _: int, parts: list[pa.Table]) -> list[DataFile]:
        rows = pa.concat_tables(parts)
        return write_files(self.sessions, playback_sessions(rows)) if rows.num_rows else []

    def _keep(self, touched: Chains, path: str) -> list[DataFile]:
        rows = read_files(self.sessions, [path], self.sessions.arrow_schema.names)
        return write_files(self.sessions, rows.filter(pa.array(~_among(np.asarray(rows["chain"]), touched))))


def _made_ms(table: Table, snapshot_id: int) -> int:
    snapshot = table.snapshot_by_id(snapshot_id)
    return snapshot.timestamp_ms if snapshot is not None else 0


def _overlapping(table: Table, files: Sequence[DataFile], found: Sequence[Known]) -> list[DataFile]:
    """The files that hold an instant at which one of the known chains had events, by their bounds."""
    if not found:
        return []
    spans = np.concatenate([one.spans_ms for one in found])
    firsts, lasts = np.sort(spans[:, 0]), np.sort(spans[:, 1])
    overlapping = []
    for file in files:
        lower = lower_instant_ms(table, file, "event_timestamp")
        upper = upper_instant_ms(table, file, "event_timestamp")
        # As many spans have begun by the file's end as have ended before its beginning, unless one lies within.
        begun = len(firsts) if upper is None else np.searchsorted(firsts, upper, side="right")
        ended = 0 if lower is None else np.searchsorted(lasts, lower, side="left")
        if file.record_count and begun > ended:
            overlapping.append(file)
    return overlapping


def _among(of: Chains, ascending: Chains) -> NDArray[np.bool_]:
    return among(of.view(np.uint64), np.sort(ascending.view(np.uint64)))


def _groups(files: Sequence[DataFile], rows_per_group: int) -> Iterator[Paths]:
    for group in in_groups(files, lambda file: file.record_count, rows_per_group):
        yield tuple(file.file_path for file in group)
