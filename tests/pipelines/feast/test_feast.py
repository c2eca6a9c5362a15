"""Feast on Reel's engine: the same values as the join's, the same refusals, and Feast's own tools on the repository.

Feast's conformance tests are in neither its wheel nor its source distribution. Those of its repository
(`universal/offline_store/test_universal_historical_retrieval.py`) that apply are written anew here, by what they ask;
what they cover and Reel does not, and why, is in the README's table.
"""

import json
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feast import FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

from features.errors import PurposeNotAllowedError, SelectionError
from features.groups import GROUPS
from features.purposes import Purpose
from pipelines.feast.errors import NotReelsError
from pipelines.feast.repository import feast_objects, write_repository
from pipelines.point_in_time.join import Request, join
from tests.pipelines.watched import LEAVER, VIEWERS
from tests.platform import SALT, T0, Platform, hashed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
VIEWING, POPULARITY = "user_viewing_history_by_profile_id", "content_popularity_by_content_id"


@pytest.fixture(scope="module")
def repository(watched_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as `reel features feast` writes it, to which nothing was applied yet."""
    folder = tmp_path_factory.mktemp("feast")
    settings = folder / "reel.yaml"
    chosen = watched_platform.settings
    settings.write_text(yaml.safe_dump({"work_dir": str(chosen.work_dir), "lakehouse": {"buckets": 2}}))
    write_repository(folder, settings)
    return folder


@pytest.fixture(scope="module")
def store(repository: Path) -> FeatureStore:
    store = FeatureStore(str(repository))
    views = {one.name: one for one in feast_objects() if isinstance(one, FeatureView)}
    both = [views[VIEWING][["recent_titles", "completion_rate"]], views[POPULARITY][["hourly_viewers"]]]
    mapped = [
        views[POPULARITY][["daily_unique_viewers"]].with_name(name).with_join_key_map({"content_id": f"{name}_id"})
        for name in ("seen", "offered")
    ]
    tagged = {"purpose": "personalization"}
    services = [
        FeatureService(name="both", features=both, tags=tagged),
        FeatureService(name="mapped", features=mapped, tags=tagged),
        FeatureService(name="untagged", features=[views[VIEWING][["recent_titles"]]]),
        FeatureService(
            name="advertising", features=[views[VIEWING][["completion_rate"]]], tags={"purpose": "ad_targeting"}
        ),
        FeatureService(name="nonsense", features=[views[VIEWING][["avg_session_duration"]]], tags={"purpose": "fun"}),
        FeatureService(name="one", features=[views[POPULARITY][["completion_rate"]]], tags=tagged),
        FeatureService(name="other", features=[views[POPULARITY][["completion_rate"]]], tags={"purpose": "analytics"}),
    ]

    @on_demand_feature_view(
        sources=[views[POPULARITY][["trending_velocity"]]], schema=[Field(name="doubled", dtype=Float64)], mode="pandas"
    )
    def doubled_velocity(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"doubled": inputs["trending_velocity"] * 2})

    on_demand = FeatureService(name="on_demand", features=[doubled_velocity], tags=tagged)
    with pytest.warns(RuntimeWarning, match="On demand feature view is an experimental feature"):
        store.apply([*feast_objects(), doubled_velocity, *services, on_demand])
    return store


@pytest.fixture(scope="module")
def rows(watched_platform: Platform) -> pd.DataFrame:
    chance = np.random.default_rng(3)
    people = [hashed(f"{person}-p") for person in [*VIEWERS, LEAVER]] + [None]
    times = chance.integers(T0, watched_platform.watermark, 80) // 1000 * 1000
    frame = pd.DataFrame(
        {
            "profile_id": [people[place] for place in chance.integers(0, len(people), 80)],
            "content_id": [f"vod-{place}" for place in chance.integers(0, 10, 80)],
            "event_timestamp": pd.to_datetime(times, unit="ms", utc=True),
            "label": chance.integers(0, 2, 80),
        }
    )
    return pd.concat([frame, frame.iloc[:5]], ignore_index=True)  # rows that are there twice stay there twice


def ours(platform: Platform, rows: pd.DataFrame, *features: str, **changes) -> pa.Table:
    left = pa.Table.from_pandas(rows, preserve_index=False)
    return join(platform.settings, left, Request(features, Purpose.PERSONALIZATION, **changes)).table()


@pytest.mark.parametrize("full_feature_names", [True, False])
def test_it_returns_what_the_join_returns(watched_platform, store, rows, full_feature_names):
    service = store.get_feature_service("both")
    said = store.get_historical_features(rows, service, full_feature_names=full_feature_names).to_arrow()
    asked = [f"{VIEWING}.recent_titles", f"{VIEWING}.completion_rate", f"{POPULARITY}.hourly_viewers"]
    mine = ours(watched_platform, rows, *asked)
    names = [name.replace(".", "__") for name in asked]
    expected = mine.select([*rows.columns, *names])
    if not full_feature_names:
        expected = expected.rename_columns([*rows.columns, *(name.rpartition("__")[2] for name in names)])
    assert said.equals(expected)
    assert 0 < said[said.column_names[-1]].null_count < said.num_rows


def test_every_generated_service_answers_with_every_feature(watched_platform, store, rows):
    for one in GROUPS:
        for entity in one.entities:
            view = one.stored_as(entity)
            own = {"user_id": hashed(VIEWERS[0]), "session_id": hashed(f"{VIEWERS[0]}-session"), "channel_id": "ch-1",
                   "cdn": "akamai", "region": "GB", "platform": "web"}  # fmt: skip
            frame = rows.assign(**{name: [value] * len(rows) for name, value in own.items()})
            service = store.get_feature_service(f"{one.purpose}_{view}")
            said = store.get_historical_features(frame, service).to_arrow()
            mine = ours(watched_platform, frame, view)
            for feature in one.features:
                assert said[feature.name].equals(mine[f"{view}__{feature.name}"]), (view, feature.name)


def test_a_list_of_features_has_the_purpose_of_the_service_with_just_these(store, rows):
    refs = [f"{VIEWING}:recent_titles", f"{VIEWING}:completion_rate", f"{POPULARITY}:hourly_viewers"]
    listed = store.get_historical_features(rows, refs).to_arrow()
    assert listed.equals(store.get_historical_features(rows, store.get_feature_service("both")).to_arrow())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([f"{VIEWING}:preferred_content_type"], "no purpose is given"),
        ("untagged", "no purpose is given"),
        ("advertising", "declared for the purpose personalization, and was asked for ad_targeting"),
        ("nonsense", "purpose is 'fun'; there are essential"),
        ("one", "for the purposes analytics, personalization"),
    ],
)
def test_without_a_purpose_that_is_allowed_it_is_refused_at_once(store, rows, asked, said):
    features = asked if isinstance(asked, list) else store.get_feature_service(asked)
    with pytest.raises(PurposeNotAllowedError, match=said):
        store.get_historical_features(rows, features)


def test_one_view_twice_by_different_keys(watched_platform, store, rows):
    frame = rows.rename(columns={"content_id": "seen_id"}).assign(offered_id=rows["content_id"].to_numpy()[::-1])
    said = store.get_historical_features(frame, store.get_feature_service("mapped"), full_feature_names=True).to_arrow()
    for name in ("seen", "offered"):
        mine = ours(watched_platform, frame, f"{POPULARITY}.daily_unique_viewers", keys={"content_id": f"{name}_id"})
        assert said[f"{name}__daily_unique_viewers"].equals(mine[f"{POPULARITY}__daily_unique_viewers"])


def test_an_on_demand_view_is_worked_out_of_the_result(store, rows):
    said = store.get_historical_features(rows, store.get_feature_service("on_demand")).to_df()
    known = said[said["trending_velocity"].notna()]
    assert len(known)
    assert (known["doubled"] == known["trending_velocity"] * 2).all()


def test_rows_in_files_other_instants_and_data_frames(store, rows, tmp_path):
    service = store.get_feature_service("both")
    expected = store.get_historical_features(rows, service).to_arrow()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "rows.parquet")
    assert store.get_historical_features(str(tmp_path / "rows.parquet"), service).to_arrow().equals(expected)
    renamed = store.get_historical_features(rows.rename(columns={"event_timestamp": "at"}), service)
    assert renamed.to_arrow().column_names[2] == "at"
    assert renamed.to_df()["hourly_viewers"].equals(expected.to_pandas()["hourly_viewers"])
    naive = rows.assign(event_timestamp=rows["event_timestamp"].dt.tz_localize(None))
    assert store.get_historical_features(naive, service).to_arrow()["recent_titles"].equals(expected["recent_titles"])


def test_a_result_is_saved_and_read_again(store, rows, tmp_path):
    service = store.get_feature_service("both")
    job = store.get_historical_features(rows, service)
    assert job.metadata.min_event_timestamp == rows["event_timestamp"].min()
    assert job.metadata.keys == ["profile_id", "content_id", "label"]
    storage = SavedDatasetFileStorage(str(tmp_path / "saved.parquet"))
    with pytest.warns(RuntimeWarning, match="dataset is an experimental feature"):
        store.create_saved_dataset(job, "saved", storage, feature_service=service)
    with pytest.warns(RuntimeWarning, match="datasets is an experimental feature"):
        saved = store.get_saved_dataset("saved").to_df()
    key = ["event_timestamp", "profile_id", "content_id"]
    expected = job.to_df().sort_values(key, ignore_index=True)
    assert saved.sort_values(key, ignore_index=True)["hourly_viewers"].equals(expected["hourly_viewers"])


def test_what_reel_does_otherwise_is_refused_with_a_line(store, rows, tmp_path):
    service = store.get_feature_service("both")
    with pytest.raises(NotReelsError, match="give an entity_df"):
        store.get_historical_features(features=service, start_date=rows["event_timestamp"].min())
    with pytest.raises(SelectionError, match="needs the column content_id"):
        store.get_historical_features(rows.drop(columns="content_id"), service).to_arrow()
    with pytest.raises(NotReelsError, match="which column is the instant"):
        store.get_historical_features(rows.drop(columns="event_timestamp"), service)
    foreign = FeatureView(
        name="foreign", entities=[store.get_entity("content_id")], schema=[Field(name="x", dtype=Float64)],
        source=FileSource(path=str(tmp_path / "x.parquet"), timestamp_field="event_timestamp"), ttl=timedelta(days=1),
    )  # fmt: skip
    pq.write_table(pa.table({"content_id": ["a"], "x": [1.0], "event_timestamp": rows["event_timestamp"][:1]}),
                   tmp_path / "x.parquet")  # fmt: skip
    store.apply([foreign, FeatureService(name="foreign", features=[foreign], tags={"purpose": "personalization"})])
    with pytest.raises(NotReelsError, match="reads FileSource"):
        store.get_historical_features(rows, store.get_feature_service("foreign"))


def test_views_say_what_the_declarations_say(store):
    for one in GROUPS:
        for entity in one.entities:
            view = store.get_feature_view(one.stored_as(entity))
            assert view.ttl == timedelta(milliseconds=one.ttl_ms)
            assert (view.owner, view.description) == (one.owner, one.description)
            assert view.tags["purpose"] == str(one.purpose)
            assert [field.name for field in view.features] == [feature.name for feature in one.features]
            said = {field.name: field for field in view.features}
            for feature in one.features:
                assert said[feature.name].description == feature.description
                assert said[feature.name].tags["unit"] == feature.unit


@pytest.mark.slow
def test_feasts_own_tools_work_on_the_repository(repository, tmp_path, free_port, monkeypatch):
    """`feast apply`, the lists, and the UI's own REST interface, as processes of their own."""
    monkeypatch.setenv("REEL_SALT", SALT)
    for file in ("feature_store.yaml", "definitions.py"):
        (tmp_path / file).write_text((repository / file).read_text())
    views = {one.stored_as(entity) for one in GROUPS for entity in one.entities}
    assert "Deploying infrastructure" in feast(tmp_path, "apply")
    command = [sys.executable, "-m", "feast.cli.cli", "ui", "--host", "127.0.0.1", "--port", str(free_port)]
    with (tmp_path / "ui.log").open("wb") as log:
        ui = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        listed = {line.split()[0] for line in feast(tmp_path, "feature-views", "list").splitlines()[1:]}
        assert listed == views
        answer = json.loads(asked(f"http://127.0.0.1:{free_port}/api/v1/feature_views?project=reel", ui))
        assert {one["spec"]["name"] for one in answer["featureViews"]} == views
        assert "<html" in asked(f"http://127.0.0.1:{free_port}/", ui)
    finally:
        ui.terminate()
        ui.wait(20)


def feast(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "feast.cli.cli", *command], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(address: str, server: subprocess.Popen) -> str:
    for _ in range(120):
        assert server.poll() is None, "the UI ended"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the UI never answered")
