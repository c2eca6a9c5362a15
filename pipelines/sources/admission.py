"""What becomes of a source's rows: events for bronze, rows of the registries, the rest sealed with a reason.

One row is one event. Its event name says which event of the contract it is read as, and its topic which of two that
share the name; the rules are those of the door. Bronze knows a row by (cluster, topic, partition, offset): the cluster
is `iceberg:` and the table's UUID, the topic the event's own, so that everything downstream finds it where it looks
for such events, the partition 0, the offset the row's number (`sources.history`).

What cannot be read is set aside as JSON of the columns that the mapping reads (`sources.written`), sealed as messages
are. A row that is no event of the contract has the topic `iceberg:` and the source's name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.decision import CONSENT_COLUMNS
from features.pseudonyms import Pseudonymizer
from pipelines.admission import BRONZE, PEOPLE, QUARANTINE, people_part
from pipelines.contract.events import Column, Contract, EventSchema
from pipelines.door import Door
from pipelines.erased import Tombstones
from pipelines.intake import Part, Rows
from pipelines.kafka.message import Messages
from pipelines.messages import SetAside
from pipelines.quarantine import quarantine_rows
from pipelines.report import add_counts
from pipelines.sources.casting import Flags, cast
from pipelines.sources.mapping import TOPIC, ColumnMapping
from pipelines.sources.written import as_json

PARTITION = 0
_ICEBERG = "iceberg:"
Indices = NDArray[np.int64]
UNKNOWN_EVENT, AMBIGUOUS_EVENT = "unknown_event", "ambiguous_event"
# Of two readings the stricter: only the boolean true allows. A text that spells it is a refusal, and counted.
_ANSWERS = frozenset({*CONSENT_COLUMNS.values(), *(f"allows_{purpose}" for purpose in CONSENT_COLUMNS)})
NOT_BOOLEAN = "consent_not_boolean"


@dataclass(frozen=True)
class EventRows:
    """The rows of one event: which of the batch, and those that are sound as a table of its schema.

    `not_boolean`: of how many of these an answer about consent is no boolean.
    """

    schema: EventSchema
    rows: pa.Table
    at: Indices
    bad: Sequence[SetAside]
    not_boolean: int


@dataclass(frozen=True)
class RowReader:
    """Rows of a source as events of the contract."""

    contract: Contract
    mapping: ColumnMapping
    _named: dict[str, list[EventSchema]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        named: dict[str, list[EventSchema]] = {}
        for event in self.contract.events:
            named.setdefault(event.name, []).append(event)
        object.__setattr__(self, "_named", named)

    def read(self, rows: pa.Table) -> tuple[list[EventRows], list[SetAside]]:
        """By event what is sound of `rows`, with what is not; and the rows that are no event at all."""
        columns = self.mapping.project(rows)
        events: list[EventRows] = []
        strangers: list[SetAside] = []
        for name, topic, at in _kinds(columns, rows.num_rows):
            schemas = [one for one in self._named.get(name or "", []) if topic in (None, one.topic)]
            if len(schemas) != 1:
                reason = AMBIGUOUS_EVENT if schemas else UNKNOWN_EVENT
                strangers += [SetAside(index, reason, None) for index in at.tolist()]
                continue
            chosen = {key: values.take(pa.array(at)) for key, values in columns.items()}
            events.append(_typed(schemas[0], chosen, at))
        return events, strangers


@dataclass(frozen=True)
class SourceAdmission:
    """Rows of a source through the door: rows for bronze and for quarantine. Travels to Ray tasks."""

    source: str
    reader: RowReader
    door: Door
    key: bytes
    cluster_id: str
    run_ms: int

    def __call__(self, rows: pa.Table, first_offset: int) -> Rows:
        """Read, admit, and say what became of each of `rows`, the first of which has the number `first_offset`."""
        return self.admit(rows, first_offset + np.arange(rows.num_rows))

    def admit(self, rows: pa.Table, offsets: Indices) -> Rows:
        """The same of rows with the numbers `offsets`, int64[rows]."""
        events, strangers = self.reader.read(rows)
        parts: list[Part] = []
        counts: dict[str, int] = {}
        if strangers:
            parts.append(self._sealed(rows, strangers, strangers_topic(self.source), offsets, counts))
        for event in events:
            admission = self.door.admit(event.schema, event.rows)
            kept = event.at[admission.kept]
            admitted = self._with_origin(admission.rows, event.schema.topic, offsets[kept])
            parts.append(Part(BRONZE, event.schema.fullname, admitted))
            add_counts(counts, {f"event {event.schema.name}": len(kept)})
            add_counts(counts, admission.dropped, "dropped ")
            add_counts(counts, admission.restricted, "restricted ")
            add_counts(counts, {f"restricted {NOT_BOOLEAN}": event.not_boolean} if event.not_boolean else {})
            set_aside = list(event.bad)
            for reason, indices in admission.rejected.items():
                set_aside += [SetAside(int(event.at[index]), reason, None) for index in indices]
            if set_aside:
                parts.append(self._sealed(rows, set_aside, event.schema.topic, offsets, counts))
        return Rows(parts, counts)

    def _sealed(
        self, rows: pa.Table, set_aside: list[SetAside], topic: str, offsets: Indices, counts: dict[str, int]
    ) -> Part:
        set_aside.sort(key=lambda one: one.index)
        at = np.asarray([one.index for one in set_aside], np.int64)
        for one in set_aside:
            add_counts(counts, {f"quarantined {one.reason}": 1})
        values = as_json(rows.take(pa.array(at)))
        messages = Messages.of_partition(topic, PARTITION, offsets[at], [None] * len(at), values)
        renumbered = [SetAside(place, one.reason, None) for place, one in enumerate(set_aside)]
        sealed = quarantine_rows(self.key, messages, renumbered)
        return Part(QUARANTINE, QUARANTINE, self._with_origin(sealed, topic, offsets[at]))

    def _with_origin(self, rows: pa.Table, topic: str, offsets: Indices) -> pa.Table:
        count = rows.num_rows
        origin = {
            "cluster_id": pa.repeat(self.cluster_id, count).dictionary_encode(),
            "topic": pa.repeat(topic, count).dictionary_encode(),
            "partition": pa.repeat(pa.scalar(PARTITION, pa.int32()), count),
            "offset": pa.array(offsets, pa.int64()),
            "ingested_at": pa.repeat(pa.scalar(self.run_ms, pa.timestamp("ms", tz="UTC")), count),
        }
        for name, values in origin.items():
            rows = rows.append_column(name, values)
        return rows


@dataclass(frozen=True)
class PeopleAdmission:
    """Rows of the profile and consent registries among a source's rows. Travels to Ray tasks."""

    reader: RowReader
    hasher: Pseudonymizer
    erased: Tombstones

    def __call__(self, rows: pa.Table, first_offset: int) -> Rows:
        """What `rows` say of people; whatever else they are is left to the events."""
        parts: list[Part] = []
        for event in self.reader.read(rows)[0]:
            found = people_part(event.schema, event.rows, self.hasher, self.erased)
            if found is not None:
                parts.append(Part(PEOPLE[event.schema.name], event.schema.fullname, found[0]))
        return Rows(parts, {})


