"""Whose profile is it? Which profiles are a child's, as described by `profile.updated` (spec 8.5)."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.pseudonyms import Pseudonymizer

PERSON_IDS = ("user_id", "profile_id", "session_id", "device_id")
MILLISECONDS_PER_DAY = 86_400_000


@dataclass(frozen=True)
class ProfileRegistry:
    """What is known of every profile: one row per profile and instant, sorted by time."""

    descriptions: pl.DataFrame

    @classmethod
    def of(cls, profiles: pa.Table) -> "ProfileRegistry":
        """From rows of (profile_id, is_kids, event_timestamp).

        Of two descriptions in the same millisecond nobody can tell which came later, so the child's counts.
        """
        known_ms = profiles["event_timestamp"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
        frame = pl.DataFrame(
            {
                "profile_id": pl.Series(values=profiles["profile_id"].combine_chunks(), dtype=pl.String),
                "known_ms": pl.Series(values=known_ms.combine_chunks(), dtype=pl.Int64),
                "is_kids": pl.Series(values=profiles["is_kids"].combine_chunks(), dtype=pl.Boolean),
            }
        )
        return cls(frame.group_by("profile_id", "known_ms").agg(pl.col("is_kids").max()).sort("known_ms"))

    def describe(self, profile_ids: pl.Series, instants_ms: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """(is_kids, is_described) of each profile, shapes (n,).

        The description in force at the instant holds; before the first one, the first one does. A profile that
        nobody has described is not known to be a child's, nor known not to be: is_described is False.
        """
        asked = pl.DataFrame(
            {"profile_id": profile_ids.cast(pl.String), "asked_ms": instants_ms.cast(pl.Int64)}
        ).with_row_index("row")
        first = self.descriptions.group_by("profile_id", maintain_order=True).agg(
            pl.col("is_kids").first().alias("was_kids_first")
        )
        known = (
            asked.sort("asked_ms", maintain_order=True)
            .join_asof(
                self.descriptions,
                left_on="asked_ms",
                right_on="known_ms",
                by="profile_id",
                strategy="backward",
                check_sortedness=False,
            )
            .join(first, on="profile_id", how="left", maintain_order="left")
            .sort("row")
            .select(pl.coalesce("is_kids", "was_kids_first").alias("is_kids"))
            .to_series()
        )
        return known.fill_null(value=False).to_numpy(), known.is_not_null().to_numpy()


def strip_kids(events: pa.Table, is_kids: np.ndarray, pseudonymizer: Pseudonymizer) -> pa.Table:
    """`events` (ids hashed) with a `viewer_token`, and without any id where `is_kids` (bool, shape (n,)).

    The token is what aggregates count viewers by: the profile's hash, or for a kids' profile a keyed token of the
    UTC day of the event, which leads back to nobody and links no two days.
    """
    profiles = _one_chunk(events["profile_id"])
    tokens = profiles.to_numpy(zero_copy_only=False).copy()
    days = (
        events["event_timestamp"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy() // MILLISECONDS_PER_DAY
    )
    known: dict[tuple[str, int], str] = {}
    for row in np.flatnonzero(is_kids & np.asarray(profiles.is_valid())):
        key = (tokens[row], int(days[row]))
        if key not in known:
            known[key] = pseudonymizer.daily_token(*key)
        tokens[row] = known[key]
    events = _replace(events, "viewer_token", pa.array(tokens, pa.string()))
    mask = pa.array(is_kids)
    for name in PERSON_IDS:
        events = _replace(events, name, pc.if_else(mask, pa.scalar(None, pa.string()), _one_chunk(events[name])))
    return events


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)
