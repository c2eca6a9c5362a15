"""Exactly once from a source's files into Iceberg tables; the steps are numbered in `pipelines.table_source`."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.cluster import run_tasks
from pipelines.intake import COUNTS, Rows
from pipelines.lakehouse import lineage
from pipelines.lakehouse.commits import ATTEMPTS, ConcurrentCommitError, commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.report import add_counts
from pipelines.sources.history import (
    News,
    Position,
    SourceExpiredError,
    SourceFile,
    UnreadableSourceError,
    news,
    past_the_loss,
)
from pipelines.sources.table import stream

SOURCES = "sources"


Transform = Callable[[pa.Table, int], Rows]
"""From rows of the source, and the number of the first, to rows of tables; in a Ray task."""


@dataclass(frozen=True)
class Reading:
    """What of the source is read, and in which portions."""

    columns: tuple[str, ...]
    rows_per_task: int
    rows_per_commit: int
    row_filter: BooleanExpression | None = None


@dataclass(frozen=True)
class Heard:
    """Who hears of what is done."""

    run: lineage.Run
    on_progress: Callable[[int], None]


Portion = tuple[SourceFile, ...]
"""What one task reads."""


@dataclass(frozen=True)
class PortionDone:
    """Some files of the source, read to their ends and written."""

    batch: int
    portion: Portion
    files: Mapping[str, list[DataFile]]
    counts: Mapping[str, int]


@dataclass
class TableIntake:
    """A set of tables filled from the same source."""

    source: str
    table: Table
    tables: dict[str, Table]
    positions: dict[str, Position | None] = field(init=False)

    def __post_init__(self) -> None:
        self.positions = {name: self._recorded(table) for name, table in self.tables.items()}

    def plan(self, *, accept_lost: bool = False) -> News:
        """What some table does not have yet: from where the one that is behind stands. Raises as `news` does."""
        recorded = sorted((at for at in self.positions.values() if at is not None), key=lambda at: at.offset)
        snapshot = self.table.current_snapshot()
        if snapshot is None and not recorded:
            return News()
        try:
            return news(self.source, self.table, self._start(recorded))
        except SourceExpiredError:
            if not accept_lost or not recorded:
                raise
        rebased = past_the_loss(self.table, recorded[-1])
        self.positions = dict.fromkeys(self.positions, rebased)
        return news(self.source, self.table, rebased)

    def _start(self, recorded: Sequence[Position]) -> Position:
        """The position of the table that is behind; what one of them has begun with, the others begin with."""
        if not recorded:
            return Position.beginning(self.table)
        if len(recorded) == len(self.positions):
            return recorded[0]
        return recorded[0].begun_again()

    def run(self, planned: News, transform: Transform, reading: Reading, heard: Heard) -> dict[str, int]:
        """Steps 3 and 4 for every batch; the counts of all."""
        batches = list(_batches(planned.files, reading.rows_per_task, reading.rows_per_commit))
        totals: dict[str, int] = {}
        finished: dict[int, list[PortionDone]] = {number: [] for number in range(len(batches))}
        following = 0
        pieces = [(number, portion) for number, batch in enumerate(batches) for portion in batch]
        for result in run_tasks(self._task(transform, reading), pieces):
            finished[result.batch].append(result)
            heard.on_progress(sum(file.rows for file in result.portion))
            add_counts(totals, result.counts)
            # In their order, so that what is recorded as read never has a gap.
            while following < len(batches) and len(finished[following]) == len(batches[following]):
                last = batches[following][-1][-1]
                is_end = following == len(batches) - 1
                reached = planned.end if is_end and planned.end is not None else last.after
                self._commit(reached, last.snapshot_id, finished.pop(following), heard.run)
                following += 1
        if not batches and planned.end is not None and planned.end.done is not None:
            self._commit(planned.end, planned.end.done.snapshot, [], heard.run)  # compacted meanwhile, or changed
        return totals

    def _task(self, transform: Transform, reading: Reading) -> Callable[[tuple[int, Portion]], PortionDone]:
        source = TableFiles.of(self.table)
        targets = {
            name: (TableFiles.of(table), position.offset if (position := self.positions[name]) is not None else 0)
            for name, table in self.tables.items()
        }

        def read_and_write(numbered: tuple[int, Portion]) -> PortionDone:
            batch, portion = numbered
            writing = Writing(targets, reading.rows_per_task)
            for file in portion:
                _read_file(source, file, reading, transform, writing)
            writing.flush()
            return PortionDone(batch, portion, writing.files, writing.counts)

        return read_and_write

    def _commit(self, reached: Position, snapshot_id: int, finished: Sequence[PortionDone], run: lineage.Run) -> None:
        counts: dict[str, int] = {}
        for one in finished:
            add_counts(counts, one.counts)
        facts = {
            **run.facts(lineage.Inputs(tables={self.source: snapshot_id})),
            COUNTS: json.dumps(counts, sort_keys=True),
            "reel.run-ms": str(int(time.time() * 1000)),
        }
        for name, table in self.tables.items():
            recorded = self._recorded(table)
            if recorded is not None and (recorded == reached or recorded.offset > reached.offset):
                continue  # this table was ahead: it had all of the batch
            files = [file for one in finished for file in one.files[name]]
            self.tables[name] = run.wrote(self._commit_one(table, files, reached, facts))

    def _commit_one(
        self, table: Table, files: Sequence[DataFile], reached: Position, facts: Mapping[str, str]
    ) -> Table:
        before = self._recorded(table)
        for _ in range(ATTEMPTS):
            recorded = progress_of(table)
            advanced = {**recorded, SOURCES: {**recorded.get(SOURCES, {}), self.source: reached.to_json()}}
            try:
                return commit_files(table, files, advanced, facts)
            except ConcurrentCommitError:
                table = table.catalog.load_table(table.name())
                if self._recorded(table) != before:
                    raise
        raise ConcurrentCommitError(".".join(table.name()))

    def _recorded(self, table: Table) -> Position | None:
        recorded = progress_of(table).get(SOURCES, {}).get(self.source)
        return Position.from_json(recorded) if recorded is not None else None


@dataclass
class Writing:
    """What a task has made and not written yet, never more than a portion; and the files it has written."""

    targets: Mapping[str, tuple[TableFiles, int]]
    rows_at_most: int
    files: dict[str, list[DataFile]] = field(init=False)
    counts: dict[str, int] = field(default_factory=dict)
    _chunks: dict[tuple[str, str], list[pa.Table]] = field(default_factory=dict)
    _held: int = 0

    def __post_init__(self) -> None:
        self.files = {name: [] for name in self.targets}

    def add(self, made: Rows, read: int, file_offset: int) -> None:
        """Take what became of `read` rows, for the tables that do not have their file yet."""
        add_counts(self.counts, {**made.counts, "messages": read})
        for part in made.parts:
            if file_offset >= self.targets[part.table][1]:
                self._chunks.setdefault((part.table, part.kind), []).append(part.rows)
        self._held += read
        if self._held >= self.rows_at_most:
            self.flush()

    def flush(self) -> None:
        """Write all that is held: one file a kind and partition of the table."""
        while self._chunks:
            (name, _), chunks = self._chunks.popitem()
            new = write_files(self.targets[name][0], pa.concat_tables(chunks, promote_options="default"))
            self.files[name] += new
            add_counts(self.counts, {f"wrote {name}": sum(file.record_count for file in new)})
        self._held = 0


def _read_file(source: TableFiles, file: SourceFile, reading: Reading, transform: Transform, writing: Writing) -> None:
    read = 0
    for rows in stream(source, file.task, reading.columns, reading.row_filter):
        writing.add(transform(rows, file.offset + read), rows.num_rows, file.offset)
        read += rows.num_rows
    is_all = reading.row_filter is None and not file.task.delete_files
    if read > file.rows or (is_all and read < file.rows):
        raise UnreadableSourceError(
            f"the source's file {file.task.file.file_path} holds {read} rows, and its table says {file.rows}; "
            "rows would be numbered wrongly, so nothing of it was taken: ask its owner"
        )


def _batches(files: Sequence[SourceFile], rows_per_task: int, rows_per_commit: int) -> Iterator[list[Portion]]:
    """The files in their order, cut into commits and those into tasks, at the ends of files."""
    for batch in _runs(files, rows_per_commit):
        yield list(_runs(batch, min(rows_per_task, rows_per_commit)))


def _runs(files: Sequence[SourceFile], rows_at_most: int) -> Iterator[Portion]:
    run: list[SourceFile] = []
    rows = 0
    for file in files:
        if run and rows + file.rows > rows_at_most:
            yield tuple(run)
            run, rows = [], 0
        run.append(file)
        rows += file.rows
    if run:
        yield tuple(run)
