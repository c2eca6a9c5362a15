"""The whole road on real services: Kafka, Iceberg, Ray, MLflow, Ray Serve; counted against the simulator's truth."""

import hashlib
import hmac
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import nbformat
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nbclient import NotebookClient

from features.purposes import Purpose
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.contract.events import load_contract
from pipelines.contract.registry import open_registry
from pipelines.evaluate import evaluate
from pipelines.feed import feed_simulation
from pipelines.ingest import ingest
from pipelines.kafka.produce import Producer
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks, row_count, scan_tasks
from pipelines.privacy.erase import erase
from pipelines.processes import find_free_port
from pipelines.publish import publish
from pipelines.quarantine import unseal
from pipelines.report import StationReport
from pipelines.retrain import retrain
from pipelines.secrets import quarantine_key
from pipelines.serve import serving
from pipelines.settings import KafkaSettings, LakehouseSettings, ModelSettings, Settings, TrainingSettings
from pipelines.settings_serving import PredictionSettings, ServingSettings
from pipelines.simulator import SimulationConfig
from pipelines.status import status
from pipelines.stream.station import Streamer
from pipelines.tokens import new_token
from pipelines.train import train
from pipelines.training_set import build_training_set, latest_training_set
from tests.pipelines.privacy.bytes_scan import files_with, files_with_hashes
from tests.platform import SALT, event, hashed

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own use of SQLAlchemy
]
# As small as lets a sequence model beat popularity by more than noise.
PLATFORM = SimulationConfig(households=240, days=21, seed=5, heartbeat_s=600, titles=120, channels=6)
LEARNING = {"epochs": 15, "dim": 32}


@dataclass
class Road:
    settings: Settings
    reports: dict[str, StationReport]
    truth: dict
    address: str
    service_pid: int

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.address, timeout=60, headers={"Authorization": f"Bearer {new_token(self.settings, 'tests')}"}
        )

    def table(self, name: str, *columns: str) -> list[dict]:
        table = Lakehouse.open(self.settings).existing(name)
        return read_tasks(TableFiles.of(table), scan_tasks(table), columns).to_pylist()


