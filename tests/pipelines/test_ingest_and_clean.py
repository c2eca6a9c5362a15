"""From the log to silver: everything received once, one row per event id, nobody's plain id."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.kafka.offsets import ClusterChangedError, UnknownTopicError
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.quarantine import unseal
from pipelines.secrets import quarantine_key
from pipelines.settings import IngestSettings, PrivacySettings
from tests.platform import DAY, HOUR, SALT, T0, Platform, consent, described, event, hashed, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PERSON_IDS = ("user_id", "profile_id", "session_id", "device_id")


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("REEL_SALT", SALT)
    return Platform(tmp_path)


def road(platform: Platform):
    return ingest(platform.settings), clean(platform.settings)


def test_what_was_sent_is_in_silver_once_and_under_a_pseudonym(platform):
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    read, cleaned = road(platform)

    assert read.read["messages"] == 3
    assert cleaned.wrote["silver.playback"] == 2
    started, stopped = sorted(platform.rows("silver.playback"), key=lambda row: row["event_timestamp"])
    assert (started["event_name"], stopped["event_name"]) == ("playback.started", "playback.stopped")
    assert stopped["user_id"] == hashed("ann")
    assert stopped["profile_id"] == stopped["viewer_token"] == hashed("ann-p")
    assert stopped["session_id"] == hashed("ann-session")
    assert stopped["completion_percent"] == 100.0
    assert stopped["is_kids"] is False
    assert stopped["client_timestamp_reliable"] is True


def test_nothing_is_read_twice_and_new_events_are_read(platform):
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    road(platform)
    again, cleaned = road(platform)
    assert again.read["messages"] == 0
    assert sum(v for v in cleaned.read.values()) == 0
    platform.send(*watched("ann", "vod-2", T0 + HOUR))
    _, cleaned = road(platform)
    assert cleaned.wrote["silver.playback"] == 2
    offsets = [(row["topic"], row["partition"], row["offset"]) for row in platform.rows("bronze.events")]
    assert len(offsets) == len(set(offsets)) == 5


def test_many_small_batches_give_the_same_as_one(platform, tmp_path):
    events = [described("ann"), *(e for n in range(40) for e in watched("ann", f"vod-{n}", T0 + n * HOUR))]
    platform.send(*events)
    small = IngestSettings(messages_per_task=7, messages_per_commit=20)
    platform.settings = platform.settings.model_copy(update={"ingest": small})
    read, cleaned = road(platform)
    assert read.wrote["bronze.events"] == len(events)
    assert cleaned.wrote["silver.playback"] == 80
    # 81 offsets in batches of at most 20 are five commits, besides those that made the table.
    bronze = Lakehouse.open(platform.settings).existing("bronze.events")
    assert sum("reel.progress" in (s.summary or {}) for s in bronze.metadata.snapshots) >= 5


def test_a_resent_event_is_kept_once_however_long_ago_the_first_came(platform):
    first, last = watched("ann", "vod-1", T0)
    platform.send(described("ann"), first, last, last | {"event_timestamp": T0 + 1000})
    _, cleaned = road(platform)
    assert cleaned.did["silver.playback: duplicate event id"] == 1
    platform.send(last | {"event_timestamp": T0 + 200 * DAY})
    _, cleaned = road(platform)
    assert cleaned.did["silver.playback: duplicate event id"] == 1
    stops = [row for row in platform.rows("silver.playback") if row["event_name"] == "playback.stopped"]
    assert [int(row["event_timestamp"].timestamp() * 1000) for row in stops] == [T0]


def test_rows_that_break_a_rule_stay_in_bronze_and_are_counted(platform):
    good = watched("ann", "vod-1", T0)
    platform.send(
        described("ann"), *good, *watched("ann", "vod-2", T0 + HOUR, percent=140.0), *watched("ann", "", T0 + 2 * HOUR)
    )
    _, cleaned = road(platform)
    assert cleaned.wrote["silver.playback"] == 3
    assert cleaned.did["silver.playback: invalid: completion_percent outside 0 to 100"] == 1
    assert cleaned.did["silver.playback: invalid: no content_id"] == 2
    assert len(platform.rows("bronze.events")) == 7


def test_a_profile_nobody_described_waits_and_comes_in_when_it_is(platform):
    platform.send(*watched("ann", "vod-1", T0))
    _, cleaned = road(platform)
    assert cleaned.wrote["silver.playback"] == 0
    assert cleaned.did["silver.playback: waiting for its profile"] == 2
    platform.send(described("ann", T0 + HOUR), *watched("ann", "vod-2", T0 + 2 * HOUR))
    _, cleaned = road(platform)
    assert cleaned.wrote["silver.playback"] == 4
    assert clean(platform.settings).wrote["silver.playback"] == 0
    assert {row["profile_id"] for row in platform.rows("silver.playback")} == {hashed("ann-p")}


def test_a_profile_described_late_as_a_childs_comes_in_without_any_id(platform):
    platform.send(*watched("tim", "vod-1", T0))
    road(platform)
    platform.send(described("tim", T0 + HOUR, is_kids=True))
    road(platform)
    rows = platform.rows("silver.playback")
    assert len(rows) == 2
    assert all(row[name] is None for row in rows for name in PERSON_IDS)
    assert all(row["is_kids"] for row in rows)
    assert hashed("tim-p") not in {row["viewer_token"] for row in rows}


def test_a_profile_undescribed_for_too_long_is_treated_as_a_childs(platform):
    impatient = PrivacySettings(undescribed_profile_hours=1e-9)
    platform.settings = platform.settings.model_copy(update={"privacy": impatient})
    platform.send(*watched("ann", "vod-1", T0))
    road(platform)
    rows = platform.rows("silver.playback")
    assert len(rows) == 2
    assert all(row["is_kids"] and row["profile_id"] is None and row["user_id"] is None for row in rows)


def test_a_childs_profile_leaves_its_hash_in_the_registry_alone(platform):
    platform.send(described("tim", is_kids=True), *watched("tim", "vod-1", T0), *watched("tim", "vod-2", T0 + DAY))
    road(platform)
    for table in ("bronze.events", "silver.playback"):
        assert not [row for row in platform.rows(table) if any(row.get(name) for name in PERSON_IDS)]
    tokens = {row["viewer_token"] for row in platform.rows("silver.playback")}
    assert len(tokens) == 2, "one a day, so that no two days can be linked"
    assert [row["profile_id"] for row in platform.rows("privacy.profiles")] == [hashed("tim-p")]


def test_consent_decides_at_the_door(platform):
    platform.send(
        described("ann"),
        described("bob"),
        consent("ann", T0 - DAY, allows_personalization=False),
        *watched("ann", "vod-1", T0, consent_personalization=False),
        *watched("bob", "vod-1", T0, consent_analytics=False),
    )
    read, _ = road(platform)
    assert read.did["dropped: analytics_refused"] == 2
    (ann,) = {row["user_id"] for row in platform.rows("silver.playback")}
    assert ann == hashed("ann")
    assert {row["consent_personalization"] for row in platform.rows("silver.playback")} == {False}
    # Bob's own description is essential: it is kept, or his consent could not be.
    assert hashed("bob-p") in {row["profile_id"] for row in platform.rows("privacy.profiles")}


def test_what_cannot_be_read_is_set_aside_sealed_with_its_reason(platform):
    rubbish = {b"": "empty", b"hello": "not_wire_format", b"\x00\x7f\xff\xff\xff" + b"x" * 20: "unknown_schema_id"}
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    platform.log.append("client.playback", [b"k"] * 3, list(rubbish), [T0] * 3)
    platform.send(event("app.launch", T0, session_id=None, launch_type="cold", launch_duration_ms=900))
    read, _ = road(platform)
    assert read.wrote["quarantine.events"] == 4
    key = AESGCM(quarantine_key(platform.settings))
    rows = platform.rows("quarantine.events")
    found = {unseal(key, row["encrypted_value"]): row["reason"] for row in rows}
    for value, reason in rubbish.items():
        assert found[value] == reason
    assert sorted(set(found.values()) - set(rubbish.values())) == ["missing_session_id"]
    assert all(b"ann" not in row["encrypted_value"] for row in rows)


def test_a_batch_of_nothing_but_rubbish_still_advances(platform):
    platform.log.append("client.playback", [b"k"] * 5, [b"junk"] * 5, [T0] * 5)
    first, second = ingest(platform.settings), ingest(platform.settings)
    assert (first.read["messages"], second.read["messages"]) == (5, 0)
    assert len(platform.rows("quarantine.events")) == 5


def test_another_log_at_the_same_address_is_refused(platform):
    platform.send(described("ann"))
    ingest(platform.settings)
    for file in platform.folder.glob("log.db*"):
        file.unlink()
    platform.__post_init__()
    platform.send(described("ann"))
    with pytest.raises(ClusterChangedError, match="was filled from Kafka cluster embedded-"):
        ingest(platform.settings)


def test_a_topic_that_is_not_there_is_named(platform):
    with pytest.raises(UnknownTopicError, match=r"'client\.playbck'; it has: ad"):
        ingest(platform.settings, topics=["client.playbck"])


def test_no_plain_id_or_address_reaches_the_disk(platform):
    platform.send(
        described("ann"),
        *watched("ann", "vod-1", T0, ip="203.0.113.77", user_agent="Reel/1 (ann@example.com)"),
        event(
            "playback.error", T0, content_id="vod-1", error_code="E1", error_category="network", position_ms=5,
            error_message="failed for ann@example.com",
        ),
        title("vod-1", "drama"),
    )  # fmt: skip
    road(platform)
    kept = b"".join(file.read_bytes() for file in (platform.folder / "warehouse").rglob("*") if file.is_file())
    for table in ("bronze.events", "silver.playback"):
        text = repr(platform.rows(table))
        for plain in ("ann-p", "ann-session", "ann-device", "ann@example.com", "203.0.113.77", "'ann'"):
            assert plain not in text
    assert b"ann@example.com" not in kept
    assert b"203.0.113.77" not in kept
    assert SALT.encode() not in kept
    assert {row["ip"] for row in platform.rows("bronze.events") if row["ip"]} == {"203.0.113.0/24"}
