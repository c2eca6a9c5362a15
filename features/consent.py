"""The one place that decides whether a person's row may be used, and for what (spec 8.1, 8.2, 8.5).

Two questions, asked by every station:

    resolve     what did this person allow when the event was received? (at the door, once per event)
    decide      may this row be used for this purpose, as of now? (features, training sets, answers)

Rules in force, in the order in which a row meets them; the first that refuses gives the reason:

    kids profile          never in anything about a person; a profile nobody has described may be a child's
    refused on the event  the event itself said no to the purpose, or to analytics
    withdrawn since       the person's latest consent, as known at the instant of the decision, says no to either
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from features.chronicle import Chronicle, milliseconds
from features.distinct import is_one_of
from features.errors import FeatureError
from features.pseudonyms import Pseudonyms
from features.purposes import Purpose

# Opt-out: collected unless refused. Every other market is opt-in (spec 8.1).
OPT_OUT_MARKETS = frozenset({"US"})

CONSENT_COLUMNS: Mapping[Purpose, str] = {
    Purpose.ANALYTICS: "consent_analytics",
    Purpose.PERSONALIZATION: "consent_personalization",
    Purpose.AD_TARGETING: "consent_ad_targeting",
}
_HISTORY_COLUMNS: Mapping[Purpose, str] = {
    Purpose.ANALYTICS: "allows_analytics",
    Purpose.PERSONALIZATION: "allows_personalization",
    Purpose.AD_TARGETING: "allows_ad_targeting",
}


class Exclusion(StrEnum):
    """Why a row may not be used; counted in every report and manifest."""

    KIDS_PROFILE = "kids_profile"
    REFUSED_ON_EVENT = "refused_on_event"
    WITHDRAWN_SINCE = "withdrawn_since"


class PurposeNotDecidableError(FeatureError):
    """The purpose has no consent of its own that rows of people's events could be asked for."""

    def __init__(self, purpose: Purpose) -> None:
        allowed = ", ".join(CONSENT_COLUMNS)
        super().__init__(f"no rule admits people's rows for the purpose {str(purpose)!r}; declare one of {allowed}")


def required_consents(purpose: Purpose) -> tuple[Purpose, ...]:
    """Everything a person must have allowed before their rows serve `purpose`.

    Analytics is always among it: of those who refuse it nothing but essential events is kept, and nothing is made
    from them (spec 8.2). Raises PurposeNotDecidableError for a purpose without a consent of its own.
    """
    if purpose not in CONSENT_COLUMNS:
        raise PurposeNotDecidableError(purpose)
    return (Purpose.ANALYTICS,) if purpose is Purpose.ANALYTICS else (Purpose.ANALYTICS, purpose)


# An answer as a number, so that of two the stricter is the lesser.
_NO, _YES, _NOT_SAID = 0, 1, 2
_NEVER_MS = np.iinfo(np.int64).min
Answers = NDArray[np.int8]  # _NO, _YES or _NOT_SAID for each row and purpose of CONSENT_COLUMNS, shape (n, 3)


@dataclass(frozen=True, eq=False)
class ConsentHistory:
    """Who allowed what, and when it became known: one row per user and instant."""

    changes: Chronicle
    answers: Answers  # of each change

    @classmethod
    def of(cls, consents: pa.Table) -> "ConsentHistory":
        """From rows of (user_id, allows_analytics, allows_personalization, allows_ad_targeting, event_timestamp).

        Of two changes of one user in the same millisecond nobody can tell which came later, so a refusal counts.
        """
        frame = pl.DataFrame(
            {
                "user_id": pl.Series(values=consents["user_id"].combine_chunks(), dtype=pl.String),
                "known_ms": milliseconds(consents["event_timestamp"]),
                **{name: _answers(consents[name]) for name in _HISTORY_COLUMNS.values()},
            }
        )
        changes = frame.group_by("user_id", "known_ms").agg(pl.all().min()).sort("user_id", "known_ms")
        answers = np.stack([changes[name].to_numpy() for name in _HISTORY_COLUMNS.values()], axis=1)
        return cls(
            Chronicle.of(changes["user_id"].to_arrow().cast(pa.string()), changes["known_ms"].to_numpy()), answers
        )

    def latest(self, people: Pseudonyms, instants_ms: NDArray[np.int64]) -> Answers:
        """The latest answers of each row's person known at or before its instant, under whichever salt they stand."""
        places = self.changes.places(people.names, people.codes)
        if not len(places):
            return np.full((len(instants_ms), len(CONSENT_COLUMNS)), _NOT_SAID, dtype=np.int8)
        rows = self.changes.latest(places, instants_ms)
        known_ms = np.where(rows < 0, _NEVER_MS, self.changes.known_ms[rows])
        is_latest = (rows >= 0) & (known_ms == known_ms.max(axis=0))
        said: Answers = np.where(is_latest[..., np.newaxis], self.answers[rows], _NOT_SAID).min(axis=0)
        return said

    def as_known_at(self, user_ids: pl.Series, instants_ms: pl.Series) -> pl.DataFrame:
        """The latest consent of each user known at or before each instant; nulls where none was known."""
        people = Pseudonyms.of(user_ids.cast(pl.String).to_arrow().cast(pa.string()))
        said = self.latest(people, instants_ms.cast(pl.Int64).to_numpy())
        return pl.DataFrame(
            {
                name: pl.Series(values=pa.array(said[:, place] == _YES, mask=said[:, place] == _NOT_SAID))
                for place, name in enumerate(_HISTORY_COLUMNS.values())
            }
        )


