"""The door: what of an event may come in, and as what (spec 8.2, 8.3, 8.5).

input   decoded events of one schema (Arrow), with plain ids
does    required fields, consent, kids' protection, salted hashes, truncated addresses, personal data in free text
output  rows that may be stored, rows to set aside with a reason, and counts of what was dropped
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.consent import ConsentHistory, resolve
from features.profiles import PERSON_IDS, ProfileRegistry, strip_kids
from features.pseudonyms import Pseudonymizer
from features.redaction import redact
from pipelines.contract.events import EventSchema


@dataclass(frozen=True)
class Admission:
    """What the door lets in, for one batch of one event. `kept` and `rejected` are indices into the batch."""

    rows: pa.Table  # bronze columns, aligned with `kept`
    kept: np.ndarray
    rejected: Mapping[str, np.ndarray]  # reason -> indices to set aside
    dropped: Mapping[str, int]  # reason -> events that may not be stored at all


@dataclass(frozen=True)
class Door:
    """The rules, with the salts and the registries they need."""

    pseudonymizer: Pseudonymizer
    consents: ConsentHistory
    profiles: ProfileRegistry
    essential_events: frozenset[str]

    def admit(self, schema: EventSchema, events: pa.Table) -> Admission:
        """Apply every rule to `events` (the flat columns of `schema`)."""
        rejected = _required_fields(schema, events)
        kept = np.ones(events.num_rows, dtype=bool)
        for indices in rejected.values():
            kept[indices] = False

        events = self._hash_users(events)
        dropped: dict[str, int] = {}
        of_a_person = _of_a_person(events)
        if of_a_person.any():
            events = resolve(events, self.consents)
            if schema.name not in self.essential_events:
                refused = kept & of_a_person & ~_true(events["consent_analytics"])
                dropped = {"analytics_refused": int(refused.sum())} if refused.any() else {}
                kept &= ~refused

        indices = np.flatnonzero(kept)
        rows = self._protect(schema, events.take(pa.array(indices)))
        return Admission(rows, indices, {reason: found for reason, found in rejected.items() if len(found)}, dropped)

    def _hash_users(self, events: pa.Table) -> pa.Table:
        return _replace(events, "user_id", self.pseudonymizer.hash_column(events["user_id"]))

    def _protect(self, schema: EventSchema, events: pa.Table) -> pa.Table:
        """Hash ids, strip kids' ones, truncate addresses, replace personal data in free text."""
        for name in PERSON_IDS:
            if name != "user_id":  # hashed already, to look up its consent
                events = _replace(events, name, self.pseudonymizer.hash_column(events[name]))
        has_profile = np.asarray(pc.is_valid(events["profile_id"]))
        is_kids, described = self.profiles.describe(
            pl.Series(values=events["profile_id"].combine_chunks(), dtype=pl.String),
            pl.Series(values=_milliseconds(events["event_timestamp"]), dtype=pl.Int64),
        )
        events = strip_kids(events, is_kids, self.pseudonymizer)
        events = _replace(events, "ip", truncate_addresses(events["ip"])).drop_columns(["user_agent"])
        for column in schema.columns:
            if column.personal == "free_text":
                events = _replace(events, column.name, redact(events[column.name]))
        events = _replace(events, "is_kids", pa.array(is_kids, mask=has_profile & ~described))
        return _replace(events, "profile_described", pa.array(described, mask=~has_profile))


def truncate_addresses(addresses: pa.ChunkedArray) -> pa.Array:
    """IP addresses cut to /24 (IPv4) or /48 (IPv6), spec 8.3; what is no address becomes null."""
    encoded = addresses.combine_chunks().dictionary_encode()
    cut = pa.array([_truncated(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return cut.take(encoded.indices)


def _truncated(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False))


def _required_fields(schema: EventSchema, events: pa.Table) -> dict[str, np.ndarray]:
    """Indices of events that lack what the contract needs (spec 11.1), by reason; the first reason counts."""
    wrong_name = ~_true(pc.equal(events["event_name"], schema.name))
    no_session = np.zeros(events.num_rows, dtype=bool)
    if schema.topic.startswith("client."):
        no_session = ~_present(events["session_id"]) & ~wrong_name
    no_id = ~_true(pc.not_equal(events["event_id"], "")) & ~wrong_name & ~no_session
    return {
        "wrong_event_name": np.flatnonzero(wrong_name),
        "missing_session_id": np.flatnonzero(no_session),
        "missing_event_id": np.flatnonzero(no_id),
    }


def _of_a_person(events: pa.Table) -> np.ndarray:
    """Events of the catalogue and of machines are nobody's; a client's are somebody's, logged in or not."""
    of_client = _true(pc.equal(events["source"], "CLIENT"))
    of_a_person: np.ndarray = of_client | _present(events["user_id"]) | _present(events["profile_id"])
    return of_a_person


def _milliseconds(instants: pa.ChunkedArray) -> pa.Array:
    return instants.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).combine_chunks()


def _true(column: pa.ChunkedArray) -> np.ndarray:
    filled: np.ndarray = pl.Series(values=pc.fill_null(column, False).combine_chunks()).to_numpy()
    return filled


def _present(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    present: np.ndarray = np.asarray(pc.is_valid(column))
    return present


def _replace(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)
