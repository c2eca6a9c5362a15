"""The door: what of an event may come in, and as what (spec 8.2, 8.3, 8.5).

input   decoded events of one schema (Arrow), with plain ids, full addresses and agents
does    required fields, sane values, consent, kids' protection, enrichment, salted hashes, truncated addresses,
        personal data in free text
output  rows that may be stored, rows to set aside with a reason, and counts of what was dropped or is restricted
"""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.chronicle import milliseconds
from features.decision import Registries, concerns_somebody, may_be_stored, resolve
from features.distinct import codes_of, encoded, spread
from features.profiles import strip_kids
from features.pseudonyms import Pseudonymizer, Pseudonyms
from features.redaction import redact
from pipelines.contract.events import EventSchema
from pipelines.enrichment import Enricher
from pipelines.erased import NOBODY, Tombstones
from pipelines.sanity import faults

Flags = NDArray[np.bool_]
_ADDRESSES_REMEMBERED = 65_536


@dataclass(frozen=True)
class Admission:
    """What the door lets in, for one batch of one event. `kept` and `rejected` are indices into the batch.

    Ids, addresses, `event_name` and what enrichment found are dictionary<int32, string> columns of `rows`; no
    dictionary holds a value that no row has.
    """

    rows: pa.Table  # bronze columns, aligned with `kept`
    kept: NDArray[np.int64]
    rejected: Mapping[str, NDArray[np.int64]]  # reason -> indices to set aside
    dropped: Mapping[str, int]  # reason -> events that may not be stored at all
    restricted: Mapping[str, int] = field(default_factory=dict)  # restriction -> kept events that are under it


@dataclass(frozen=True)
class Door:
    """The rules, with the salts, the registries and the databases they need."""

    pseudonymizer: Pseudonymizer
    known: Registries
    enricher: Enricher = field(default_factory=Enricher)
    erased: Tombstones = NOBODY

    def admit(self, schema: EventSchema, events: pa.Table) -> Admission:
        """Apply every rule to `events` (the flat columns of `schema`)."""
        rejected = faults(schema, events)
        kept = np.ones(events.num_rows, dtype=bool)
        for indices in rejected.values():
            kept[indices] = False

        dropped: dict[str, int] = {}
        erased = self.erased.among(events, self.pseudonymizer)
        if erased is not None:  # whatever is wrong with their events, none is kept, not even sealed
            rejected = {reason: left for reason, at in rejected.items() if len(left := at[~erased[at]])}
            kept &= ~erased
            dropped["erased"] = int(erased.sum())
        users = self.pseudonymizer.pseudonyms(events["user_id"])
        profiles = self.pseudonymizer.pseudonyms(events["profile_id"])
        read_strictly: Mapping[str, int] = {}
        # An event that concerns nobody may name somebody all the same, and is then theirs.
        if schema.consent_category != "none" or concerns_somebody(events).any():
            resolved = resolve(events, self.known.consents, self.known.profiles.with_owners(users, profiles))
            events, read_strictly = resolved.events, resolved.counts
            refused = kept & ~may_be_stored(events, schema.name in self.known.essential_events)
            dropped |= {"analytics_refused": int(refused.sum())} if refused.any() else {}
            kept &= ~refused

        if not kept.all():
            events, users, profiles = events.filter(pa.array(kept)), users.filter(kept), profiles.filter(kept)
        rows = self._protect(schema, events, users, profiles)
        return Admission(rows, np.flatnonzero(kept), rejected, dropped, {**_restricted(rows), **read_strictly})

    def _protect(self, schema: EventSchema, events: pa.Table, users: Pseudonyms, profiles: Pseudonyms) -> pa.Table:
        """Hash ids, strip kids' ones, enrich, truncate addresses, replace personal data in free text."""
        is_kids, described = self.known.profiles.describe_each(profiles, milliseconds(events["event_timestamp"]))
        columns = dict(zip(events.column_names, events.columns, strict=True))
        columns |= {
            "event_name": spread(pa.array([schema.name]), np.zeros(events.num_rows, np.int32)),
            "user_id": users.column,
            "profile_id": profiles.column,
            "session_id": self.pseudonymizer.hash_encoded(events["session_id"]),
            "device_id": self.pseudonymizer.hash_encoded(events["device_id"]),
            "ip": truncate_addresses(events["ip"]),
        }
        columns |= {
            column.name: redact(events[column.name]) for column in schema.columns if column.personal == "free_text"
        }
        columns |= self.enricher.columns(events, is_kids)
        has_profile = profiles.codes >= 0
        columns["is_kids"] = pa.array(is_kids, mask=has_profile & ~described)
        columns["profile_described"] = pa.array(described, mask=~has_profile)
        del columns["user_agent"]
        return strip_kids(pa.table(columns), is_kids, self.pseudonymizer)


def truncate_addresses(addresses: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """IP addresses cut to /24 (IPv4) or /48 (IPv6), spec 8.3; what is no address becomes null."""
    column = encoded(addresses)
    cut = [_truncated(text) for text in column.dictionary.to_pylist()]
    return spread(pa.array(cut, pa.string()), codes_of(column))


@lru_cache(_ADDRESSES_REMEMBERED)
def _truncated(text: str) -> str | None:
    try:
        socket.inet_pton(socket.AF_INET, text)  # four decimal numbers: ten times as fast as to make an object of them
    except (OSError, ValueError):
        return _truncated_v6(text)
    return f"{text[: text.rindex('.')]}.0/24"


def _truncated_v6(text: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return str(ipaddress.IPv6Network((address, 48), strict=False))


def _restricted(rows: pa.Table) -> dict[str, int]:
    """How many of `rows` may not be used for everything; each also says so in its own columns."""
    counts = {
        "no_personalization": _count_false(rows["consent_personalization"]),
        "no_ad_targeting": _count_false(rows["consent_ad_targeting"]),
        "kids": pc.sum(rows["is_kids"]).as_py() or 0,
        "undescribed_profile": _count_false(rows["profile_described"]),
    }
    return {restriction: count for restriction, count in counts.items() if count}


def _count_false(column: pa.ChunkedArray) -> int:
    return int(len(column) - column.null_count - (pc.sum(column).as_py() or 0))
