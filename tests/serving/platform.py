"""A small platform in an online store: a few people with known rights, a few titles, known viewing."""

import json
from datetime import UTC, datetime

import pyarrow as pa

from features.groups.channel_load import CHANNEL_LOAD
from features.groups.churn_signals import CHURN_SIGNALS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.qoe_signals import QOE_SIGNALS
from features.groups.session_context import SESSION_CONTEXT
from features.groups.user_interaction_signals import USER_INTERACTION_SIGNALS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import pack
from features.playbacks import VIEWING_LOG
from features.pseudonyms import Pseudonymizer
from features.sources.channels import CHANNELS
from features.sources.interactions import INTERACTIONS
from features.sources.playback_quality import PLAYBACK_QUALITY
from features.sources.sessions import SESSIONS
from features.tiles import tiles
from serving.online_store import OnlineStore

OLD_SALT, NEW_SALT = "the first salt", "the second salt"
SALTS = f"{OLD_SALT},{NEW_SALT}"
WATERMARK = datetime(2026, 5, 4, 12, tzinfo=UTC)
WATERMARK_MS = int(WATERMARK.timestamp() * 1000)
HOUR_MS = 3_600_000

TITLES = [f"title-{number:02d}" for number in range(20)]
KIDS_TITLES = ["title-03", "title-07", "title-11"]
POPULAR = [f"title-{number:02d}" for number in (5, 3, 9, 0, 7, 11, 13, 1, 2, 4, 6, 8)]
ADULT_HISTORY = ["title-02", "title-04", "title-08", "title-16"]

# profile: (user, is a child's, what the user said of personalization, history)
PEOPLE: dict[str, tuple[str, bool, bool | None, list[str]]] = {
    "profile-adult": ("user-adult", False, True, ADULT_HISTORY),
    "profile-kid": ("user-adult", True, True, ["title-03"]),
    "profile-refused": ("user-refused", False, False, ["title-01"]),
    "profile-unasked": ("user-unasked", False, None, ["title-06", "title-01"]),
    "profile-new": ("user-new", False, True, []),
    "profile-stale": ("user-new", False, True, ["title-01"]),  # finished longer ago than the group's TTL
    "profile-undescribed": ("user-adult", False, True, ["title-01"]),  # no profile.updated ever came
}
SESSION = "session-adult"
UNDER_OLD_SALT = "profile-retired"
# user: hours watched in the last 14 days less those in the 14 before
HOURS_DELTA = {"user-adult": -6.5, "user-refused": 2.0, "user-unasked": 0.5}
# network and region: mean session quality score
NETWORK_SCORES = {"akamai/US": 62.0, "cloudfront/US": 65.0, "fastly/US": 78.0, "akamai/DE": 75.0, "fastly/DE": 60.0}
PLAIN_IDS = [*PEOPLE, *(user for user, *_ in PEOPLE.values()), UNDER_OLD_SALT, SESSION, "profile-stranger"]


def fill(store: OnlineStore) -> None:
    """Write all of it, as the pipelines do."""
    people = Pseudonymizer((OLD_SALT, NEW_SALT))
    retired = Pseudonymizer((OLD_SALT,))
    profiles, consents = {}, {}
    for profile, (user, is_kids, allows, _) in PEOPLE.items():
        if profile != "profile-undescribed":
            profiles[people.hash(profile)] = {"is_kids": is_kids, "user_id": people.hash(user)}
        if allows is not None:
            consents[people.hash(user)] = _consent(personalization=allows)
    profiles[retired.hash(UNDER_OLD_SALT)] = {"is_kids": False, "user_id": retired.hash("user-retired")}
    consents[retired.hash("user-retired")] = _consent(personalization=True)

    log = _viewing_log(people, retired)
    for entity in ("profile_id", "user_id"):
        packed = pack(USER_VIEWING_HISTORY, entity, tiles(USER_VIEWING_HISTORY, entity, log))
        store.put_many(USER_VIEWING_HISTORY.stored_as(entity), packed)
    store.put_many(CONTENT_POPULARITY.stored_as("content_id"), pack(CONTENT_POPULARITY, "content_id", _popularity()))
    store.put_many(CHURN_SIGNALS.stored_as("user_id"), pack(CHURN_SIGNALS, "user_id", _churn_signals(people)))
    signals = _interactions_log(people)
    packed = pack(USER_INTERACTION_SIGNALS, "profile_id", tiles(USER_INTERACTION_SIGNALS, "profile_id", signals))
    store.put_many(USER_INTERACTION_SIGNALS.stored_as("profile_id"), packed)
    packed = pack(SESSION_CONTEXT, "session_id", tiles(SESSION_CONTEXT, "session_id", _sessions_log(people)))
    store.put_many(SESSION_CONTEXT.stored_as("session_id"), packed)
    quality = _quality_log(people)
    for entity in ("user_id", "cdn_region"):
        store.put_many(QOE_SIGNALS.stored_as(entity), pack(QOE_SIGNALS, entity, tiles(QOE_SIGNALS, entity, quality)))
    load = tiles(CHANNEL_LOAD, "channel_id", _channels_log())
    store.put_many(CHANNEL_LOAD.stored_as("channel_id"), pack(CHANNEL_LOAD, "channel_id", load))
    catalogue = {name: {"title": f"The {name}", "genres": ["drama"], "maturity_rating": "G"} for name in TITLES}
    del catalogue["title-13"]
    popular = {"all": POPULAR, "kids": KIDS_TITLES}
    ranked = {
        audience: [{"content_id": name, "viewers": 100 - place} for place, name in enumerate(names)]
        for audience, names in popular.items()
    }
    for group, records in {
        "profiles": profiles,
        "consents": consents,
        "titles": catalogue,
        "popular": ranked,
        "meta": {"watermark_ms": WATERMARK_MS},
    }.items():
        store.put_many(group, ((key, json.dumps(record).encode()) for key, record in records.items()))


