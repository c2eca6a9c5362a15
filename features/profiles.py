"""Whose profile is it? Which profiles are a child's, as described by `profile.updated` (spec 8.5)."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.chronicle import Chronicle, Rows
from features.columns import milliseconds
from features.distinct import codes_of, encoded, spread
from features.pseudonyms import Pseudonymizer, Pseudonyms

PERSON_IDS = ("user_id", "profile_id", "session_id", "device_id")
VIEWER_TOKEN = "viewer_token"
MILLISECONDS_PER_DAY = 86_400_000
_FAR_MS = np.iinfo(np.int64).max
STILL, NEVER = _FAR_MS, -_FAR_MS

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ProfileRegistry:
    """What is known of every profile: one row per profile and instant."""

    descriptions: Chronicle
    is_kids: Flags  # of each description
    owners: pa.Array  # the hash of the user last named by then, or null

    @classmethod
    def of(cls, profiles: pa.Table) -> "ProfileRegistry":
        """From rows of (profile_id, is_kids, event_timestamp), and user_id where it is known whose profile it is.

        Of two descriptions in the same millisecond nobody can tell which came later, so the child's counts.
        """
        users = profiles["user_id"] if "user_id" in profiles.column_names else pa.nulls(profiles.num_rows, pa.string())
        frame = pl.DataFrame(
            {
                "profile_id": pl.Series(values=profiles["profile_id"].combine_chunks(), dtype=pl.String),
                "known_ms": milliseconds(profiles["event_timestamp"]),
                "is_kids": pl.Series(values=profiles["is_kids"].combine_chunks(), dtype=pl.Boolean),
                "user_id": pl.Series(values=users.cast(pa.string()), dtype=pl.String),
            }
        )
        rows = frame.group_by("profile_id", "known_ms").agg(pl.col("is_kids").max(), pl.col("user_id").max())
        rows = rows.sort("profile_id", "known_ms").with_columns(pl.col("user_id").forward_fill().over("profile_id"))
        keys, owners = (rows[name].to_arrow().cast(pa.string()) for name in ("profile_id", "user_id"))
        return cls(Chronicle.of(keys, rows["known_ms"].to_numpy()), rows["is_kids"].to_numpy(), owners)

    @property
    def people(self) -> pa.Array:
        """Every profile that was ever described, distinct."""
        return self.descriptions.names

    def found_late(self) -> pa.Array:
        """The profiles that were described as a grown-up's, and as a child's after that."""
        chronicle = self.descriptions
        follows = np.ones(len(self.is_kids), dtype=bool)
        follows[chronicle.starts[:-1]] = False
        became = self.is_kids & follows & ~np.roll(self.is_kids, 1)
        counts = np.append(0, np.cumsum(became))[chronicle.starts]
        return chronicle.names.filter(pa.array(np.diff(counts) > 0))

    def child_until_ms(self, profiles: pa.Array, at_ms: int) -> Rows:
        """Until when each of some distinct profiles was a child's, as known at `at_ms`, shape (profiles,).

        What happened by then was done by a child, or by somebody found since to have been one. `STILL` for one that
        is a child's at `at_ms`, `NEVER` for one that never was, and for one that nobody has described.
        """
        chronicle, places = self.descriptions, self.descriptions.find(profiles)
        until_ms = np.full(len(profiles), NEVER)
        if not len(chronicle.known_ms):
            return until_ms
        newest, first = chronicle.latest(places, np.full(len(profiles), at_ms)), chronicle.first(places)
        newest = np.where(newest < 0, first, newest)  # before the first description the first one holds
        last_kids = np.maximum.accumulate(np.where(self.is_kids, np.arange(len(self.is_kids)), -1))
        last = np.where(newest < 0, -1, last_kids[newest])
        was_kids = (last >= first) & (first >= 0)
        ended_ms = chronicle.known_ms[np.minimum(last + 1, len(chronicle.known_ms) - 1)]
        return np.where(was_kids, np.where(last == newest, STILL, ended_ms), NEVER)

    def owners_of(self, profiles: pa.Array) -> pa.Array:
        """The hash of the user that each of some distinct profiles was last said to be of, or null."""
        chronicle = self.descriptions
        places = chronicle.find(profiles)
        if not len(chronicle.known_ms):
            return pa.nulls(len(profiles), pa.string())
        newest = chronicle.latest(places, np.full(len(profiles), STILL))
        return self.owners.take(pa.array(newest, mask=newest < 0))

    def with_owners(self, users: Pseudonyms, profiles: Pseudonyms) -> Pseudonyms:
        """Whose rows these are: their users', and of rows without a user those whom their profile was described for."""
        lacks = (users.codes < 0) & (profiles.codes >= 0)
        if not lacks.any():
            return users
        owner = pc.coalesce(*[self.owners_of(names) for names in profiles.names])
        is_known = np.append(np.asarray(owner.is_valid()), False)
        owner, first = pc.fill_null(owner, ""), len(users.names[0])
        codes = np.where(lacks & is_known[profiles.codes], first + profiles.codes, users.codes).astype(np.int32)
        return Pseudonyms(codes, tuple(pa.concat_arrays([names, owner]) for names in users.names))

    def describe(self, profile_ids: pl.Series, instants_ms: pl.Series) -> tuple[Flags, Flags]:
        """(is_kids, is_described) of each profile, shapes (n,).

        The description in force at the instant holds; before the first one, the first one does. A profile that
        nobody has described is not known to be a child's, nor known not to be: is_described is False.
        """
        profiles = Pseudonyms.of(profile_ids.cast(pl.String).to_arrow().cast(pa.string()))
        return self.describe_each(profiles, instants_ms.cast(pl.Int64).to_numpy())

    def describe_each(self, profiles: Pseudonyms, instants_ms: Rows) -> tuple[Flags, Flags]:
        """The same of profiles that may be described under any of several salts."""
        chronicle = self.descriptions
        places = chronicle.places(profiles.names, profiles.codes)
        if not len(places):
            return np.zeros(len(instants_ms), dtype=bool), np.zeros(len(instants_ms), dtype=bool)
        rows, firsts = chronicle.latest(places, instants_ms), chronicle.first(places)
        newest_ms = np.where(rows < 0, -_FAR_MS, chronicle.known_ms[rows])
        oldest_ms = np.where(firsts < 0, _FAR_MS, chronicle.known_ms[firsts])
        in_force = (rows >= 0) & (newest_ms == newest_ms.max(axis=0))
        first = (firsts >= 0) & (oldest_ms == oldest_ms.min(axis=0))
        holds: Flags = np.where((rows >= 0).any(axis=0), in_force & self.is_kids[rows], first & self.is_kids[firsts])
        return np.asarray(holds.any(axis=0)), np.asarray((firsts >= 0).any(axis=0))


