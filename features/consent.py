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

from features.errors import FeatureError
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


@dataclass(frozen=True)
class ConsentHistory:
    """Who allowed what, and when it became known: one row per user and instant, sorted by time."""

    changes: pl.DataFrame

    @classmethod
    def of(cls, consents: pa.Table) -> "ConsentHistory":
        """From rows of (user_id, allows_analytics, allows_personalization, allows_ad_targeting, event_timestamp).

        Of two changes of one user in the same millisecond nobody can tell which came later, so a refusal counts.
        """
        frame = pl.DataFrame(
            {
                "user_id": _strings(consents["user_id"]),
                "known_ms": _milliseconds(consents["event_timestamp"]),
                **{name: pl.Series(consents[name].to_pylist(), dtype=pl.Boolean) for name in _HISTORY_COLUMNS.values()},
            }
        )
        return cls(frame.group_by("user_id", "known_ms").agg(pl.all().min()).sort("known_ms"))

    def as_known_at(self, user_ids: pl.Series, instants_ms: pl.Series) -> pl.DataFrame:
        """The latest consent of each user known at or before each instant; nulls where none was known."""
        asked = pl.DataFrame({"user_id": user_ids.cast(pl.String), "asked_ms": instants_ms.cast(pl.Int64)})
        ordered = asked.with_row_index("row").sort("asked_ms", maintain_order=True)
        known = ordered.join_asof(
            self.changes,
            left_on="asked_ms",
            right_on="known_ms",
            by="user_id",
            strategy="backward",
            check_sortedness=False,
        )
        return known.sort("row").select(*_HISTORY_COLUMNS.values())


@dataclass(frozen=True)
class Decision:
    """For each row: may it be used, and if not, why."""

    allowed: np.ndarray  # bool, one per row
    excluded: dict[str, int]  # reason -> rows


def market_default(market: str | None) -> bool:
    """What holds for a purpose that a person was never asked about: allowed in opt-out markets only."""
    return market in OPT_OUT_MARKETS


def resolve(events: pa.Table, history: ConsentHistory) -> pa.Table:
    """The events with their three consent columns filled in.

    The event's own consent object holds; without one, the latest consent known at its event_timestamp; without
    that, the market's default. `events` needs user_id (hashed), market, event_timestamp and the consent columns.
    """
    known = history.as_known_at(_strings(events["user_id"]), _milliseconds(events["event_timestamp"]))
    default = _strings(events["market"]).is_in(list(OPT_OUT_MARKETS)).fill_null(value=False)
    for purpose, column in CONSENT_COLUMNS.items():
        own = pl.Series(values=events[column].combine_chunks(), dtype=pl.Boolean)
        resolved = pl.select(pl.coalesce(own, known[_HISTORY_COLUMNS[purpose]], default)).to_series()
        events = events.set_column(events.column_names.index(column), pa.field(column, pa.bool_()), resolved.to_arrow())
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
        latest = history.as_known_at(_strings(rows["user_id"]), pl.repeat(at_ms, rows.num_rows, eager=True))
        for consent in required:
            withdrawn |= ~latest[_HISTORY_COLUMNS[consent]].fill_null(value=True).to_numpy()
    allowed = ~(kids | refused | withdrawn)
    reasons = {
        Exclusion.KIDS_PROFILE: int(kids.sum()),
        Exclusion.REFUSED_ON_EVENT: int((refused & ~kids).sum()),
        Exclusion.WITHDRAWN_SINCE: int((withdrawn & ~refused & ~kids).sum()),
    }
    return Decision(allowed, {str(reason): count for reason, count in reasons.items() if count})


def _strings(column: pa.ChunkedArray) -> pl.Series:
    return pl.Series(values=column.combine_chunks(), dtype=pl.String)


def _milliseconds(column: pa.ChunkedArray) -> pl.Series:
    return pl.Series(values=column.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).combine_chunks(), dtype=pl.Int64)


def _booleans(column: pa.ChunkedArray, *, missing: bool) -> np.ndarray:
    filled: np.ndarray = pl.Series(values=column.combine_chunks(), dtype=pl.Boolean).fill_null(missing).to_numpy()
    return filled