def cluster_of(table_uuid: str) -> str:
    """What stands for a Kafka cluster's id in the origin of a source's rows."""
    return f"{_ICEBERG}{table_uuid}"


def is_table(cluster_id: str) -> bool:
    """Whether what is of this cluster was a row of a table."""
    return cluster_id.startswith(_ICEBERG)


def strangers_topic(source: str) -> str:
    """The topic of a source's rows that are no event of the contract."""
    return f"{_ICEBERG}{source}"


def _kinds(columns: dict[str, pa.ChunkedArray], count: int) -> Iterator[tuple[str | None, str | None, Indices]]:
    """Each event name and topic that occurs, and the rows that have them."""
    if not count:
        return
    keys = {}
    for name in ("event_name", TOPIC):
        texts = cast(columns[name], pa.string())[0] if name in columns else pa.nulls(count, pa.string())
        keys[name] = texts.dictionary_encode(null_encoding="encode")
    names, topics = keys["event_name"], keys[TOPIC]
    codes = names.indices.to_numpy() * len(topics.dictionary) + topics.indices.to_numpy()
    for code in np.unique(codes).tolist():
        name, topic = divmod(code, len(topics.dictionary))
        yield names.dictionary[name].as_py(), topics.dictionary[topic].as_py(), np.flatnonzero(codes == code)


def _typed(schema: EventSchema, columns: dict[str, pa.ChunkedArray], at: Indices) -> EventRows:
    """The rows as a table of the event's schema. A row that does not fit is bad for the first reason that holds."""
    sound, is_odd = np.ones(len(at), dtype=bool), np.zeros(len(at), dtype=bool)
    bad: list[SetAside] = []
    arrays: list[pa.Array] = []
    for column in schema.columns:
        given = columns.get(column.name, pa.nulls(len(at)))
        if column.name in _ANSWERS and not (pa.types.is_boolean(given.type) or pa.types.is_null(given.type)):
            is_odd |= np.asarray(given.is_valid())
            given = pc.if_else(given.is_valid(), False, None)
        values, unfit = cast(given, column.arrow)
        for reason, is_bad in _faults(column, values, unfit):
            found = np.flatnonzero(is_bad & sound)
            bad += [SetAside(int(at[index]), reason, None) for index in found]
            sound[found] = False
        arrays.append(values)
    kept = [values.filter(pa.array(sound)) for values in arrays]
    rows = pa.Table.from_arrays(kept, schema=schema.arrow)
    return EventRows(schema, rows, at[sound], bad, int((is_odd & sound).sum()))


def _faults(column: Column, values: pa.Array, unfit: Flags) -> Iterator[tuple[str, Flags]]:
    """What can be wrong with a value: not of the type, absent where there must be one, not among those allowed."""
    if unfit.any():
        yield f"{column.name}_not_castable", unfit
    if not column.nullable and values.null_count:
        yield f"missing_{column.name}", np.asarray(values.is_null())
    if column.symbols:
        allowed = pc.is_in(values, pa.array([*column.symbols, *([None] if column.nullable else [])], pa.string()))
        if not pc.all(allowed).as_py():
            yield f"{column.name}_not_allowed", ~np.asarray(allowed)
