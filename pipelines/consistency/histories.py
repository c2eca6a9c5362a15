"""What a differing value would have been from fewer events, or with consent as it stood: worked out anew.

Of a person, from all their rows of silver, through the decision and the source's own functions. Of what is no person
(a delivery network in a region), from the sorted log less what became known with some events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import FileScanTask

from features.columns import milliseconds
from features.crowds import without_children
from features.decision import DECISION_COLUMNS
from features.distinct import with_plain_texts
from features.entities import entity as entity_of
from features.source import EVENT_ID, EVENT_TIME, FROM
from features.stretches import NEVER_MS
from features.timeline import Timeline
from pipelines.consistency.comparing import first_row
from pipelines.consistency.known import positions, settled_ms
from pipelines.feature_tables import Target
from pipelines.lakehouse.scans import cut_by, read_files
from pipelines.point_in_time.stored import BucketedTable
from pipelines.viewing import Viewing

ORIGIN = ("topic", "partition", "offset", "ingested_at")
_TABLE = b"table"
_LONGEST_LAG_MS = 3_600_000
"""Of what is no person, events that are older than this at an answer are not looked for among those not seen."""


@dataclass(frozen=True)
class Asked:
    """A row of the log that differs, in which features; `stream` is what that had processed, None if none ever ran."""

    key: str
    at_ms: int
    as_of_ms: int
    served: Mapping[str, Any]
    differing: tuple[str, ...]
    stream: str | None


@dataclass(frozen=True)
class Unseen:
    """An event that was not in the value; `is_late`: newer ones of its partition were."""

    event_id: str
    is_late: bool


class History(Protocol):
    """The events of a key."""

    def unseen(self, asked: Asked) -> Sequence[Unseen]:
        """Events before the instant that the stream had not processed, oldest first."""

    def values(self, asked: Asked, without: frozenset[str], *, as_allowed_then: bool) -> dict[str, Any]:
        """The features at the instant, of all events but these."""


@dataclass(frozen=True)
class SilverOf:
    """Tables of silver that a target's source reads, and what it reads besides. Travels to the tasks."""

    target: Target
    viewings: Mapping[str, Viewing]
    schemas: Mapping[str, pa.Schema]
    shared: Mapping[str, pa.Table]
    keys: pa.Array
    """Of people: whose rows are read."""
    since_ms: int
    until_ms: int
    """Of what is no person: of when events are read."""
    buckets: int

    def items(self, groups: Any) -> list[tuple[str, list[FileScanTask]]]:
        """The files of all tables, in groups that are one task's work each."""
        return [(name, files) for name, viewing in self.viewings.items() for files in groups(viewing.files)]

    def columns_of(self, name: str) -> tuple[str, ...]:
        """What is read of a table."""
        read = self.target.group.source.reads[name]
        return tuple(dict.fromkeys((*read, self.target.entity, *DECISION_COLUMNS, EVENT_ID, EVENT_TIME, *ORIGIN)))

    def people(self, item: tuple[str, list[FileScanTask]]) -> list[pa.Table]:
        """Rows of some files that are of these people, by the bucket of their key."""
        name, files = item
        rows = self._read(name, files, self.columns_of(name))
        rows = rows.filter(pc.is_in(rows[self.target.entity].cast(pa.string()), value_set=self.keys))
        places = pc.index_in(rows[self.target.entity].cast(pa.string()), value_set=self.keys).to_numpy()
        parts = cut_by(rows, places.astype(np.int64) % self.buckets, self.buckets)
        return [with_plain_texts(part).replace_schema_metadata({_TABLE: name.encode()}) for part in parts]

    def events(self, item: tuple[str, list[FileScanTask]]) -> list[pa.Table]:
        """Where and when events of some files came in, of the time that is asked about."""
        name, files = item
        rows = self._read(name, files, (EVENT_ID, EVENT_TIME, *ORIGIN))
        times_ms = milliseconds(rows[EVENT_TIME])
        return [with_plain_texts(rows.filter(pa.array((times_ms >= self.since_ms) & (times_ms < self.until_ms))))]

    def _read(self, name: str, files: Sequence[FileScanTask], columns: tuple[str, ...]) -> pa.Table:
        return read_files(self.viewings[name].table, [task.file.file_path for task in files], columns)