@dataclass(frozen=True)
class Decision:
    """For each row: may it be used, and if not, why."""

    allowed: np.ndarray  # bool, one per row
    excluded: dict[str, int]  # reason -> rows


def market_default(market: str | None) -> bool:
    """What holds for a purpose that a person was never asked about: allowed in opt-out markets only."""
    return market in OPT_OUT_MARKETS


def resolve(events: pa.Table, history: ConsentHistory, people: Pseudonyms | None = None) -> pa.Table:
    """The events with their three consent columns filled in.

    The event's own consent object holds; without one, the latest consent known at its event_timestamp; without
    that, the market's default. `events` needs market, event_timestamp and the consent columns, and user_id (hashed)
    unless `people` says whose they are under every salt.
    """
    own = [_answers(events[column]) for column in CONSENT_COLUMNS.values()]
    if all((answers != _NOT_SAID).all() for answers in own):
        return events
    people = Pseudonyms.of(events["user_id"]) if people is None else people
    known = history.latest(people, milliseconds(events["event_timestamp"]))
    default = is_one_of(events["market"], OPT_OUT_MARKETS)
    for place, column in enumerate(CONSENT_COLUMNS.values()):
        said = np.where(own[place] == _NOT_SAID, known[:, place], own[place])
        allowed = pa.array(np.where(said == _NOT_SAID, default, said == _YES))
        events = events.set_column(events.column_names.index(column), pa.field(column, pa.bool_()), allowed)
    return events


def decide(rows: pa.Table, purpose: Purpose, history: ConsentHistory, at_ms: int | None) -> Decision:
    """Which `rows` may be used for `purpose`.

    `rows` needs is_kids, user_id and the consent columns of what the purpose requires (as `resolve` left them; null
    is a refusal). `at_ms` is the instant of the decision: consent withdrawn by then excludes a person's earlier rows
    too. None asks only what each event itself allowed, which is what published aggregates over many viewers keep.

    Raises PurposeNotDecidableError for a purpose without a consent of its own.
    """
    required = required_consents(purpose)
    kids = _booleans(rows["is_kids"], missing=True)
    refused = np.zeros(rows.num_rows, dtype=bool)
    withdrawn = np.zeros(rows.num_rows, dtype=bool)
    for consent in required:
        refused |= ~_booleans(rows[CONSENT_COLUMNS[consent]], missing=False)
    if at_ms is not None:
        latest = history.latest(Pseudonyms.of(rows["user_id"]), np.full(rows.num_rows, at_ms))
        for consent in required:
            withdrawn |= latest[:, list(CONSENT_COLUMNS).index(consent)] == _NO
    allowed = ~(kids | refused | withdrawn)
    reasons = {
        Exclusion.KIDS_PROFILE: int(kids.sum()),
        Exclusion.REFUSED_ON_EVENT: int((refused & ~kids).sum()),
        Exclusion.WITHDRAWN_SINCE: int((withdrawn & ~refused & ~kids).sum()),
    }
    return Decision(allowed, {str(reason): count for reason, count in reasons.items() if count})


def withdrawn_or_given(before: pa.Table, before_ms: int, now: pa.Table, now_ms: int, purpose: Purpose) -> set[str]:
    """Users of whom `decide` says something else of consents `now`, as of `now_ms`, than it said of those before."""
    users = now["user_id"].unique()
    people, places = Pseudonyms.of(users), [list(CONSENT_COLUMNS).index(one) for one in required_consents(purpose)]
    refuses = [
        (ConsentHistory.of(known).latest(people, np.full(len(users), at_ms))[:, places] == _NO).any(axis=1)
        for known, at_ms in ((before, before_ms), (now, now_ms))
    ]
    return set(users.filter(pa.array(refuses[0] != refuses[1])).to_pylist())


def _answers(column: pa.ChunkedArray) -> Answers:
    if column.null_count == len(column):
        return np.full(len(column), _NOT_SAID, dtype=np.int8)
    answers: Answers = column.cast(pa.int8()).fill_null(_NOT_SAID).to_numpy()
    return answers


def _booleans(column: pa.ChunkedArray, *, missing: bool) -> np.ndarray:
    filled: np.ndarray = pl.Series(values=column.combine_chunks(), dtype=pl.Boolean).fill_null(missing).to_numpy()
    return filled