def strip_kids(events: pa.Table, is_kids: Flags, pseudonymizer: Pseudonymizer) -> pa.Table:
    """`events` (ids hashed) with a `viewer_token`, and without any id where `is_kids` (bool, shape (n,)).

    The token is what aggregates count viewers by: the profile's hash, or for a kids' profile a keyed token of the
    UTC day of the event, which leads back to nobody and links no two days. Ids that come as dictionary arrays stay
    so, and no dictionary keeps a child's id.
    """
    kind = events.schema.field("profile_id").type
    token = _tokens(encoded(events["profile_id"]), events["event_timestamp"], is_kids, pseudonymizer)
    events = _replace(events, VIEWER_TOKEN, token if pa.types.is_dictionary(kind) else token.cast(kind))
    if not is_kids.any():
        return events
    for name in PERSON_IDS:
        kind = events.schema.field(name).type
        column = encoded(events[name])
        stripped = spread(column.dictionary, np.where(is_kids, -1, codes_of(column)))
        events = _replace(events, name, stripped if pa.types.is_dictionary(kind) else stripped.cast(kind))
    return events


def _tokens(
    profiles: pa.DictionaryArray, instants: pa.ChunkedArray, is_kids: Flags, pseudonymizer: Pseudonymizer
) -> pa.DictionaryArray:
    codes = codes_of(profiles)
    kids = np.flatnonzero(is_kids & (codes >= 0))
    if not len(kids):
        return profiles
    days = milliseconds(instants)[kids] // MILLISECONDS_PER_DAY
    first_day, people = days.min(), len(profiles.dictionary)
    pairs, pair_of_row = np.unique((days - first_day) * people + codes[kids], return_inverse=True)
    children = profiles.dictionary.take(pa.array(pairs % people)).to_pylist()
    tokens = [
        pseudonymizer.daily_token(child, day)
        for child, day in zip(children, (first_day + pairs // people).tolist(), strict=True)
    ]
    codes = codes.copy()
    codes[kids] = people + pair_of_row
    return spread(pa.concat_arrays([profiles.dictionary, pa.array(tokens, pa.string())]), codes)


def _replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)
