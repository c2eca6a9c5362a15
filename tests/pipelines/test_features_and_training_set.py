"""From silver to the online store and to a training set: what was known at the instant, of those who allow it."""

import random
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.groups import GROUPS, group
from features.packing import unpack_values
from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.source import Source
from features.sources import SOURCES
from features.values import values_at
from models.training_set import read_manifest
from pipelines.build_features import NothingToBuildError, build_features
from pipelines.clean import clean
from pipelines.feature_logs import silver_schemas
from pipelines.ingest import ingest
from pipelines.lakehouse.tables import TITLES
from pipelines.training_set import EmptyTrainingSetError, build_training_set, latest_training_set
from serving.online_store import open_online_store
from tests.platform import (
    DAY,
    HOUR,
    MINUTE,
    SALT,
    T0,
    Platform,
    consent,
    described,
    hashed,
    looked_around,
    title,
    watched,
)

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
VIEWERS = [f"viewer-{n}" for n in range(12)]
KID, REFUSER, LEAVER = "kid", "refuser", "leaver"
ALLOWED = [*VIEWERS, LEAVER]  # the leaver withdraws in the last test but one


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Twelve viewers and three who may not be used, over 60 days; finished titles are known to the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        platform = Platform(tmp_path_factory.mktemp("platform"))
        chance = random.Random(7)
        events = [title(f"vod-{n}", chance.choice(["drama", "news", "comedy"])) for n in range(30)]
        for person in [*VIEWERS, REFUSER, LEAVER]:
            events.append(described(person))
        events.append(described(KID, is_kids=True))
        platform.titles = [f"vod-{n}" for n in range(30)]
        platform.finished, platform.evenings = {}, {}
        for person in [*VIEWERS, KID, REFUSER, LEAVER]:
            at = T0
            for content in chance.sample(range(30), 20):
                at += chance.randrange(1, 3 * DAY)
                percent = chance.choice([10.0, 60.0, 95.0, 100.0])
                flags = {"consent_personalization": person != REFUSER, "cdn": "akamai"}
                events += watched(person, f"vod-{content}", at, percent, **flags)
                platform.evenings.setdefault(person, []).append(at)
                events += looked_around(person, f"vod-{content}", at + HOUR, consent_personalization=person != REFUSER)
                if percent >= 50:
                    platform.finished.setdefault(person, []).append((at, f"vod-{content}"))
        for n, channel in enumerate(("ch-1", "ch-2")):
            live = watched(VIEWERS[n], channel, T0 + HOUR, content_type="live", cdn="akamai")
            events.append(live[0])  # still on
        platform.send(*events)
        ingest(platform.settings)
        clean(platform.settings)
        platform.built = build_features(platform.settings)
        platform.joined = build_training_set(platform.settings, purpose=Purpose.PERSONALIZATION)
        yield platform


def training_rows(platform: Platform, folder: Path | None = None) -> list[dict]:
    folder = folder or latest_training_set(platform.settings.work_dir)
    rows = []
    for file in sorted(folder.glob("split=*/*.parquet")):
        split = file.parent.name.removeprefix("split=")
        rows += [row | {"split": split} for row in pq.read_table(file, partitioning=None).to_pylist()]
    return rows


def ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def test_history_is_what_was_finished_before_and_labels_come_after(platform):
    rows = training_rows(platform)
    assert {row["profile_id"] for row in rows} == {hashed(f"{viewer}-p") for viewer in ALLOWED}
    finished = {hashed(f"{viewer}-p"): platform.finished[viewer] for viewer in ALLOWED}
    for row in rows:
        t = ms(row["event_timestamp"])
        known = [content for at, content in finished[row["profile_id"]] if at < t - 2000]
        assert row["history"] == known[-100:]
        assert all(ms(at) > t for at in row["label_timestamps"])
        assert row["split"] == "train" or len(row["label"]) == 1


def test_every_finished_title_is_a_label_once(platform):
    labels = [(row["profile_id"], label) for row in training_rows(platform) for label in row["label"]]
    expected = [(hashed(f"{v}-p"), content) for v in ALLOWED for _, content in platform.finished[v]]
    assert sorted(labels) == sorted(expected)


def test_splits_lie_one_after_another_in_time(platform):
    manifest = read_manifest(latest_training_set(platform.settings.work_dir))
    bounds = {
        "train": (0, manifest.split_ms["train_end"]),
        "validation": (manifest.split_ms["train_end"], manifest.split_ms["validation_end"]),
        "test": (manifest.split_ms["validation_end"], 1 << 62),
    }
    for row in training_rows(platform):
        low, high = bounds[row["split"]]
        assert all(low <= ms(at) < high for at in row["label_timestamps"])
    assert all(manifest.rows[split] > 0 for split in bounds)


def test_popularity_of_the_label_is_that_of_the_last_known_hour(platform):
    log = _log(platform, VIEWING_LOG)
    starts = [
        (ms(row["event_timestamp"]), row["content_id"], row["viewer_token"])
        for row in log.to_pylist()
        if row["viewer_token"]
    ]
    for row in training_rows(platform):
        boundary = (ms(row["event_timestamp"]) - 15 * MINUTE) // HOUR * HOUR
        viewers = {
            token for at, content, token in starts if content == row["label"][0] and boundary - DAY <= at < boundary
        }
        seen = [at for at, content, _ in starts if content == row["label"][0] and at < boundary]
        expected = None if not seen or ms(row["event_timestamp"]) - max(seen) > 8 * DAY else len(viewers)
        assert row["label_daily_unique_viewers"] == expected


