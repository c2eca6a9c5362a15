"""What a viewer could have chosen at an instant: the candidates that negative rows are drawn from.

    Catalogue()                      titles that the catalogue had on offer
    SeenIn(log, "content_id")        keys that a log had an event of

A candidate is available at `t` by what was known before `t`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from features.columns import codes_in, encode
from features.entities import entity as entity_of
from features.errors import DeclarationError
from features.frames import frame_of
from features.source import EVENT_TIME, Source
from features.windows import Int64s

TITLE_COLUMNS = ("content_id", "content_type", "event_timestamp", "is_available", "available_until")
_FOR_EVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Catalogue:
    """Titles on offer in some market: announced, not withdrawn, not past their end. `content_types`: () is all."""

    content_types: tuple[str, ...] = ()

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def available(self, titles: pa.Table) -> "Available":
        """From the catalogue's history, in any order; its later row of a title supersedes an earlier one."""
        rows = frame_of(titles, TITLE_COLUMNS, "the titles table")
        # Of two rows of the same millisecond nobody can tell which came later; the one that offers less counts.
        rows = rows.with_columns(
            at=pl.col(EVENT_TIME).dt.timestamp("ms"),
            until=pl.when(pl.col("is_available") == False)  # noqa: E712
            .then(0).otherwise(pl.col("available_until").dt.timestamp("ms")).fill_null(_FOR_EVER),
        )  # fmt: skip
        if self.content_types:
            unsaid = ~pl.col("content_type").is_in(self.content_types).fill_null(False)
            rows = rows.with_columns(until=pl.when(unsaid).then(0).otherwise("until"))
        rows = rows.group_by("content_id", "at").agg(pl.col("until").min()).sort("content_id", "at")
        known_until = pl.col("at").shift(-1).over("content_id") + 1
        rows = rows.select(
            "content_id",
            since=pl.col("at") + 1,
            until=pl.min_horizontal("until", known_until.fill_null(_FOR_EVER)),
        ).filter(pl.col("since") < pl.col("until"))
        return Available(
            rows["content_id"].to_arrow().cast(pa.string()), rows["since"].to_numpy(), rows["until"].to_numpy()
        )


@dataclass(frozen=True)
class SeenIn:
    """Keys of a log, each from its first event on. Of something that is no person: whose log loses nobody's events."""

    source: Source
    entity: str

    def check(self) -> None:
        """Raise `DeclarationError` where the candidates would be people, or nothing."""
        if entity_of(self.entity).is_personal:
            raise DeclarationError(f"candidates: {self.entity} is a person, or leads to one; name titles or channels")
        if self.entity not in self.source.schema.names:
            raise DeclarationError(f"candidates: {self.source.name} has no column {self.entity}")

    @staticmethod
    def available(firsts: pa.Table) -> "Available":
        """From (key, ms of its first event) in any order."""
        firsts = firsts.sort_by("key")
        since = np.asarray(firsts["first_ms"].combine_chunks(), dtype=np.int64) + 1
        return Available(
            firsts["key"].combine_chunks().cast(pa.string()), since, np.full(len(since), _FOR_EVER, dtype=np.int64)
        )

    def firsts(self, log: pa.Table) -> pa.Table:
        """(key, ms of its first event) of a log."""
        frame = pl.DataFrame({
            "key": pl.Series(values=log[self.entity].cast(pa.string()).combine_chunks(), dtype=pl.String),
            "first_ms": np.asarray(log[EVENT_TIME].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())),
        })  # fmt: skip
        found = frame.drop_nulls("key").group_by("key").agg(pl.col("first_ms").min()).sort("key")
        return found.to_arrow().cast(pa.schema([("key", pa.string()), ("first_ms", pa.int64())]))


@dataclass(frozen=True, eq=False)
class Available:
    """When what was available: `values[i]` at `since_ms[i] <= t < until_ms[i]`; ascending, a value's times apart."""

    values: pa.Array
    since_ms: Int64s
    until_ms: Int64s

    def by_instant(self, instants_ms: Int64s) -> Iterator[tuple[Int64s, Int64s]]:
        """(rows, places in `values`) of rows for which the same is available; every row comes once."""
        changes = np.unique(np.concatenate([self.since_ms, self.until_ms]))
        epochs = np.searchsorted(changes, instants_ms, side="right")
        order = np.argsort(epochs, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(epochs[order]) > 0)[: len(order)])
        for rows in np.split(order, starts[1:]) if len(order) else ():
            at_ms = instants_ms[rows[0]]
            yield rows, np.flatnonzero((self.since_ms <= at_ms) & (at_ms < self.until_ms))

    def own_places(self, chosen: pa.ChunkedArray) -> tuple[Int64s, Int64s]:
        """(number of each row's own value, number of the value at each place), the same where they are equal."""
        distinct, codes = encode(self.values)
        return codes_in(chosen, distinct), codes
