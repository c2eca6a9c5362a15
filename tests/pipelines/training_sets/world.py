"""A small platform with what training sets are made of: people who watch, stay or leave, and a catalogue that moves."""

import random
from pathlib import Path
from typing import Any

from features.aggregates import Count, First
from features.filters import Is
from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.training import (
    Balance,
    Catalogue,
    Every,
    Happened,
    Label,
    Negatives,
    PerEvent,
    Sampling,
    SplitAt,
    SplitByShare,
    TrainingSet,
    events_of,
)
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from tests.platform import DAY, HOUR, T0, Platform, described, event, looked_around, title, watched

VIEWERS = [f"viewer-{n}" for n in range(9)]
KID, REFUSER, LEAVER = "kid", "refuser", "leaver"
DAYS = 30
LEAVES_AFTER_DAYS = dict(zip(VIEWERS, (6, 9, 12, 17, 26), strict=False))
ALLOWED = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)
MIDNIGHT = T0 // DAY * DAY

ACCOUNTS = events_of(
    "accounts",
    "silver.user",
    ("auth.login_succeeded", "support.contacted", "payment.failed", "subscription.cancelled"),
)
CHURN = TrainingSet(
    name="churn",
    spine=Every(ACCOUNTS, "user_id", seen_within_ms=10 * DAY, ended_by=Is("event_name", "subscription.cancelled")),
    features=("churn_signals", "user_interaction_signals.click_through_rate"),
    purpose=Purpose.PERSONALIZATION,
    label=(
        Label("churned", Happened(Is("event_name", "subscription.cancelled")), ACCOUNTS, by=("user_id",)),
        Label("contacts", Count(Is("event_name", "support.contacted")), ACCOUNTS, by=("user_id",)),
    ),
    horizon_ms=4 * DAY,
    sampling=Sampling(balance=Balance("churned", ((False, 0.5),)), seed=5),
    split=SplitAt(MIDNIGHT + 15 * DAY, MIDNIGHT + 22 * DAY),
)
RANKER = TrainingSet(
    name="ranker",
    spine=PerEvent(VIEWING_LOG, "profile_id", where="is_start", keeps=("user_id", "content_id"), lead_ms=1),
    features=("user_viewing_history_by_profile_id.completion_rate", "content_popularity.daily_unique_viewers"),
    purpose=Purpose.PERSONALIZATION,
    label=(
        Label("finished", Happened("is_finished"), VIEWING_LOG, by=("profile_id", "content_id")),
        Label("next_title", First("content_id", where="is_finished"), VIEWING_LOG, by=("profile_id",)),
    ),
    horizon_ms=6 * HOUR,
    sampling=Sampling(negatives=Negatives("content_id", 3, Catalogue(("vod",))), seed=9),
    split=SplitByShare(0.2, 0.2),
)


def cancelled(person: str, at_ms: int, **columns: Any) -> dict[str, Any]:
    """`subscription.cancelled`."""
    return event("subscription.cancelled", at_ms, person, cancel_reason="price", **ALLOWED | columns)


def built(folder: Path) -> Platform:
    """The platform with its features built; `told` is every event that was sent. Needs Ray and a salt."""
    platform = Platform(folder)
    chance = random.Random(23)
    announced = {f"vod-{n}": T0 - 2 * DAY + max(0, n - 4) * 3 * DAY for n in range(10)}
    events = [title(name, chance.choice(["drama", "news"]), at_ms=at) for name, at in announced.items()]
    events.append(title("live-1", "news") | {"content_type": "live"})
    gone = event(
        "availability.changed", T0 + 12 * DAY, None, content_id="vod-0", is_available=False, available_markets=[]
    )
    ends = event("availability.changed", T0 + 5 * DAY, None, content_id="vod-1", is_available=True,
                 available_markets=["GB"], available_until=T0 + 18 * DAY)  # fmt: skip
    events += [gone, ends]
    events += [described(person) for person in [*VIEWERS, REFUSER, LEAVER]] + [described(KID, is_kids=True)]
    for person in [*VIEWERS, KID, REFUSER, LEAVER]:
        at, flags = T0, {"consent_personalization": person != REFUSER}
        leaves = T0 + LEAVES_AFTER_DAYS[person] * DAY if person in LEAVES_AFTER_DAYS else None
        while at < T0 + DAYS * DAY and (leaves is None or at < leaves):
            known = [name for name, since in announced.items() if since < at]
            seen = chance.choice(known)
            events += watched(person, seen, at + chance.randrange(HOUR), chance.choice([10.0, 60.0, 95.0]), **flags)
            events += looked_around(person, seen, at + 2 * HOUR, **flags)
            at += chance.randrange(HOUR, 4 * DAY)
        if leaves is not None:
            events.append(cancelled(person, leaves, **flags))
    platform.told = events
    platform.send(*events)
    ingest(platform.settings)
    clean(platform.settings)
    build_features(platform.settings)
    return platform