def test_who_may_not_be_used_is_left_out_and_counted(platform):
    manifest = read_manifest(latest_training_set(platform.settings.work_dir))
    assert manifest.excluded["kids_profile"] == 40
    assert manifest.excluded["refused_on_event"] == 40
    assert manifest.purpose == "personalization"


def test_the_same_inputs_give_the_same_bytes(platform):
    folder = latest_training_set(platform.settings.work_dir)
    before = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    moved = folder.with_name("kept")
    folder.rename(moved)
    build_training_set(platform.settings, purpose=Purpose.PERSONALIZATION)
    assert latest_training_set(platform.settings.work_dir) == folder
    assert {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_online_equals_offline(platform):
    watermark = _watermark(platform)
    logs = {source.name: _log(platform, source) for source in SOURCES}
    for one in GROUPS:
        for entity in one.entities:
            log = logs[one.source.name]
            keys = log[entity].unique().drop_null()
            with open_online_store(platform.settings.online_store_url, readonly=True) as store:
                packed = store.get_many(one.stored_as(entity), keys.to_pylist())
            online = unpack_values(one, packed, watermark)
            # LEAVER is still allowed here, so content counts him; kids and refusers are in no log.
            offline = values_at(one, entity, log, keys, [watermark] * len(keys))
            for name in one.feature_schema().names:
                assert online[name].to_pylist() == offline[name].to_pylist(), (entity, name)
            assert online[one.age_column].null_count == 0, "everybody in the log is in the store"


def test_every_group_is_there_for_all_its_entities(platform):
    people = {"user_id": {hashed(who) for who in ALLOWED}, "profile_id": {hashed(f"{who}-p") for who in ALLOWED},
              "session_id": {hashed(f"{who}-session") for who in ALLOWED}}  # fmt: skip
    channels = {"ch-1", "ch-2"}
    others = {"content_id": {*platform.titles, *channels}, "channel_id": channels, "cdn_region": {"akamai/GB"},
              "platform": {"web"}}  # fmt: skip
    for one in GROUPS:
        for entity in one.entities:
            rows = platform.rows(f"features.{one.stored_as(entity)}", [entity])
            assert {row[entity] for row in rows} == (people | others)[entity], (one.name, entity)
            assert platform.built.wrote[f"features.{one.stored_as(entity)}"] == len(rows)


def test_signs_of_an_account_are_those_that_were_sent(platform):
    """By hand: each of the twenty evenings of an account has one of each, and they last for 28 days."""
    watermark = _watermark(platform)
    with open_online_store(platform.settings.online_store_url, readonly=True) as store:
        packed = store.get_many("churn_signals_by_user_id", [hashed(who) for who in VIEWERS])
    got = unpack_values(group("churn_signals"), packed, watermark).to_pylist()
    now = (watermark - 3 * HOUR) // DAY * DAY
    for who, row in zip(VIEWERS, got, strict=True):
        evenings = [at + HOUR for at in platform.evenings[who]]
        recent = sum((now - 28 * DAY) // DAY * DAY <= at + 25 * MINUTE < now for at in evenings)
        assert row["support_contact_count"] == row["payment_failure_count"] == recent


def test_building_again_finds_nothing_to_do(platform):
    assert build_features(platform.settings).did == {"already built": "from these snapshots and declarations"}


def test_consent_withdrawn_takes_earlier_rows_too(platform):
    platform.send(consent(LEAVER, T0 + 90 * DAY, allows_personalization=False))
    # LEAVER had no consent on record: his events said yes, so he was in until now.
    ingest(platform.settings)
    clean(platform.settings)
    build_features(platform.settings)
    report = build_training_set(platform.settings, purpose=Purpose.PERSONALIZATION)
    assert report.did["rows left out: withdrawn_since"] == 40
    assert hashed(f"{LEAVER}-p") not in {row["profile_id"] for row in training_rows(platform)}
    with open_online_store(platform.settings.online_store_url, readonly=True) as store:
        for entity, plain in (("user_id", LEAVER), ("profile_id", f"{LEAVER}-p")):
            assert store.get_many(group("user_viewing_history").stored_as(entity), [hashed(plain)]) == [None]


def test_an_empty_platform_says_what_to_run_first(tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    empty = Platform(tmp_path)
    with pytest.raises(NothingToBuildError, match="run `reel ingest`, then `reel clean`"):
        build_features(empty.settings)
    with pytest.raises(EmptyTrainingSetError, match="run `reel ingest`"):
        build_training_set(empty.settings, purpose=Purpose.PERSONALIZATION)


def _watermark(platform: Platform) -> int:
    with open_online_store(platform.settings.online_store_url, readonly=True) as store:
        (watermark,) = store.get_many("meta", ["watermark_ms"])
    return int(watermark)


def _log(platform: Platform, source: Source) -> pa.Table:
    """The log of all whose events allow personalization, straight from silver."""
    schemas = silver_schemas(platform.contract, platform.settings.lakehouse.event_partition)
    found = {"silver.titles": pa.Table.from_pylist(platform.rows("silver.titles"), schema=TITLES)}
    for name in source.reads:
        rows = [row for row in platform.rows(name) if row["consent_personalization"] and not row["is_kids"]]
        found[name] = pa.Table.from_pylist(rows, schema=schemas[name])
    return source.log(found)
