"""Exactly once from Kafka into Iceberg tables.

For every batch:

    1. each table's newest commit says which offsets it has consumed, and of which cluster
    2. Kafka says what there is; the ranges between the two are the work
    3. Ray tasks read ranges to their ends and write data files, which nobody can see yet
    4. each table gets one commit: the files and the next offsets, together

A crash before step 4 leaves files that no table names; after it, nothing is read again. Tables cannot be committed
as one, so each carries its own offsets: after a crash between two commits of step 4 the ranges are read again from
the lower of the two, and every table skips what it already has. While one batch is committed the next is being read.
"""

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.cluster import run_tasks
from pipelines.kafka.log import EventLog
from pipelines.kafka.message import Messages
from pipelines.kafka.offsets import Available, OffsetRange, Offsets, Progress, lost_ranges, plan
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.lineage import Inputs, Run
from pipelines.report import add_counts, summed
from pipelines.work import Work, batches

COUNTS = "reel.counts"
DROPPED = "dropped "
MESSAGES_PER_DECODE = 50_000


@dataclass(frozen=True)
class Part:
    """Rows for `table`, of one `kind`: those of a kind are written into files of their own."""

    table: str
    kind: str
    rows: pa.Table  # must have `partition` and `offset`


@dataclass(frozen=True)
class Rows:
    """What became of some messages."""

    parts: Sequence[Part]
    counts: Mapping[str, int]


Transform = Callable[[Messages], Rows]
"""From messages to rows, in a Ray task."""


@dataclass(frozen=True)
class WorkDone:
    """Some ranges, read to their ends and written."""

    batch: int
    done: Work
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

    def lost(self, now: Available) -> int:
        """How many offsets Kafka deleted before every table had read them."""
        lost = [span for progress in self.progress.values() for span in lost_ranges(progress, now)]
        widest = {(span.topic, span.partition): span for span in sorted(lost, key=lambda span: span.size)}
        return sum(span.size for span in widest.values())

    def snapshots(self) -> dict[str, int]:
        """The snapshot of each table that has one."""
        current = {name: table.metadata.current_snapshot_id for name, table in self.tables.items()}
        return {name: snapshot_id for name, snapshot_id in current.items() if snapshot_id is not None}

    def run(
        self,
        now: Available,
        ranges: Sequence[OffsetRange],
        transform: Transform,
        reading: "Reading",
        on_progress: Callable[[int], None],
        made: Run,
        consulted: Mapping[str, int] | None = None,
    ) -> dict[str, int]:
        """Steps 3 and 4 for every batch; the counts of all. `on_progress` hears of every range's size.

        `consulted` are the snapshots of tables that decided what became of the messages, for the commits' lineage.
        """
        planned = [
            batch
            for part in self._cut_where_tables_differ(ranges)
            for batch in batches(part, reading.messages_per_commit, reading.messages_per_task)
        ]
        totals: dict[str, int] = {}
        finished: dict[int, list[WorkDone]] = {number: [] for number in range(len(planned))}
        following = 0
        pieces = [(number, work) for number, batch in enumerate(planned) for work in batch]
        for result in run_tasks(self._task(transform, reading.log), pieces):
            finished[result.batch].append(result)
            on_progress(sum(span.size for span in result.done))
            add_counts(totals, result.counts)
            # In their order, so that what is recorded as consumed never has a gap.
            while following < len(planned) and len(finished[following]) == len(planned[following]):
                counts = summed(one.counts for one in finished[following])
                ranges = [span for work in planned[following] for span in work]
                facts = made.facts(Inputs.of_kafka(now.cluster_id, ranges, consulted or {}))
                facts |= {COUNTS: json.dumps(counts, sort_keys=True)}
                dropped = {name: count for name, count in counts.items() if name.startswith(DROPPED)}
                self._commit(now, ranges, finished.pop(following), dropped, facts, made)
                following += 1
        return totals

    def _cut_where_tables_differ(self, ranges: Sequence[OffsetRange]) -> tuple[list[OffsetRange], list[OffsetRange]]:
        """What only some tables lack, and what all of them lack: so a commit's counts are of what it advanced by."""
        some: list[OffsetRange] = []
        every: list[OffsetRange] = []
        for span in ranges:
            known = [progress.offsets.get(span.topic, {}).get(span.partition, 0) for progress in self.progress.values()]
            cut = min(max(*known, span.start), span.end)
            if cut > span.start:
                some.append(replace(span, end=cut))
            if cut < span.end or cut == span.start:
                every.append(replace(span, start=cut))
        return some, every

    def _task(self, transform: Transform, log: EventLog) -> Callable[[tuple[int, Work]], WorkDone]:
        targets = {name: (TableFiles.of(table), self.progress[name].offsets) for name, table in self.tables.items()}

        def read_and_write(numbered: tuple[int, Work]) -> WorkDone:
            batch, work = numbered
            files: dict[str, list[DataFile]] = {name: [] for name in targets}
            counts: dict[str, int] = {}
            with _without_cycle_search():
                for _, spans in groupby(work, key=lambda span: span.topic):
                    of_topic = list(spans)
                    written = _read_topic(log, of_topic, transform, targets, counts)
                    for name, new in written.items():
                        files[name] += new
            return WorkDone(batch, work, files, counts)

        return read_and_write

    def _commit(
        self,
        now: Available,
        ranges: Sequence[OffsetRange],
        finished: Sequence[WorkDone],
        dropped: Mapping[str, int],
        facts: Mapping[str, str],
        made: Run,
    ) -> None:
        for name in self.tables:
            files = [file for one in finished for file in one.files[name]]
            advanced = self.progress[name].advanced(now.cluster_id, ranges, now.topic_ids)
            if advanced == self.progress[name]:
                continue  # this table was ahead: it had all of the batch
            # What others record there, of what they bring into the same table, stays.
            before = progress_of(self.tables[name])
            recorded = {**before, **advanced.to_json()}
            if dropped:  # of these there is no row: nothing else tells of them once this snapshot has expired
                recorded["dropped"] = summed([before.get("dropped", {}), dropped])
            self.tables[name] = made.wrote(commit_files(self.tables[name], files, recorded, facts))
            self.progress[name] = advanced