@dataclass(frozen=True)
class PersonsHistory:
    """Of one person, from rows of silver, by table."""

    silver: SilverOf
    rows: Mapping[str, pa.Table]

    @classmethod
    def of_all(cls, silver: SilverOf, parts: Sequence[pa.Table], keys: Sequence[str]) -> "Iterator[PersonsHistory]":
        """Of each of some people whose rows are in these parts."""
        by_table: dict[str, list[pa.Table]] = {}
        for part in parts:
            by_table.setdefault(part.schema.metadata[_TABLE].decode(), []).append(part.replace_schema_metadata(None))
        whole = {name: pa.concat_tables(some) for name, some in by_table.items()}
        for key in keys:
            yield cls(
                silver,
                {name: rows.filter(pc.equal(rows[silver.target.entity], key)) for name, rows in whole.items()},
            )

    def unseen(self, asked: Asked) -> list[Unseen]:
        """Events before the instant that the stream had not processed, oldest first."""
        events = [rows.select([EVENT_ID, EVENT_TIME, *ORIGIN]) for rows in self.rows.values()]
        return unseen_of(pa.concat_tables(events), asked, self.silver.target) if events else []

    def values(self, asked: Asked, without: frozenset[str], *, as_allowed_then: bool) -> dict[str, Any]:
        """The features at the instant, of all events but these."""
        source, target = self.silver.target.group.source, self.silver.target
        tables = {name: self.silver.schemas[name].empty_table() for name in source.reads} | dict(self.silver.shared)
        for name, rows in self.rows.items():
            kept = rows.filter(pc.invert(pc.is_in(rows[EVENT_ID], value_set=pa.array(sorted(without), pa.string()))))
            viewing = self.silver.viewings[name]
            if as_allowed_then:
                viewing = replace(viewing, at_ms=asked.as_of_ms - target.group.delay)
            tables[name] = viewing.admitted(kept)[0].select(list(source.reads[name]))
        return _value(target, source.log(tables), asked)


@dataclass(frozen=True)
class CrowdsHistory:
    """Of what is no person, from its part of the sorted log and from where events came in."""

    target: Target
    log: pa.Table
    events: pa.Table

    @classmethod
    def of(cls, target: Target, stored: BucketedTable, bucket: int, key: str, events: pa.Table) -> "CrowdsHistory":
        """Of one key, whose bucket of the sorted log is read."""
        schema = pa.schema([field for field in target.group.source.schema if field.name != target.entity])
        rows = stored.read(bucket, target.entity, schema)
        rows = with_plain_texts(rows)
        log = rows.filter(pc.equal(rows[target.entity], key))
        ids = pc.replace_substring(log[EVENT_ID], FROM, "")
        return cls(target, log, events.filter(pc.is_in(events[EVENT_ID], value_set=ids.combine_chunks())))

    def unseen(self, asked: Asked) -> list[Unseen]:
        """Events before the instant that the stream had not processed, oldest first."""
        return unseen_of(self.events, asked, self.target)

    def values(self, asked: Asked, without: frozenset[str], *, as_allowed_then: bool) -> dict[str, Any]:
        """The features at the instant, of all rows of the log but those that these events made known.

        What was allowed when it happened stays in aggregates, so it does not matter as of when consent is asked.
        """
        ids = pc.replace_substring(self.log[EVENT_ID], FROM, "")
        kept = pc.invert(pc.is_in(ids, value_set=pa.array(sorted(without), pa.string())))
        return _value(self.target, self.log.filter(kept), asked)


def unseen_of(events: pa.Table, asked: Asked, target: Target) -> list[Unseen]:
    """Those of some events that are before an instant and that the stream had not processed, oldest first.

    Where no stream ever ran, those that came in after the answer.
    """
    at_ms = milliseconds(events[EVENT_TIME])
    is_before = at_ms < asked.as_of_ms - target.group.delay
    if asked.stream is None:
        is_unseen = is_before & (milliseconds(events["ingested_at"]) > asked.at_ms)
        late = np.zeros(len(at_ms), dtype=np.bool_)
    else:
        seen = positions(asked.stream)
        origins = zip(*(events[name].to_pylist() for name in ("topic", "partition", "offset")), strict=True)
        found = [(seen.get((topic, partition)), offset) for topic, partition, offset in origins]
        is_unread = np.array(
            [position is not None and offset >= position.offset for position, offset in found], dtype=np.bool_
        )
        waits = at_ms >= (NEVER_MS if entity_of(target.entity).is_personal else settled_ms(asked.stream))
        is_unseen = is_before & (is_unread | waits)
        newest_ms = np.array([0 if position is None else position.newest_ms for position, _ in found], dtype=np.int64)
        late = is_unread & (at_ms <= newest_ms)
    ids = events[EVENT_ID].to_pylist()
    order = sorted(np.flatnonzero(is_unseen).tolist(), key=lambda place: (at_ms[place], ids[place]))
    return [Unseen(ids[place], bool(late[place])) for place in order]


def since_of(asked: Sequence[Asked]) -> int:
    """From when on events are looked for that an answer may not have seen."""
    return min(one.as_of_ms for one in asked) - _LONGEST_LAG_MS


def _value(target: Target, log: pa.Table, asked: Asked) -> dict[str, Any]:
    timeline = Timeline.of_events(target.group, target.entity, without_children(log))
    return first_row(target, timeline.values_at(pa.array([asked.key]), np.array([asked.as_of_ms])))
