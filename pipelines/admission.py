"""What becomes of messages: rows for the tables they belong in, counts of everything else.

input   messages of one topic, as they stand in Kafka
does    decodes them in bulk, takes them through the door, seals what cannot be read
output  rows of `bronze.events` and `quarantine.events`, or of the registries of profiles and consents; requests to be
        erased
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.pseudonyms import Pseudonymizer
from pipelines.carried import carried_columns
from pipelines.contract.events import EventSchema
from pipelines.door import Door
from pipelines.erased import USER_DELETED, Tombstones, requests_among
from pipelines.intake import DROPPED, Part, Rows
from pipelines.kafka.message import Messages
from pipelines.lakehouse import tables
from pipelines.messages import MessageDecoder, SetAside
from pipelines.quarantine import quarantine_rows
from pipelines.report import add_counts
from pipelines.sanity import is_dated

BRONZE, QUARANTINE = "bronze.events", "quarantine.events"
# The tables of people, by the event that fills each.
PEOPLE = {
    "profile.updated": "privacy.profiles",
    "consent.changed": "privacy.consents",
    USER_DELETED: "privacy.erasures",
}
_REGISTRIES = {"profile.updated": tables.PROFILES, "consent.changed": tables.CONSENTS}


@dataclass(frozen=True)
class EventAdmission:
    """Messages through the door: rows for bronze and for quarantine."""

    decoder: MessageDecoder
    door: Door
    key: bytes
    cluster_id: str
    run_ms: int

    def __call__(self, messages: Messages) -> Rows:
        """Decode, admit, and say what became of each message."""
        decoded = self.decoder.decode(messages.values)
        set_aside = list(decoded.bad)
        counts: dict[str, int] = {}
        parts: list[Part] = []
        for schema, rows, at in decoded.events:
            admission = self.door.admit(schema, rows)
            kept = at[admission.kept]
            admitted = self._with_origin(admission.rows, messages, kept)
            for name, values in carried_columns(messages.headers, kept).items():
                admitted = admitted.append_column(name, values)
            parts.append(Part(BRONZE, schema.fullname, admitted))
            add_counts(counts, {f"event {schema.name}": len(kept)})
            add_counts(counts, admission.dropped, DROPPED)
            add_counts(counts, admission.restricted, "restricted ")
            for reason, indices in admission.rejected.items():
                set_aside += [SetAside(int(at[index]), reason, None) for index in indices]
        if set_aside:
            parts.append(self._sealed(messages, sorted(set_aside, key=lambda one: one.index), counts))
        return Rows(parts, counts)

    def _sealed(self, messages: Messages, set_aside: Sequence[SetAside], counts: dict[str, int]) -> Part:
        for one in set_aside:
            add_counts(counts, {f"quarantined {one.reason}": 1})
        sealed = quarantine_rows(self.key, messages, set_aside)
        at = np.asarray([one.index for one in set_aside], np.int64)
        return Part(QUARANTINE, QUARANTINE, self._with_origin(sealed, messages, at))

    def _with_origin(self, rows: pa.Table, messages: Messages, at: NDArray[np.int64]) -> pa.Table:
        count = rows.num_rows
        origin = {
            "cluster_id": _repeated(self.cluster_id, count),
            "topic": _repeated(messages.topic, count),
            "partition": pa.array(messages.partitions[at], pa.int32()),
            "offset": pa.array(messages.offsets[at], pa.int64()),
            "ingested_at": pa.repeat(pa.scalar(self.run_ms, pa.timestamp("ms", tz="UTC")), count),
        }
        for name, values in origin.items():
            rows = rows.append_column(name, values)
        return rows


def people_rows(decoder: MessageDecoder, hasher: Pseudonymizer, erased: Tombstones, messages: Messages) -> Rows:
    """Rows of the profile and consent registries among messages of `user.events`, and requests to be erased."""
    parts: list[Part] = []
    for schema, rows, at in decoder.decode(messages.values).events:
        part = people_part(schema, rows, hasher, erased)
        if part is None:
            continue
        kept, of_event = part
        at = at[of_event]
        kept = kept.append_column("partition", pa.array(messages.partitions[at], pa.int32()))
        kept = kept.append_column("offset", pa.array(messages.offsets[at], pa.int64()))
        parts.append(Part(PEOPLE[schema.name], schema.fullname, kept))
    return Rows(parts, {})


def people_part(
    schema: EventSchema, events: pa.Table, hasher: Pseudonymizer, erased: Tombstones
) -> tuple[pa.Table, NDArray[np.int64]] | None:
    """Decoded events as rows of their registry, and which event each row is of; None for any other event.

    A row for every live salt: what was stored under an older one is asked about by that one's hash, and what somebody
    says now holds for it too. Of people who were erased there is no row. What the door sets aside for another fault
    than its time holds all the same: somebody who withdraws consent, or is a child, is better believed.
    """
    if schema.name not in PEOPLE:
        return None
    gone = erased.among(events, hasher)
    is_told = np.ones(events.num_rows, bool) if gone is None else ~gone
    is_told &= is_dated(events)
    places = np.flatnonzero(is_told)
    events = events.take(pa.array(places))
    if schema.name == USER_DELETED:
        rows, of_events = requests_among(events, hasher, erased)
        return rows, places[of_events]
    target = _REGISTRIES[schema.name]
    # The registry's first column is who it is about: without it an event describes nobody.
    of_event = np.flatnonzero(np.asarray(events[target.names[0]].is_valid()))
    events = events.take(pa.array(of_event))
    people = {name: hasher.pseudonyms(events[name]) for name in ("user_id", "profile_id")}
    under_each: list[pa.Table] = []
    for salt in range(len(hasher.salts)):
        for name, theirs in people.items():
            hashed = theirs.names[salt].take(pa.array(theirs.codes, mask=theirs.codes < 0))
            events = events.set_column(events.column_names.index(name), name, hashed)
        under_each.append(events.select(target.names))
    return pa.concat_tables(under_each), np.tile(places[of_event], len(hasher.salts))


def _repeated(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))