@dataclass(frozen=True)
class Reading:
    """What is read, and in which portions."""

    log: EventLog
    messages_per_task: int
    messages_per_commit: int


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Python's search for reference cycles held off: messages have none, and it went through all of them every time.

    It took more than half of the time of reading from Kafka.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read_topic(
    log: EventLog,
    spans: Sequence[OffsetRange],
    transform: Transform,
    targets: Mapping[str, tuple[TableFiles, Offsets]],
    counts: dict[str, int],
) -> dict[str, list[DataFile]]:
    """Read some ranges of one topic and write what became of them: one file a kind and partition of the table."""
    chunks: dict[tuple[str, str], list[pa.Table]] = {}
    for messages in log.read(spans, MESSAGES_PER_DECODE):
        rows = transform(messages)
        add_counts(counts, {**rows.counts, "messages": len(messages)})
        for part in rows.parts:
            kept = _not_yet_consumed(part.rows, messages.topic, targets[part.table][1])
            chunks.setdefault((part.table, part.kind), []).append(kept)
    files: dict[str, list[DataFile]] = {name: [] for name in targets}
    while chunks:
        (name, kind), tables = chunks.popitem()
        new = write_files(targets[name][0], pa.concat_tables(tables, promote_options="default"))
        files[name] += new
        add_counts(counts, {f"wrote {name}": sum(file.record_count for file in new)})
        del tables, kind  # written, so their memory is free for the next
    return files


def _not_yet_consumed(rows: pa.Table, topic: str, consumed: Mapping[str, Mapping[int, int]]) -> pa.Table:
    firsts = consumed.get(topic)
    if not firsts or not rows.num_rows:
        return rows
    partitions = rows["partition"].to_numpy()
    first = np.zeros(max(int(partitions.max()), *firsts) + 1, np.int64)
    for partition, offset in firsts.items():
        first[partition] = offset
    fresh = rows["offset"].to_numpy() >= first[partitions]
    return rows if fresh.all() else rows.filter(pa.array(fresh))
