"""The churn model's own training set, built of events and compared with plain loops over what was sent."""

import random
from collections import defaultdict

import pyarrow as pa
import pytest

from models.task import load_task
from models.training_set import read_manifest
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.contract.registry import open_registry
from pipelines.ingest import ingest
from pipelines.kafka.produce import Producer
from pipelines.model_training_set import NoTrainingSetError, build_for, latest_for
from pipelines.training_sets import BuiltTrainingSet
from tests.pipelines.training_sets.world import cancelled
from tests.platform import DAY, HOUR, SALT, T0, Platform, described, event, hashed, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
TASK = load_task("churn")
DAYS = 150
PEOPLE = [f"customer-{number}" for number in range(12)]
LEAVES_ON_DAY = dict(zip(PEOPLE, (40, 75, 95, 120, 140), strict=False))
ALLOWED = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)


def accounts() -> list[dict]:
    """Log-ins from one platform or another, some playbacks, and some who leave."""
    chance, events = random.Random(11), [title("vod-1", "drama")]
    for person in PEOPLE:
        events.append(described(person))
        leaves = T0 + LEAVES_ON_DAY.get(person, DAYS) * DAY
        at = T0 + chance.randrange(3 * DAY)
        while at < leaves:
            where = {"platform": chance.choice(["tv", "mobile"])} if chance.random() < 0.6 else {}
            events.append(
                event(
                    "auth.login_succeeded", at, person, auth_method="password", is_new_device=False, **ALLOWED | where
                )
            )
            if chance.random() < 0.4:
                events += watched(person, "vod-1", at + HOUR)
            at += chance.randrange(2 * DAY, 12 * DAY)
        if person in LEAVES_ON_DAY:
            events.append(cancelled(person, leaves))
    return events


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform of 150 days whose features are built."""
    platform = Platform(tmp_path_factory.mktemp("accounts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        platform.told = accounts()
        by_name = defaultdict(list)
        for one in platform.told:
            by_name[one["event_name"]].append(one)
        with Producer(platform.bootstrap, platform.contract, open_registry(platform.settings.registry_location)) as log:
            for name, events in by_name.items():
                schema = platform.contract.event(name)
                log.produce(schema.name, pa.Table.from_pylist(events, schema=schema.arrow))
        ingest(platform.settings)
        clean(platform.settings)
        build_features(platform.settings)
        yield platform


def test_rows_are_the_active_accounts_at_every_midnight(sold: Platform) -> None:
    with pytest.raises(NoTrainingSetError, match="reel training-set build churn"):
        latest_for(sold.settings.work_dir, TASK)
    report = build_for(sold.settings, TASK)
    folder = latest_for(sold.settings.work_dir, TASK)
    assert report.wrote["folder"] == str(folder)
    built = BuiltTrainingSet.read(folder)
    own = {
        person: [
            (one["event_timestamp"], one["event_name"], one.get("platform"))
            for one in sold.told
            if one.get("user_id") == person and one["event_name"] in ("auth.login_succeeded", "subscription.cancelled")
        ]
        for person in PEOPLE
    }
    names = {hashed(person): person for person in PEOPLE}
    seen = 0
    for split in ("train", "validation", "test"):
        for row in built.frame(split).to_dicts():
            seen += 1
            events, t = own[names[row["user_id"]]], round(row["event_timestamp"].timestamp() * 1000)
            before = [one for one in events if one[0] < t]
            assert t % DAY == 0
            assert t - before[-1][0] <= 60 * DAY
            assert "subscription.cancelled" not in {name for _, name, _ in before}
            assert row["churned"] == any(
                name == "subscription.cancelled" and t < at <= t + 30 * DAY for at, name, _ in events
            )
            assert row["platform"] == next((where for _, _, where in reversed(before) if where), None)
            assert row["market"] == "GB"
            assert row["days_known"] == (t - before[0][0]) // DAY
    assert seen == sum(built.rows.values()) > 200
    assert set(TASK.columns) <= set(built.schema.names)
    assert read_manifest(folder, TASK.needs).label_horizon_ms == built.manifest["split_ms"]["test_begin"]