def _consent(*, personalization: bool) -> dict[str, bool]:
    return {"allows_analytics": True, "allows_personalization": personalization, "allows_ad_targeting": False}


def tune_ins(hours_ago: int) -> int:
    """How many came to `ch-watched` in the hour that began so long before the watermark."""
    return 1 + hours_ago % 24 + hours_ago // (7 * 24)


def _channels_log() -> pa.Table:
    """Four weeks of tune-ins, at the full hour."""
    rows = []
    for hours_ago in range(1, 28 * 24 + 1):
        at_ms = WATERMARK_MS - hours_ago * HOUR_MS
        tuned = {
            "event_name": "channel.tune",
            "event_timestamp": at_ms,
            "channel_id": "ch-watched",
            "hour_slot": at_ms // HOUR_MS % 744,
        }
        rows += [tuned | {"event_id": f"evt-{hours_ago}-{n}"} for n in range(tune_ins(hours_ago))]
    return pa.Table.from_pylist(rows, CHANNELS.schema)


def _viewing_log(people: Pseudonymizer, retired: Pseudonymizer) -> pa.Table:
    """Each title of a history was watched for one hour, the last one ending 10 minutes before the watermark."""
    rows = []
    histories = {profile: (people, user, history) for profile, (user, _, _, history) in PEOPLE.items()}
    histories[UNDER_OLD_SALT] = (retired, "user-retired", ["title-10"])
    for profile, (hasher, user, history) in histories.items():
        days_ago = 100 if profile == "profile-stale" else 0
        for place, title in enumerate(reversed(history)):
            ended_ms = WATERMARK_MS - 600_000 - (place * 24 + days_ago * 24) * HOUR_MS
            rows.append(
                {
                    "event_id": f"evt-{profile}-{place}",
                    "event_timestamp": ended_ms,
                    "profile_id": hasher.hash(profile),
                    "user_id": hasher.hash(user),
                    "viewer_token": hasher.hash(profile),
                    "content_id": title,
                    "content_type": "vod",
                    "genres": ["drama"],
                    "watch_ms": HOUR_MS,
                    "is_start": False,
                    "is_stop": True,
                    "is_complete": place > 0,
                    "is_finished": True,
                    "weekday": 0,
                }
            )
    return pa.Table.from_pylist(rows, VIEWING_LOG.schema)


def _interactions_log(people: Pseudonymizer) -> pa.Table:
    """profile-adult was shown four tiles and clicked a drama and a horror."""
    names = ["tile.impression"] * 4 + ["tile.click"] * 2
    rows = [
        {
            "event_id": f"evt-tile-{place}",
            "event_name": name,
            "event_timestamp": WATERMARK_MS - HOUR_MS + place,
            "user_id": people.hash("user-adult"),
            "profile_id": people.hash("profile-adult"),
            "clicked_genres": [["drama"], ["horror"]][place % 2] if name == "tile.click" else None,
        }
        for place, name in enumerate(names)
    ]
    return pa.Table.from_pylist(rows, INTERACTIONS.schema)


def _sessions_log(people: Pseudonymizer) -> pa.Table:
    """session-adult began a quarter of an hour ago, the second one of that Monday."""
    row = {
        "event_id": "evt-launch",
        "event_timestamp": WATERMARK_MS - HOUR_MS // 4,
        "session_id": people.hash(SESSION),
        "device_type": "tv",
        "connection_type": "wifi",
        "hour": 11,
        "weekday": 0,
        "session_number": 2,
    }
    return pa.Table.from_pylist([row], SESSIONS.schema)


def _popularity() -> pa.Table:
    boundary_ms = WATERMARK_MS - HOUR_MS
    row = {
        "content_id": "title-05",
        "event_timestamp": boundary_ms,
        "created_timestamp": boundary_ms + 900_000,
        "last_event_timestamp": boundary_ms - 1000,
        "hourly_viewers": 40,
        "daily_unique_viewers": 100,
        "completion_rate": 0.75,
        "trending_velocity": 1.5,
    }
    return pa.Table.from_pylist([row], CONTENT_POPULARITY.row_schema("content_id"))


def _churn_signals(people: Pseudonymizer) -> pa.Table:
    boundary_ms = WATERMARK_MS // (24 * HOUR_MS) * 24 * HOUR_MS
    rows = [
        {
            "user_id": people.hash(user),
            "event_timestamp": boundary_ms,
            "created_timestamp": boundary_ms + 3 * HOUR_MS,
            "last_event_timestamp": boundary_ms - HOUR_MS,
            "viewing_hours_delta": delta,
            "support_contact_count": 2,
            "payment_failure_count": 0,
        }
        for user, delta in HOURS_DELTA.items()
    ]
    return pa.Table.from_pylist(rows, CHURN_SIGNALS.row_schema("user_id"))


def _quality_log(people: Pseudonymizer) -> pa.Table:
    """An hour over each network with the score it is to have, watched by user-adult."""
    rows = [
        {
            "event_id": f"evt-{network}",
            "event_timestamp": WATERMARK_MS - 2 * HOUR_MS,
            "user_id": people.hash("user-adult"),
            "cdn": network.partition("/")[0],
            "cdn_region": network,
            "is_start": False,
            "is_rebuffer": False,
            "is_error": False,
            "watch_ms": HOUR_MS,
            "score": round(score * 1000),
        }
        for network, score in NETWORK_SCORES.items()
    ]
    return pa.Table.from_pylist(rows, PLAYBACK_QUALITY.schema)
