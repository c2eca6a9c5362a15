"""What becomes of sealed messages that are opened again: the part of a replay that runs in Ray tasks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile

from features.pseudonyms import Pseudonymizer
from pipelines.admission import BRONZE, EventAdmission, people_rows
from pipelines.door import Door
from pipelines.erased import Tombstones
from pipelines.intake import Rows
from pipelines.kafka.message import Messages
from pipelines.kafka.offsets import Offsets
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.origins import Origins
from pipelines.lakehouse.scans import read_files
from pipelines.messages import MessageDecoder
from pipelines.quarantine import opened
from pipelines.report import add_counts
from pipelines.sources.admission import is_table
from pipelines.sources.reopening import ReadSource

HELD, FRESH = "held", "fresh"  # counts of admitted messages: in bronze already, and not


@dataclass(frozen=True)
class Choice:
    """Messages of some reasons and topics (of all, when none is named) that bronze has `consumed`, rows of tables too.

    A table's rows are known by their cluster, which `sources.admission` names, and the number of the next one.
    """

    reasons: tuple[str, ...]
    topics: tuple[str, ...]
    consumed: Offsets
    consumed_rows: Mapping[str, int]

    @property
    def row_filter(self) -> BooleanExpression:
        """What files must have room for."""
        wanted: BooleanExpression = AlwaysTrue()
        for name, values in self._named:
            wanted = And(wanted, In(term=Reference(name), values={literal(value) for value in values}))
        return wanted

    def among(self, rows: pa.Table) -> NDArray[np.int64]:
        """Which of `rows` these are."""
        chosen = np.ones(rows.num_rows, bool)
        for name, values in self._named:
            chosen &= np.asarray(pc.is_in(rows[name].cast(pa.string()), value_set=pa.array(values)))
        origins = zip(*(rows[name].to_pylist() for name in ("cluster_id", "topic", "partition")), strict=True)
        consumed = [self._consumed(*origin) for origin in origins]
        return np.flatnonzero(chosen & (np.asarray(rows["offset"]) < np.array(consumed, np.int64)))

    def _consumed(self, cluster_id: str, topic: str, partition: int) -> int:
        if is_table(cluster_id):
            return self.consumed_rows.get(cluster_id, 0)
        return self.consumed.get(topic, {}).get(partition, 0)

    @property
    def _named(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, values) for name, values in (("reason", self.reasons), ("topic", self.topics)) if values]


@dataclass(frozen=True)
class Seals:
    """How files of quarantine are opened and what is in them decoded."""

    quarantine: TableFiles
    key: bytes
    decoder: MessageDecoder

    def rows(self, files: Iterable[DataFile]) -> pa.Table:
        """All of some files."""
        return read_files(self.quarantine, [file.file_path for file in files], self.quarantine.arrow_schema.names)

    def messages(self, rows: pa.Table, choice: Choice) -> Iterator[tuple[str, Messages, NDArray[np.int64]]]:
        """The chosen ones of `rows`, opened, by cluster and topic: the cluster's id, and which rows they are.

        Raises BrokenSealError.
        """
        chosen = choice.among(rows)
        places: dict[tuple[str, str], list[int]] = {}
        clusters, topics = (rows[name].take(pa.array(chosen)).to_pylist() for name in ("cluster_id", "topic"))
        for at, cluster_id, topic in zip(chosen.tolist(), clusters, topics, strict=True):
            places.setdefault((cluster_id, topic), []).append(at)
        for (cluster_id, topic), at in places.items():
            yield cluster_id, opened(self.key, topic, rows.take(pa.array(at))), np.array(at, np.int64)


@dataclass(frozen=True)
class Describing:
    """Finds descriptions of people."""

    seals: Seals
    choice: Choice
    sources: Mapping[str, ReadSource]
    hasher: Pseudonymizer
    erased: Tombstones

    def __call__(self, files: Sequence[DataFile]) -> dict[str, list[pa.Table]]:
        """Rows for the registries of people, by registry."""
        found: dict[str, list[pa.Table]] = {}
        for cluster_id, messages, _ in self.seals.messages(self.seals.rows(files), self.choice):
            for part in self._people(cluster_id, messages).parts:
                found.setdefault(part.table, []).append(part.rows)
        return found

    def _people(self, cluster_id: str, messages: Messages) -> Rows:
        if is_table(cluster_id):
            return self.sources[cluster_id].people(messages, self.hasher, self.erased)
        return people_rows(self.seals.decoder, self.hasher, self.erased, messages)


@dataclass(frozen=True)
class Reopened:
    """What became of some files of quarantine.

    `stale` are those that lose messages, `left` holds what stays of them, `admitted` what bronze gains; `counts` is of
    every message tried, by its fate.
    """

    stale: tuple[DataFile, ...]
    left: tuple[DataFile, ...]
    admitted: tuple[DataFile, ...]
    counts: dict[str, int]


@dataclass(frozen=True)
class Reopening:
    """Takes sealed messages through the door; writes what comes of them, unless that is only to be known."""

    seals: Seals
    choice: Choice
    sources: Mapping[str, ReadSource]
    door: Door
    bronze: Origins
    run_ms: int
    writes: bool

    def __call__(self, files: Sequence[DataFile]) -> Reopened:
        """Try all chosen messages of some files."""
        rows = self.seals.rows(files)
        leaves = np.zeros(rows.num_rows, bool)
        fresh: dict[str, list[pa.Table]] = {}
        counts: dict[str, int] = {}
        for cluster_id, messages, at in self.seals.messages(rows, self.choice):
            outcome = self._admit(cluster_id, messages)
            add_counts(counts, {**outcome.counts, "messages": len(messages)})
            still_bad: set[tuple[int, int]] = set()
            for part in outcome.parts:
                if part.table == BRONZE:
                    fresh.setdefault(part.kind, []).append(self._not_held(part.rows, counts))
                else:
                    still_bad.update(
                        zip(part.rows["partition"].to_pylist(), part.rows["offset"].to_pylist(), strict=True)
                    )
            origins = zip(messages.partitions.tolist(), messages.offsets.tolist(), strict=True)
            leaves[at] = [origin not in still_bad for origin in origins]
        if not (self.writes and leaves.any()):
            return Reopened((), (), (), counts)
        admitted = [
            file
            for parts in fresh.values()
            for file in write_files(self.bronze.table, pa.concat_tables(parts, promote_options="default"))
        ]
        left = write_files(self.seals.quarantine, rows.filter(pa.array(~leaves)))
        return Reopened(tuple(files), tuple(left), tuple(admitted), counts)

    def _admit(self, cluster_id: str, messages: Messages) -> Rows:
        if is_table(cluster_id):
            return self.sources[cluster_id].admit(messages, self.door, self.seals.key, cluster_id, self.run_ms)
        return EventAdmission(self.seals.decoder, self.door, self.seals.key, cluster_id, self.run_ms)(messages)

    def _not_held(self, rows: pa.Table, counts: dict[str, int]) -> pa.Table:
        held = self.bronze.hold(rows)
        add_counts(counts, {HELD: int(held.sum()), FRESH: int((~held).sum())})
        return rows.filter(pa.array(~held)) if held.any() else rows
