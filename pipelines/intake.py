"""Exactly once from Kafka into Iceberg tables.

For every batch:

    1. each table's newest commit says which offsets it has consumed, and of which cluster
    2. Kafka says what there is; the ranges between the two are the work
    3. Ray tasks read ranges to their ends and write data files, which nobody can see yet
    4. each table gets one commit: the files and the next offsets, together

A crash before step 4 leaves files that no table names; after it, nothing is read again. Tables cannot be committed
as one, so each carries its own offsets: after a crash between two commits of step 4 the ranges are read again from
the lower of the two, and every table skips what it already has.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.cluster import run_tasks
from pipelines.kafka.log import EventLog, Message
from pipelines.kafka.offsets import Available, OffsetRange, Progress, batches, plan
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.report import add_counts

MESSAGES_PER_DECODE = 50_000


@dataclass(frozen=True)
class Rows:
    """What became of some messages: rows for each table, which must have `topic`, `partition`, `offset`."""

    tables: Mapping[str, pa.Table]
    counts: Mapping[str, int]


Transform = Callable[[OffsetRange, Sequence[Message]], Rows]


@dataclass(frozen=True)
class RangeDone:
    """One range, read to its end and written."""

    done: OffsetRange
    files: Mapping[str, list[DataFile]]
    counts: Mapping[str, int]


@dataclass
class Intake:
    """A set of tables filled from the same topics."""

    tables: dict[str, Table]
    progress: dict[str, Progress] = field(init=False)

    def __post_init__(self) -> None:
        self.progress = {name: Progress.from_json(progress_of(table)) for name, table in self.tables.items()}

    def plan(self, now: Available, *, accept_lost: bool = False) -> list[OffsetRange]:
        """Ranges that some table has not consumed: from the lowest offset any of them wants."""
        widest: dict[tuple[str, int], OffsetRange] = {}
        for name, table_progress in self.progress.items():
            for wanted in plan(name, table_progress, now, accept_lost=accept_lost):
                known = widest.get((wanted.topic, wanted.partition))
                if known is None or wanted.start < known.start:
                    widest[wanted.topic, wanted.partition] = wanted
        return list(widest.values())

    def run(
        self,
        now: Available,
        ranges: Sequence[OffsetRange],
        transform: Transform,
        reading: "Reading",
        on_progress: Callable[[int], None],
    ) -> dict[str, int]:
        """Steps 3 and 4 for every batch; the counts of all. `on_progress` hears of every range's size."""
        totals: dict[str, int] = {}
        for batch in batches(ranges, reading.messages_per_commit, reading.messages_per_task):
            work = self._task(transform, reading.log)
            finished: list[RangeDone] = []
            for result in run_tasks(work, batch):
                finished.append(result)
                on_progress(result.done.size)
                add_counts(totals, result.counts)
            self._commit(now.cluster_id, finished)
        return totals

    def _task(self, transform: Transform, log: EventLog) -> Callable[[OffsetRange], RangeDone]:
        targets = {name: (TableFiles.of(table), self.progress[name].offsets) for name, table in self.tables.items()}

        def read_and_write(wanted: OffsetRange) -> RangeDone:
            chunks: dict[str, list[pa.Table]] = {name: [] for name in targets}
            counts: dict[str, int] = {}
            for messages in log.read(wanted, MESSAGES_PER_DECODE):
                rows = transform(wanted, messages)
                add_counts(counts, {**rows.counts, "messages": len(messages)})
                for name, table in rows.tables.items():
                    chunks[name].append(_not_yet_consumed(table, wanted, targets[name][1]))
            files = {}
            for name, (target, _) in targets.items():
                together = pa.concat_tables(chunks[name], promote_options="default") if chunks[name] else None
                files[name] = write_files(target, together) if together is not None else []
                add_counts(counts, {f"wrote {name}": sum(file.record_count for file in files[name])})
            return RangeDone(wanted, files, counts)

        return read_and_write

    def _commit(self, cluster_id: str, finished: Sequence[RangeDone]) -> None:
        ranges = sorted((one.done for one in finished), key=lambda r: (r.topic, r.partition, r.start))
        for name in self.tables:
            files = [file for one in finished for file in one.files[name]]
            advanced = self.progress[name].advanced(cluster_id, ranges)
            if advanced == self.progress[name]:
                continue  # this table was ahead: it had all of the batch
            facts = {"reel.run-ms": str(int(time.time() * 1000))}
            self.tables[name] = commit_files(self.tables[name], files, advanced.to_json(), facts)
            self.progress[name] = advanced


@dataclass(frozen=True)
class Reading:
    """What is read, and in which portions."""

    log: EventLog
    messages_per_task: int
    messages_per_commit: int


def _not_yet_consumed(rows: pa.Table, wanted: OffsetRange, consumed: Mapping[str, Mapping[int, int]]) -> pa.Table:
    first = consumed.get(wanted.topic, {}).get(wanted.partition, 0)
    if first <= wanted.start:
        return rows
    return rows.filter(pc.greater_equal(rows["offset"], first))
