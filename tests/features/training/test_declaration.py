"""A training set that cannot be is refused when it is declared, in one line; one that can is written and read back."""

import json
from dataclasses import replace

import pytest

from features.aggregates import Count, First, Percentile, Ratio
from features.errors import DeclarationError, PurposeNotAllowedError, SelectionError, UnknownSourceError
from features.filters import Is
from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.source import Source
from features.sources import source
from features.training import (
    Balance,
    Catalogue,
    Every,
    FileRows,
    Happened,
    Label,
    Negatives,
    PerEvent,
    Sampling,
    SeenIn,
    SplitAt,
    SplitByShare,
    TableRows,
    TrainingSet,
    events_of,
)
from features.training.written import as_json, from_json

DAY = 86_400_000
LEFT = events_of("left", "silver.user", ("subscription.cancelled",), texts=("user_id", "cancel_reason"))
CHURN = TrainingSet(
    name="churn",
    spine=Every(source("account_signals"), "user_id"),
    features=("churn_signals",),
    purpose=Purpose.PERSONALIZATION,
    label=Label("churned", Happened(), LEFT, by=("user_id",)),
    horizon_ms=30 * DAY,
)
STARTS = PerEvent(VIEWING_LOG, "profile_id", "is_start", keeps=("user_id", "content_id"), lead_ms=1)
VOD = Is("content_type", ("vod", "live"))
RANKER = replace(
    CHURN,
    name="ranker",
    spine=STARTS,
    features=("user_viewing_history_by_profile_id", "content_popularity.hourly_viewers"),
    label=(
        Label("finished", Happened("is_finished"), VIEWING_LOG, by=("profile_id", "content_id")),
        Label("next", First("content_id", limit=3, where=VOD), VIEWING_LOG, ("user_id",)),
        Label("share", Ratio(Count("is_finished"), Count("is_stop"), per=2), VIEWING_LOG, ("profile_id",)),
        Label("median", Percentile("watch_ms", 0.5), VIEWING_LOG, ("profile_id",)),
    ),
    sampling=Sampling(
        negatives=Negatives("content_id", 4, SeenIn(VIEWING_LOG, "content_id")),
        balance=Balance("finished", ((False, 0.1),)),
        seed=3,
    ),
    split=SplitAt.days("2026-03-01", "2026-05-01", gap_ms=31 * DAY),
)
UNHAPPY = replace(
    CHURN.spine, ended_by=Is("event_name", "payment.failed"), begun_by=Is("event_name", "auth.login_succeeded")
)
OTHERS = [
    replace(CHURN, spine=FileRows("/data/rows", ("user_id", "event_timestamp")), split=SplitByShare(0.2, 0.1)),
    replace(CHURN, spine=TableRows("gold.rows", ("id",), instant="at"), keys={"user_id": "viewer"}),
    replace(RANKER, sampling=Sampling(negatives=Negatives("content_id", 1, Catalogue(("vod",))))),
    replace(CHURN, spine=UNHAPPY, description="Who has paid."),
]


@pytest.mark.parametrize("declared", [CHURN, RANKER, *OTHERS], ids=lambda one: f"{one.name}-{type(one.spine).__name__}")
def test_what_is_written_is_read_back(declared):
    text = json.dumps(as_json(declared), sort_keys=True)
    again = from_json(json.loads(text))
    assert again == declared
    assert json.dumps(as_json(again), sort_keys=True) == text


def test_what_cannot_be_read_back_is_not_written():
    mine = Source("mine", VIEWING_LOG.schema)
    with pytest.raises(DeclarationError, match=r"neither of `features\.sources` nor made by events_of"):
        as_json(replace(CHURN, label=Label("x", Count(), mine, ("user_id",))))
    written = as_json(CHURN)
    with pytest.raises(DeclarationError, match="speaks of 'Forest', which this version"):
        from_json(written | {"spine": {"is": "Forest"}})
    with pytest.raises(DeclarationError, match="manifest's Every is of another version"):
        from_json(written | {"spine": written["spine"] | {"colour": "red"}})
    with pytest.raises(UnknownSourceError, match="the nearest is account_signals"):
        from_json(written["spine"]["source"] | {"name": "account_signal"})


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"purpose": None}, PurposeNotAllowedError, "no purpose is given"),
        ({"purpose": Purpose.ANALYTICS}, PurposeNotAllowedError, "declared for the purpose personalization"),
        ({"name": "Churn"}, DeclarationError, "lower case"),
        ({"horizon_ms": 0}, DeclarationError, "horizon of 0 ms is none"),
        ({"label": ()}, DeclarationError, "has no label"),
        ({"split": SplitByShare(gap_ms=29 * DAY)}, DeclarationError, "labels would reach into the next split"),
        ({"split": SplitAt.days("2026-03-01", "2026-03-20")}, DeclarationError, "is not at all"),
        ({"features": ("churn_signals.engagement",)}, SelectionError, "nearest is 'engagement_trend'|engagement_trend"),
        ({"features": ("content_popularity",)}, SelectionError, "needs the column content_id"),
        ({"features": ()}, SelectionError, "no feature is asked for"),
        ({"label": Label("x", Count(), VIEWING_LOG, ("content_id",))}, DeclarationError, "no column content_id"),
        ({"label": Label("weight", Count(), LEFT, ("user_id",))}, DeclarationError, "would be called weight"),
        ({"label": (CHURN.label, CHURN.label)}, DeclarationError, "would be called churned"),
        ({"sampling": Sampling(Negatives("content_id", 2))}, DeclarationError, "no column content_id"),
        ({"sampling": Sampling(balance=Balance("left", ((False, 0.5),)))}, DeclarationError, "none of its labels"),
        ({"spine": FileRows("rows.parquet", ("id",))}, DeclarationError, "give the whole path"),
        ({"spine": TableRows("gold.rows", ())}, DeclarationError, "give identity"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, error, said):
    with pytest.raises(error, match=said) as refused:
        replace(CHURN, **changes)
    assert "\n" not in str(refused.value)


def test_events_of_need_a_name_of_their_own_and_a_column_to_be_cut_by():
    with pytest.raises(DeclarationError, match="called account_signals already"):
        events_of("account_signals", "silver.user", ("payment.failed",))
    with pytest.raises(DeclarationError, match="at least one event"):
        events_of("none", "silver.user", ())
