"""From Kafka's messages to rows that features may be made of: the same doors, rules and decisions as on the road.

    the door     consent, children, salted ids, enrichment, personal data (`pipelines.door`), as at ingest
    settling     rows of a profile nobody has described wait until somebody does (`pipelines.silver.settling`)
    rules        a row is valid or is counted as what it is (`pipelines.silver.rules`), as clean does
    content      what was known of a title at the time (`pipelines.silver.enrichment`)
    the decision may this row be used for what is made of it, as of now? (`features.decision`)

What cannot be read is counted: setting it aside, sealed, is the ingest's work, which reads the same messages.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.columns import milliseconds
from features.decision import DECISION_COLUMNS, decide
from features.distinct import with_plain_texts
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.contract.events import EventSchema
from pipelines.kafka.message import Messages
from pipelines.kafka.offsets import Offsets
from pipelines.lakehouse import tables
from pipelines.messages import MessageDecoder
from pipelines.report import add_counts
from pipelines.silver.enrichment import ASKED
from pipelines.silver.rules import VALID, Rules
from pipelines.silver.settling import Settling
from pipelines.stream.known import Known
from pipelines.stream.shelves import ORDER

_TIME = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True)
class _Read:
    """Events of one schema among some messages; `at`: which message each row was."""

    schema: EventSchema
    rows: pa.Table
    messages: Messages
    at: NDArray[np.int64]


@dataclass
class Admitting:
    """Messages in, rows of silver's tables out. `events` are the names of those wanted, `schemas` of their tables,
    `purposes` what these are used for; `firsts`: where each begins.
    """

    decoder: MessageDecoder
    hasher: Pseudonymizer
    events: frozenset[str]
    schemas: Mapping[str, pa.Schema]
    purposes: Mapping[str, Collection[Purpose]]
    firsts: Mapping[str, Offsets]
    wait_ms: int
    waiting: dict[str, pa.Table] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    newest_ms: dict[str, dict[int, int]] = field(default_factory=dict)
    _schema_of: dict[str, EventSchema] = field(default_factory=dict)

    def __call__(self, batch: Sequence[Messages], known: Known, now_ms: int) -> dict[Purpose, dict[str, pa.Table]]:
        """The rows of some messages, and of those that have waited for their profile, by purpose and silver's table."""
        settling = Settling(known.registries, self.hasher, now_ms, self.wait_ms)
        admitted: dict[str, list[pa.Table]] = {name: [rows] for name, rows in self.waiting.items()}
        for schema, rows in self._admit(self._read(batch), known, now_ms):
            admitted.setdefault(schema.fullname, []).append(rows)
        self.waiting = {}
        settled: dict[str, list[pa.Table]] = {}
        for fullname, some in admitted.items():
            schema = self._schema_of[fullname]
            settled.setdefault(f"silver.{schema.domain}", []).append(self._settled(schema, some, settling))
        found: dict[Purpose, dict[str, pa.Table]] = {}
        for name, some in settled.items():
            wanted = self.schemas[name]
            rows = pa.concat_tables(some, promote_options="permissive").combine_chunks()
            rows = known.knowledge.enrich(rows, {*wanted.names, *_content_asked_for(wanted)})
            shaped = _shaped(with_plain_texts(rows), wanted)
            for purpose in self.purposes[name]:
                decision = decide(rows, purpose, known.registries, now_ms)
                add_counts(self.counts, decision.excluded, f"left out of {purpose}: ")
                found.setdefault(purpose, {})[name] = shaped.filter(pa.array(decision.allowed))
        return found

    def wait_for(self, schema: EventSchema, rows: pa.Table) -> None:
        """Rows of an event that wait for their profile, as they were admitted."""
        self._schema_of[schema.fullname] = schema
        self.waiting[schema.fullname] = rows

    def _read(self, batch: Sequence[Messages]) -> list[_Read]:
        """The events among some messages that a table is made of, from where it begins."""
        found = []
        for messages in batch:
            decoded = self.decoder.decode(messages.values, self.events)
            add_counts(self.counts, {"cannot be read": len(decoded.bad)} if decoded.bad else {})
            for schema, rows, at in decoded.events:
                if f"silver.{schema.domain}" not in self.schemas:
                    continue
                self._schema_of[schema.fullname] = schema
                self._note_newest(rows, messages, at)
                firsts = self.firsts.get(f"silver.{schema.domain}", {}).get(messages.topic, {})
                if firsts:
                    first = np.zeros(max(int(messages.partitions.max()), *firsts) + 1, np.int64)
                    first[list(firsts)] = list(firsts.values())
                    is_new = messages.offsets[at] >= first[messages.partitions[at]]
                    rows, at = rows.filter(pa.array(is_new)), at[is_new]
                found.append(_Read(schema, rows, messages, at))
        return found

    def _admit(self, read: Sequence[_Read], known: Known, now_ms: int) -> Iterator[tuple[EventSchema, pa.Table]]:
        for one, admission in zip(read, known.door.admit_each([(one.schema, one.rows) for one in read]), strict=True):
            add_counts(self.counts, admission.dropped, "dropped: ")
            for reason, rejected in admission.rejected.items():
                add_counts(self.counts, {f"set aside by ingest: {reason}": len(rejected)})
            kept = one.at[admission.kept]
            origin = {
                "topic": pa.repeat(one.messages.topic, len(kept)),
                "partition": pa.array(one.messages.partitions[kept], pa.int32()),
                "offset": pa.array(one.messages.offsets[kept], pa.int64()),
                "ingested_at": pa.repeat(pa.scalar(now_ms, _TIME), len(kept)),
            }
            admitted = admission.rows
            for name, values in origin.items():
                admitted = admitted.append_column(name, values)
            yield one.schema, admitted

    def _note_newest(self, rows: pa.Table, messages: Messages, at: np.ndarray) -> None:
        times_ms, partitions = milliseconds(rows["event_timestamp"]), messages.partitions[at]
        known = self.newest_ms.setdefault(messages.topic, {})
        for partition in np.unique(partitions).tolist():
            known[partition] = max(known.get(partition, 0), int(times_ms[partitions == partition].max()))

    def _settled(self, schema: EventSchema, some: Sequence[pa.Table], settling: Settling) -> pa.Table:
        """Valid rows of one event whose profiles are described, in the columns that anything is made of."""
        if any(part.schema != some[0].schema for part in some):  # from bronze and from the door
            some = [with_plain_texts(part) for part in some]
        rows = pa.concat_tables(some, promote_options="permissive").unify_dictionaries().combine_chunks()
        rows, waits = settling.settle(rows)
        if waits.any():
            self.waiting[schema.fullname] = rows.filter(pa.array(waits)).combine_chunks()
            rows = rows.filter(pa.array(~waits))
        rows = rows.unify_dictionaries().combine_chunks()
        verdicts = Rules.of(schema).verdicts(rows)
        is_valid = verdicts.indices.to_numpy() == verdicts.dictionary.to_pylist().index(VALID)
        if not is_valid.all():
            add_counts(self.counts, {"invalid": int((~is_valid).sum())})
            rows = rows.filter(pa.array(is_valid))
        wanted = self.schemas[f"silver.{schema.domain}"].names
        asked, there = dict.fromkeys((*wanted, *DECISION_COLUMNS, *ASKED, *ORDER)), set(rows.column_names)
        return with_plain_texts(rows.select([name for name in asked if name in there]))


def _content_asked_for(wanted: pa.Schema) -> tuple[str, ...]:
    """A table that has the title of a content is told everything of it by the catalogue, else nothing."""
    told = {"content_type", *tables.CONTENT.names}
    return ("content_title",) if told & set(wanted.names) else ()


def _shaped(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a table's types, with the columns of `ORDER`; columns that they lack are null."""
    fields = [*schema, *(pa.field(name, rows.schema.field(name).type) for name in ORDER)]
    there = set(rows.column_names)
    columns = [
        rows[one.name].cast(one.type) if one.name in there else pa.nulls(rows.num_rows, one.type) for one in fields
    ]
    return pa.table(columns, schema=pa.schema([pa.field(one.name, one.type) for one in fields]))
