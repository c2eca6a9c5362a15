"""The door: what of an event may come in, and as what (spec 8.2, 8.3, 8.5).

input   decoded events of one schema (Arrow), with plain ids, full addresses and agents
does    required fields, sane values, consent, kids' protection, enrichment, salted hashes, truncated addresses,
        personal data in free text
output  rows that may be stored, rows to set aside with a reason, and counts of what was dropped or is restricted
"""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.columns import milliseconds
from features.decision import CONSENT_COLUMNS, Registries, concerns_somebody, counted, may_be_stored, resolve
from features.distinct import codes_of, encoded, spread
from features.profiles import strip_kids
from features.pseudonyms import Pseudonymizer, Pseudonyms
from features.redaction import redact
from pipelines.contract.events import EventSchema
from pipelines.enrichment import Enricher
from pipelines.erased import NOBODY, Tombstones
from pipelines.event_batch import ENVELOPE
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
    read_strictly: Mapping[str, int] = field(default_factory=dict)  # how -> events whose consent was read so

    @cached_property
    def restricted(self) -> Mapping[str, int]:
        """Kept events by what they are under: a restriction, or a strict reading of what was said."""
        return {**_restricted(self.rows), **self.read_strictly}


@dataclass(frozen=True)
class Door:
    """The rules, with the salts, the registries and the databases they need."""

    pseudonymizer: Pseudonymizer
    known: Registries
    enricher: Enricher = field(default_factory=Enricher)
    erased: Tombstones = NOBODY

    def admit(self, schema: EventSchema, events: pa.Table) -> Admission:
        """Apply every rule to `events` (the flat columns of `schema`)."""
        (admission,) = self.admit_each([(schema, events)])
        return admission

    def admit_each(self, parts: Sequence[tuple[EventSchema, pa.Table]]) -> list[Admission]:
        """The same of events of several schemas: what is asked of the envelope is asked once, of all of them.

        A dictionary holds values of all of them: rows whose dictionaries are written to a file are admitted by `admit`.
        """
        if not parts:
            return []
        sizes = [events.num_rows for _, events in parts]
        edges = np.cumsum([0, *sizes]).tolist()
        rejected = [faults(*part) for part in parts]
        events = pa.concat_tables([events.select(ENVELOPE.names) for _, events in parts])
        events = events.combine_chunks() if len(parts) > 1 else events
        is_sound = np.ones(events.num_rows, dtype=bool)
        for first, of_part in zip(edges, rejected, strict=False):
            for indices in of_part.values():
                is_sound[first + indices] = False

        users = self.pseudonymizer.pseudonyms(events["user_id"])
        profiles = self.pseudonymizer.pseudonyms(events["profile_id"])
        events, may_be_kept, read_strictly = self._resolve(parts, events, users, profiles)
        erased = self.erased.among(events, self.pseudonymizer)
        erased = np.zeros(events.num_rows, dtype=bool) if erased is None else erased
        judged = _Judged(is_sound, erased, may_be_kept, read_strictly)
        kept = judged.kept
        if not kept.all():
            events, users, profiles = events.filter(pa.array(kept)), users.filter(kept), profiles.filter(kept)
        which = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)[kept]
        names = spread(pa.array([schema.name for schema, _ in parts]), which)
        rows = self._protect(names, events, users, profiles)
        firsts = np.searchsorted(which, np.arange(len(parts))).tolist()
        return [
            _admission(*part, rows.slice(first), of_part, judged.between(start, end))
            for part, of_part, first, (start, end) in zip(parts, rejected, firsts, pairwise(edges), strict=True)
        ]

    def _resolve(
        self, parts: Sequence[tuple[EventSchema, pa.Table]], events: pa.Table, users: Pseudonyms, profiles: Pseudonyms
    ) -> tuple[pa.Table, Flags, Mapping[str, Flags]]:
        """All parts' events with what their people allowed; which may be stored; and which were read strictly, how."""
        sizes = [own.num_rows for _, own in parts]
        somebodys = np.split(concerns_somebody(events), np.cumsum(sizes)[:-1])
        # An event that concerns nobody may name somebody all the same, and is then theirs.
        asked = [
            schema.consent_category != "none" or bool(any_.any())
            for (schema, _), any_ in zip(parts, somebodys, strict=True)
        ]
        is_asked = np.repeat(asked, sizes)
        if not is_asked.any():
            return events, np.ones(events.num_rows, dtype=bool), {}
        resolved = resolve(events, self.known.consents, self.known.profiles.with_owners(users, profiles))
        events = resolved.events if all(asked) else _where(is_asked, resolved.events, events)
        is_essential = np.repeat([schema.name in self.known.essential_events for schema, _ in parts], sizes)
        strictly = {how: flags & is_asked for how, flags in resolved.read_strictly.items()}
        return events, ~is_asked | may_be_stored(events, is_essential), strictly

    def _protect(
        self, names: pa.DictionaryArray, events: pa.Table, users: Pseudonyms, profiles: Pseudonyms
    ) -> pa.Table:
        """Hash ids, strip kids' ones, enrich, truncate addresses."""
        is_kids, described = self.known.profiles.describe_each(profiles, milliseconds(events["event_timestamp"]))
        columns = dict(zip(events.column_names, events.columns, strict=True))
        columns |= {
            "event_name": names,
            "user_id": users.column,
            "profile_id": profiles.column,
            "session_id": self.pseudonymizer.hash_encoded(events["session_id"]),
            "device_id": self.pseudonymizer.hash_encoded(events["device_id"]),
            "ip": truncate_addresses(events["ip"]),
        }
        columns |= self.enricher.columns(events, is_kids)
        has_profile = profiles.codes >= 0
        columns["is_kids"] = pa.array(is_kids, mask=has_profile & ~described)
        columns["profile_described"] = pa.array(described, mask=~has_profile)
        del columns["user_agent"]
        return strip_kids(pa.table(columns), is_kids, self.pseudonymizer)