@pytest.fixture(scope="module")
def road(own_broker: str, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    folder = tmp_path_factory.mktemp("road")
    settings = Settings(
        work_dir=folder,
        kafka=KafkaSettings(bootstrap_servers=own_broker, partitions=2),
        lakehouse=LakehouseSettings(event_partition="month", buckets=2),
        serving=ServingSettings(predictions=PredictionSettings(flush_s=0.5)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        reports = {"simulate": feed_simulation(settings, PLATFORM, lambda events: None)}
        reports["ingest"] = ingest(settings)
        reports["clean"] = clean(settings)
        reports["features"] = build_features(settings)
        reports["training-set"] = build_training_set(settings, purpose=Purpose.PERSONALIZATION)
        reports["train"] = train(
            "recommendation",
            latest_training_set(folder),
            tracking_uri=settings.tracking_uri,
            storage=folder / "checkpoints",
            configuration=LEARNING,
        )
        reports["evaluate"] = evaluate("recommendation", tracking_uri=settings.tracking_uri)
        reports["publish"] = publish("recommendation", tracking_uri=settings.tracking_uri)
        truth = json.loads((folder / "truth" / "expected.json").read_text())
        with serving(settings, port=find_free_port()) as (address, process):
            yield Road(settings, reports, truth, address, process.pid)


def test_every_message_is_accounted_for(road):
    expected, ingested = road.truth["expected"], road.reports["ingest"]
    assert ingested.read["messages"] == expected["messages"]
    assert ingested.wrote["quarantine.events"] == expected["quarantined"]
    assert ingested.did["dropped: analytics_refused"] == expected["dropped_without_consent"]
    assert ingested.wrote["bronze.events"] == (
        expected["messages"] - expected["quarantined"] - expected["dropped_without_consent"]
    )


def test_silver_holds_each_kept_playback_event_once(road):
    kept = {name: facts["kept"] for name, facts in road.truth["events"].items() if name.startswith("playback.")}
    found: dict[str, int] = {}
    ids = set()
    for row in road.table("silver.playback", "event_id", "event_name"):
        found[row["event_name"]] = found.get(row["event_name"], 0) + 1
        ids.add(row["event_id"])
    assert found == kept
    assert len(ids) == sum(kept.values())


def test_children_have_no_ids_and_are_in_no_training_set(road):
    viewers = pq.read_table(road.settings.work_dir / "truth" / "viewers.parquet").to_pylist()
    kids = {hashed(viewer["profile_id"]) for viewer in viewers if viewer["is_kids"]}
    assert kids
    rows = road.table("silver.playback", "profile_id", "user_id", "is_kids", "viewer_token")
    assert not [row for row in rows if row["is_kids"] and (row["profile_id"] or row["user_id"])]
    assert not kids & {row["profile_id"] for row in rows}
    assert not kids & {row["viewer_token"] for row in rows}
    for file in latest_training_set(road.settings.work_dir).glob("split=*/*.parquet"):
        assert not kids & set(pq.read_table(file, partitioning=None)["profile_id"].to_pylist())


def test_the_recommender_beats_popularity_on_the_test_period_and_is_champion(road):
    did = road.reports["evaluate"].did
    assert did["test_ndcg_at_10"] > did["test_popularity_ndcg_at_10"]
    assert road.reports["publish"].did["decision"] == "published"
    assert "version 1" in str(status(road.settings).wrote["champion of recommendation"])


def test_a_model_is_fresh_until_its_cadence_is_over_and_retrained_then(road):
    told = status(road.settings).wrote["freshness of recommendation"]
    assert str(told).startswith("fresh: version 1, until ")
    impatient = road.settings.model_copy(
        update={
            "models": {"recommendation": ModelSettings(cadence_hours=1e-9)},
            "training": TrainingSettings(models={"recommendation": {**LEARNING, "seed": 0}}),
        }
    )
    assert "stale since" in str(status(impatient).wrote["freshness of recommendation"])
    report = retrain(impatient, ["recommendation"])
    assert "stale since" in str(report.read["recommendation"])
    assert report.did["recommendation"] == (
        "nothing new to learn from since version 1 was trained; version 1 kept: it is the champion already"
    )


def test_a_known_viewer_is_answered_by_the_model_with_titles_not_seen(road):
    titles = {row["content_id"]: row["title"] for row in road.table("silver.titles", "content_id", "title")}
    viewers = pq.read_table(road.settings.work_dir / "truth" / "viewers.parquet").to_pylist()
    answered = 0
    with road.client() as client:
        for viewer in [one for one in viewers if not one["is_kids"]][:40]:
            profile = viewer["profile_id"]
            answer = client.get("/v1/recommendations", params={"profile_id": profile, "k": 5}).json()
            assert len(answer["items"]) == 5
            assert all(titles[item["content_id"]] == item["title"] for item in answer["items"])
            if answer["source"] != "model":
                continue
            answered += 1
            assert answer["model_version"] == "1"
            features = client.get(
                "/v1/features", params={"group": "user_viewing_history", "profile_id": profile}
            ).json()
            seen = set(features["values"]["recent_titles"])
            assert not seen & {item["content_id"] for item in answer["items"]}
    assert answered >= 10


def test_a_stranger_gets_popular_titles_and_is_told_so(road):
    with road.client() as client:
        answer = client.get("/v1/recommendations", params={"profile_id": "nobody", "k": 3}).json()
        assert (answer["source"], answer["reason"], len(answer["items"])) == ("popular", "unknown_viewer", 3)
        assert client.get("/healthz").status_code == 200
        assert "/v1/recommendations" in client.get("/openapi.json").json()["paths"]


ADDRESS, MAIL, PHONE = "203.0.113.77", "jane.roe@example.org", "+44 7700 900123"


def learners(road: Road) -> set[str]:
    """The profiles that the model learnt from."""
    files = latest_training_set(road.settings.work_dir).glob("split=train/*.parquet")
    return {one for file in files for one in pq.read_table(file, partitioning=None)["profile_id"].to_pylist()}


def careless(road: Road, viewer: dict) -> None:
    """A search in which somebody has typed who they are, from an address that is told in full; streamed and stored."""
    contract, profile = load_contract(road.settings.schemas), viewer["profile_id"]
    newest = max(row["event_timestamp"] for row in road.table("silver.playback", "event_timestamp"))
    search = event(
        "search.query", int(newest.timestamp() * 1000), None, user_id=viewer["user_id"], profile_id=profile,
        session_id=f"{profile}-session", device_id=f"{profile}-device", ip=ADDRESS, user_agent=f"Reel/1 ({MAIL})",
        query_text=f"films for {MAIL}, {PHONE}", search_type="text", query_length=1, is_conversational=False,
    )  # fmt: skip
    schema, registry = contract.event("search.query"), open_registry(road.settings.registry_location)
    with Producer(road.settings.kafka.bootstrap_servers, contract, registry) as producer:
        producer.produce(schema.name, pa.Table.from_pylist([search], schema=schema.arrow))
    assert Streamer(road.settings).run(until_idle_s=1).read["messages"] > 0
    ingest(road.settings)
    clean(road.settings)
    build_features(road.settings)
    (stored,) = [one for one in road.table("bronze.events", "event_id", "ip") if one["event_id"] == search["event_id"]]
    assert stored["ip"].startswith("203.0.113.")


def written(road: Road) -> Iterator[tuple[Path, str]]:
    """Every folder that something was written to, and what must be there."""
    of_us = {
        "warehouse": "**/*.parquet", "online": "data.mdb", "mlflow_artifacts": "**/MLmodel",
        "training_sets": "**/*.parquet", "checkpoints": "**/*", "stream": "*.arrow", "predictions": "date=*/*.parquet",
    }  # fmt: skip
    yield from ((road.settings.work_dir / name, there) for name, there in of_us.items())
    ours, of_service = session_folders(road)
    yield ours / "logs", "worker-*"
    yield of_service / "logs" / "serve", "*.log"


def session_folders(road: Road) -> tuple[Path, Path]:
    """Where this Ray and the service's write; a session's name ends with the process that began it."""
    ours = Path(ray._private.worker._global_node.get_session_dir_path())
    # Names begin with the time: a process of long ago may have had the same number.
    *_, of_service = sorted(ours.parent.glob(f"session_*_{road.service_pid}"))
    return ours, of_service


def test_nothing_plain_is_anywhere(road):
    """Ids, mail and IP addresses and the salt, in every byte that the road, the stream and the service have written.

    Tables, models, checkpoints, training sets, logged answers, Ray's and Serve's logs, temporary folders; left out is
    the truth, the simulator's own.
    """
    viewers = pq.read_table(road.settings.work_dir / "truth" / "viewers.parquet").to_pylist()
    learnt_from = learners(road)
    careless(road, next(one for one in viewers if hashed(one["profile_id"]) in learnt_from))
    # How all of them begin: no such run of letters occurs by chance.
    plain = {viewer[name][:6] for viewer in viewers for name in ("user_id", "profile_id")}
    assert len(plain) == 2
    sought = {*plain, SALT, ADDRESS, MAIL, PHONE}
    for folder, there in written(road):
        assert list(folder.glob(there)), folder
    fetched = [one for name in ("reel-model-*", "reel-haproxy-*") for one in Path(tempfile.gettempdir()).glob(name)]
    for folder in (road.settings.work_dir, *session_folders(road), *fetched):
        assert files_with(folder, sought, skip=("truth",)) == {}
    for table in ("bronze.events", "silver.playback"):
        found = Lakehouse.open(road.settings).existing(table)
        assert row_count(found) > 0
        people = road.table(table, "user_id", "profile_id", "session_id", "device_id")
        assert all(value is None or len(value) == 64 for row in people for value in row.values())


def test_going_again_finds_nothing_to_do(road):
    assert ingest(road.settings).read["messages"] == 0
    assert set(clean(road.settings).wrote.values()) == {0}
    assert "already built" in build_features(road.settings).did
    again = train(
        "recommendation",
        latest_training_set(road.settings.work_dir),
        tracking_uri=road.settings.tracking_uri,
        storage=road.settings.work_dir / "checkpoints",
        configuration=LEARNING,
    )
    assert again.wrote["version"] == "1"


@pytest.mark.parametrize(("name", "plots"), [("first_look", 2), ("training_set", 1)])
def test_the_notebooks_run_from_top_to_bottom(road, project_root, monkeypatch, name, plots):
    monkeypatch.setenv("REEL_WORK_DIR", str(road.settings.work_dir))
    notebook = nbformat.read(project_root / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(road.settings.work_dir)}}).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == plots


PERSON = ("user_id", "profile_id", "session_id", "device_id")
REGISTRIES = ("privacy.profiles", "privacy.consents", "privacy.erasures")
# What is written of erasures themselves, and what is sealed: `sealed` looks into that.
OUTSIDE = ("privacy.tombstones", "privacy.erasures", "privacy.audit", "quarantine.events")


def rows_of(road: Road, name: str) -> pa.Table:
    table = Lakehouse.open(road.settings).existing(name)
    return read_tasks(TableFiles.of(table), scan_tasks(table))


def names_in(rows: pa.Table, people: set[str]) -> set[str]:
    """Under which sessions and devices rows stand that are of some users or profiles."""
    is_theirs = pc.or_(*(pc.is_in(rows[column], value_set=pa.array(sorted(people))) for column in PERSON[:2]))
    theirs = rows.filter(is_theirs)
    return {one for column in PERSON[2:] for one in theirs[column].unique().to_pylist() if one is not None}


def child_tokens(viewers: list[dict]) -> set[str]:
    """What children are counted by: another name every day, made of the profile's by hand."""
    start = datetime.fromtimestamp(PLATFORM.start_ms / 1000, UTC)
    days = [start + timedelta(days=n) for n in range(-2, PLATFORM.days + 3)]
    children = [hashed(one["profile_id"]) for one in viewers if one["is_kids"]]
    said = [f"kids:{day:%Y-%m-%d}:{child}".encode() for day in days for child in children]
    return {hmac.new(SALT.encode(), one, hashlib.sha256).hexdigest() for one in said}


def others(road: Road, names: set[str]) -> dict[str, tuple[int, int]]:
    """Of every table: how many of its rows have none of the names, and a sum over them."""
    found = {}
    for name in set(Lakehouse.open(road.settings).names()) - set(OUTSIDE):
        rows = rows_of(road, name)
        is_theirs = pa.array(np.zeros(rows.num_rows, bool))
        for column in rows.columns:
            if pa.types.is_string(column.type):
                is_theirs = pc.or_(is_theirs, pc.is_in(column, value_set=pa.array(sorted(names))))
        kept = rows.filter(pc.invert(is_theirs))
        plain = {one: kept[one] for one in kept.column_names if not pa.types.is_map(kept[one].type)}
        found[name] = (kept.num_rows, int(pl.DataFrame(plain).hash_rows(seed=7).sum() or 0) if kept.num_rows else 0)
    return found


def sealed(road: Road) -> dict[tuple, bytes]:
    """What was set aside, opened, by where it stood in Kafka."""
    cipher, rows = AESGCM(quarantine_key(road.settings)), rows_of(road, "quarantine.events").to_pylist()
    parts = ("encrypted_key", "encrypted_value", "encrypted_headers")
    return {
        (row["topic"], row["partition"], row["offset"]): b" ".join(
            unseal(cipher, row[name]) for name in parts if row.get(name) is not None
        )
        for row in rows
    }


def test_a_hundred_erased_people_are_gone_and_nobody_else_is_touched(road):
    """The last test of the road: it takes people off it, while the service answers, and reads Kafka once more."""
    viewers = pq.read_table(road.settings.work_dir / "truth" / "viewers.parquet").to_pylist()
    users = random.Random(100).sample(sorted({one["user_id"] for one in viewers}), 100)
    theirs = [one for one in viewers if one["user_id"] in set(users)]
    people = {hashed(one[name]) for one in theirs for name in ("user_id", "profile_id")}
    names = people | names_in(rows_of(road, "bronze.events"), people) | child_tokens(theirs)
    learnt_from = learners(road)
    before, set_aside = others(road, names), sealed(road)
    plain = [one[name].encode() for one in theirs for name in ("user_id", "profile_id")]
    left = {at: message for at, message in set_aside.items() if not any(one in message for one in plain)}
    assert 0 < len(left) < len(set_aside)
    assert len(files_with_hashes(road.settings.work_dir, names, skip=("truth",))) > 40

    receipts = erase(road.settings, users).receipts
    assert sum(one.rows for one in receipts) > 10_000
    assert files_with_hashes(road.settings.work_dir, names, skip=("truth",)) == {}
    assert others(road, names) == before
    assert sealed(road) == left
    with road.client() as client:
        answer = client.get("/v1/recommendations", params={"profile_id": theirs[0]["profile_id"], "k": 3}).json()
        assert (answer["source"], answer["reason"]) == ("popular", "unknown_viewer")

    by_user = {hashed(user): {hashed(one["profile_id"]) for one in theirs if one["user_id"] == user} for user in users}
    with_models = sum(bool(one.content["models"]) for one in receipts)
    assert with_models >= sum(not profiles.isdisjoint(learnt_from) for profiles in by_user.values()) > 50

    lakehouse = Lakehouse.open(road.settings)
    counts = {name: row_count(lakehouse.existing(name)) for name in ("bronze.events", "silver.playback")}
    for name in lakehouse.names():
        if name.startswith(("bronze.", "quarantine.", "silver.")) or name in REGISTRIES:
            lakehouse.catalog.purge_table(name)
    assert ingest(road.settings).did["dropped: erased"] > 10_000
    clean(road.settings)
    lakehouse = Lakehouse.open(road.settings)
    assert {name: row_count(lakehouse.existing(name)) for name in counts} == counts
    assert files_with_hashes(road.settings.work_dir / "warehouse", names) == {}
