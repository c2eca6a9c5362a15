"""Consent as history: who allowed what, and when it became known (spec 8.1). What follows from it: `features.decision`.

Every `consent.changed` is a row; the newest one known at an instant is what a person allows then. A refusal and a
permission of the same instant are a refusal.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from features.chronicle import Chronicle
from features.columns import milliseconds
from features.distinct import is_one_of
from features.pseudonyms import Pseudonyms
from features.purposes import Purpose

# Opt-out: collected unless refused. Every other market is opt-in (spec 8.1).
OPT_OUT_MARKETS = frozenset({"US"})

ANSWERED = (Purpose.ANALYTICS, Purpose.PERSONALIZATION, Purpose.AD_TARGETING)
"""The purposes that people are asked about, in the order of `Answers`."""

# An answer as a number, so that of two the stricter is the lesser.
NO, YES, NOT_SAID = 0, 1, 2
Answers = NDArray[np.int8]  # NO, YES or NOT_SAID for each row and purpose of ANSWERED, shape (n, 3)
_NEVER_MS = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class ConsentHistory:
    """Who allowed what, and when it became known: one row per user and instant."""

    changes: Chronicle
    answers: Answers  # of each change
    ever_refused: NDArray[np.bool_]  # whether one of a user's changes refuses something, shape (users,)

    @classmethod
    def of(cls, consents: pa.Table) -> "ConsentHistory":
        """From rows of (user_id, allows_analytics, allows_personalization, allows_ad_targeting, event_timestamp).

        Of two changes of one user in the same millisecond nobody can tell which came later, so a refusal counts.
        """
        names = [f"allows_{purpose}" for purpose in ANSWERED]
        frame = pl.DataFrame(
            {
                "user_id": pl.Series(values=consents["user_id"].combine_chunks(), dtype=pl.String),
                "known_ms": milliseconds(consents["event_timestamp"]),
                **{name: answers_of(consents[name]) for name in names},
            }
        )
        rows = frame.group_by("user_id", "known_ms").agg(pl.all().min()).sort("user_id", "known_ms")
        answers = np.stack([rows[name].to_numpy() for name in names], axis=1)
        changes = Chronicle.of(rows["user_id"].to_arrow().cast(pa.string()), rows["known_ms"].to_numpy())
        refused = np.append(0, np.cumsum((answers == NO).any(axis=1)))[changes.starts]
        return cls(changes, answers, np.diff(refused) > 0)

    @property
    def people(self) -> pa.Array:
        """Everybody who ever said something, distinct."""
        return self.changes.names

    def latest(self, people: Pseudonyms, instants_ms: NDArray[np.int64]) -> Answers:
        """The latest answers of each row's person known at or before its instant, under whichever salt they stand."""
        places = self.changes.places(people.names, people.codes)
        if not len(places):
            return np.full((len(instants_ms), len(ANSWERED)), NOT_SAID, dtype=np.int8)
        rows = self.changes.latest(places, instants_ms)
        known_ms = np.where(rows < 0, _NEVER_MS, self.changes.known_ms[rows])
        is_latest = (rows >= 0) & (known_ms == known_ms.max(axis=0))
        said: Answers = np.where(is_latest[..., np.newaxis], self.answers[rows], NOT_SAID).min(axis=0)
        return said

    def may_refuse(self, people: Pseudonyms) -> NDArray[np.bool_]:
        """Whose rows are of somebody who at some instant refused something, shape (n,)."""
        places = self.changes.places(people.names, people.codes)
        if not len(places):
            return np.zeros(len(people.codes), dtype=np.bool_)
        return np.asarray(np.append(self.ever_refused, False)[places].any(axis=0))

    def as_known_at(self, user_ids: pl.Series, instants_ms: pl.Series) -> pl.DataFrame:
        """The latest consent of each user known at or before each instant; nulls where none was known."""
        people = Pseudonyms.of(user_ids.cast(pl.String).to_arrow().cast(pa.string()))
        said = self.latest(people, instants_ms.cast(pl.Int64).to_numpy())
        return pl.DataFrame(
            {
                f"allows_{purpose}": pl.Series(values=pa.array(said[:, place] == YES, mask=said[:, place] == NOT_SAID))
                for place, purpose in enumerate(ANSWERED)
            }
        )


def market_default(market: str | None) -> bool:
    """What holds for a purpose that a person was never asked about: allowed in opt-out markets only."""
    return market in OPT_OUT_MARKETS


def opt_out(markets: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """`market_default` of each row, shape (n,)."""
    return is_one_of(markets, OPT_OUT_MARKETS)


def answers_of(column: pa.ChunkedArray) -> NDArray[np.int8]:
    """A column of booleans as NO, YES, and NOT_SAID for null, shape (n,)."""
    if column.null_count == len(column):
        return np.full(len(column), NOT_SAID, dtype=np.int8)
    answers: NDArray[np.int8] = column.cast(pa.int8()).fill_null(NOT_SAID).to_numpy()
    return answers