@dataclass(frozen=True)
class _Judged:
    """What is to become of some events; each flag has the shape (n,)."""

    is_sound: Flags
    erased: Flags
    may_be_kept: Flags
    read_strictly: Mapping[str, Flags]

    @property
    def kept(self) -> Flags:
        """Which come in."""
        return self.is_sound & ~self.erased & self.may_be_kept

    @property
    def dropped(self) -> dict[str, int]:
        """How many may not be stored at all, by reason."""
        refused = self.is_sound & ~self.erased & ~self.may_be_kept
        return counted({"erased": self.erased, "analytics_refused": refused})

    def between(self, start: int, end: int) -> "_Judged":
        """Of some of the events."""
        strictly = {how: flags[start:end] for how, flags in self.read_strictly.items()}
        return _Judged(self.is_sound[start:end], self.erased[start:end], self.may_be_kept[start:end], strictly)


def _where(flags: Flags, events: pa.Table, otherwise: pa.Table) -> pa.Table:
    """The rows of `events` where the flag holds, else those of `otherwise`: consent is all they may differ in."""
    for name in CONSENT_COLUMNS.values():
        chosen = pc.if_else(pa.array(flags), events[name], otherwise[name])
        events = events.set_column(events.column_names.index(name), name, chosen)
    return events


def _admission(
    schema: EventSchema, own: pa.Table, rows: pa.Table, rejected: Mapping[str, NDArray[np.int64]], judged: _Judged
) -> Admission:
    """Of one event: its properties, and `rows`, which begin with what became of its envelope."""
    kept = judged.kept
    own, rows = own if kept.all() else own.filter(pa.array(kept)), rows.slice(0, int(kept.sum()))
    columns = dict(zip(own.column_names, own.columns, strict=True))
    del columns["user_agent"]
    columns |= {column.name: redact(own[column.name]) for column in schema.columns if column.personal == "free_text"}
    columns |= dict(zip(rows.column_names, rows.columns, strict=True))
    # Whatever is wrong with events of the erased, none is kept, not even sealed.
    rejected = {reason: left for reason, at in rejected.items() if len(left := at[~judged.erased[at]])}
    return Admission(pa.table(columns), np.flatnonzero(kept), rejected, judged.dropped, counted(judged.read_strictly))


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
