"""A profile that turns out to be a child's: its earlier rows lose their ids in every byte, and nothing else changes."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from pipelines.lakehouse.scans import read_all
from pipelines.maintain import maintain
from pipelines.privacy.receipts import checked
from pipelines.secrets import pseudonymizer
from pipelines.stream.files import write_rows
from pipelines.tracking import Tracking
from serving import prediction_log
from serving.online_store import open_online_store
from tests.pipelines.privacy.bytes_scan import files_with
from tests.pipelines.privacy.world import DAY, HOUR, T0, World, hashed, token

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
FOUND_MS, GREW_UP_MS = T0 + DAY, T0 + 2 * DAY
IDS = ("user_id", "profile_id", "session_id", "device_id")
NOW = {"ingested_at": int(time.time() * 1_000_000), "topic": "t", "partition": 0, "cluster_id": "c", "source": "CLIENT"}
ALLOWED = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)


def row(number, profile, at_ms):
    return {
        **NOW,
        **ALLOWED,
        "event_name": "tile.click",
        "event_id": f"event-{number}",
        "offset": number,
        "at_ms": at_ms,
        "user_id": hashed(f"owner-of-{profile}"),
        "profile_id": hashed(profile),
        "session_id": hashed(f"session-{number}"),
        "device_id": hashed(f"device-{number}"),
        "viewer_token": hashed(profile),
        "is_kids": False,
    }


def said(world, profile, is_kids, at_ms):
    who = {"user_id": hashed(f"owner-of-{profile}"), "profile_id": hashed(profile)}
    world.append("privacy.profiles", {**who, "is_kids": is_kids, "at_ms": at_ms})


class Beside:
    """What else there is of them: two training sets and the runs that learnt from them, answers, values, a checkpoint.

    One set names everybody's profiles, and beside these sessions; the other adults alone.
    """

    def __init__(self, world: World, rows: list[dict]) -> None:
        self.folder, settings = world.folder, world.settings
        self.rows = [{"profile_id": one["profile_id"], "t": one["at_ms"], "session_id": None} for one in rows]
        self.rows += [{"profile_id": None, "t": one["at_ms"], "session_id": one["session_id"]} for one in rows]
        tracking = Tracking(settings.tracking_uri)
        self.runs = []
        for name, some in (("all", self.rows), ("adults", [one for one in self.rows if one["profile_id"] == ADULT])):
            tags = {"training_set.folder": str(self._set(name, some)), "training_set.digest": f"digest of {name}"}
            self.runs.append(tracking.open_run("churn", f"churn-{name}", tags))
        self.table = pa.Table.from_pylist(self.rows, SET)
        write_rows(self._there("stream/1-0-rows.arrow"), self.table)
        write_rows(self._there("stream/1-profiles.arrow"), pa.table({"profile_id": [hashed("child")]}))
        (settings.stream_folder / "checkpoint.json").write_text(json.dumps({"known": {"x": "1-profiles.arrow"}}))
        answers = [{"at": one["t"], "profile_id": one["profile_id"], "prediction": "{}"} for one in self.rows[:72]]
        self.answers = self._there(f"predictions/date={time.strftime('%Y-%m-%d')}/some-000000.parquet")
        pq.write_table(pa.Table.from_pylist(answers, prediction_log.SCHEMA), self.answers)
        self.url, self.group = settings.online_store_url, USER_VIEWING_HISTORY.stored_as("profile_id")
        with open_online_store(self.url) as store:
            for group in (self.group, "playback_sessions", "profiles"):
                store.put_many(group, [(hashed(one), b"{}") for one in ("child", "adult", "grown")])

    def _there(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _set(self, name: str, rows: list[dict]) -> Path:
        path = self._there(f"training_sets/{name}/split=train/part-00000.parquet")
        pq.write_table(pa.Table.from_pylist(rows, SET), path)
        folder = path.parent.parent
        (folder / "manifest.json").write_text(json.dumps({"name": name, "rows": {"train": len(rows)}}))
        return folder

    def set_now(self, name: str) -> list[dict]:
        return pq.read_table(self.folder / f"training_sets/{name}/split=train/part-00000.parquet").to_pylist()


ADULT = hashed("adult")
SET = pa.schema(
    [("profile_id", pa.string()), ("t", pa.timestamp("ms", tz="UTC")), ("session_id", pa.string())]
)  # fmt: skip


@pytest.fixture(scope="module")
def world(ray_session, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", "the first salt of all,the salt of today")
        world = World(tmp_path_factory.mktemp("late"))
        assert pseudonymizer(world.settings).hash("x") == hashed("x")
        for profile in ("child", "adult", "grown"):
            said(world, profile, False, T0 - DAY)
        rows = [
            row(number, profile, T0 + number * HOUR)
            for number, profile in enumerate(["child", "adult", "grown"] * 24)  # three days
        ]
        for name in ("bronze.events", "silver.browse"):
            world.append(name, *rows[:40])
            world.append(name, *rows[40:])
        who = {"user_id": hashed("owner-of-child"), "at_ms": T0 + HOUR}
        answers = {"allows_analytics": True, "allows_ad_targeting": True, "allows_personalization": False}
        world.append("privacy.consents", {**who, **answers})
        beside = Beside(world, rows)
        world.beside = beside
        assert "found late" not in str(maintain(world.settings).did)
        for profile in ("child", "grown"):
            said(world, profile, True, FOUND_MS)
        said(world, "grown", False, GREW_UP_MS)
        world.did = maintain(world.settings).did
        world.rows = rows
        yield world


def is_late(one):
    found = one["profile_id"] == hashed("child")
    return found or (one["profile_id"] == hashed("grown") and one["at_ms"] <= GREW_UP_MS)


@pytest.mark.parametrize("name", ["bronze.events", "silver.browse"])
def test_rows_of_the_child_lead_nowhere_and_no_other_row_changes(world, name):
    stored = read_all(world.lakehouse.existing(name), world.specs[name].schema).to_pylist()
    by_id = {one["event_id"]: one for one in stored}
    assert len(stored) == len(by_id) == len(world.rows)
    for before in world.rows:
        after = by_id[before["event_id"]]
        if not is_late(before):
            assert {column: after[column] for column in (*IDS, "viewer_token", "is_kids", *ALLOWED)} == {
                column: before[column] for column in (*IDS, "viewer_token", "is_kids", *ALLOWED)
            }
            continue
        assert [after[column] for column in IDS] == [None] * 4
        assert after["is_kids"]
        assert after["viewer_token"] == token(before["profile_id"], before["at_ms"])
        allows = before["profile_id"] != hashed("child"), True  # the child's parents have withdrawn one answer
        assert (after["consent_personalization"], after["consent_analytics"]) == allows
    assert world.did[f"{name}: rows of children found late, stripped"] == sum(map(is_late, world.rows))


def without_late(world):
    """The rows of the training set that stay, by the rows they are of."""
    return [one for one, of in zip(world.beside.rows, world.rows * 2, strict=True) if not is_late(of)]


def test_training_sets_lose_the_rows_of_the_child_and_of_sessions_that_were_its_own(world):
    kept = pa.Table.from_pylist(without_late(world), SET).to_pylist()
    assert 0 < len(kept) < len(world.beside.rows)
    assert world.beside.set_now("all") == kept
    assert {one["profile_id"] for one in world.beside.set_now("adults")} == {ADULT}
    manifest = json.loads((world.folder / "training_sets/all/manifest.json").read_text())
    assert manifest["rows"]["train"] == len(kept)
    assert world.did["training sets: rows of children found late, deleted"] == len(world.beside.rows) - len(kept)


def test_answers_values_and_the_streams_checkpoint_go_too(world):
    late = sum(map(is_late, world.rows))
    assert world.did["predictions: rows of children found late, deleted"] == late
    assert len(pq.read_table(world.beside.answers, partitioning=None)) == 72 - late
    with open_online_store(world.beside.url, readonly=True) as store:
        for group in (world.beside.group, "playback_sessions"):
            assert set(store.keys(group)) == {ADULT, hashed("grown")}
        assert len(set(store.keys("profiles"))) == 3  # by which the service knows whose they are
    assert list(world.settings.stream_folder.iterdir()) == []


def test_a_signed_receipt_lists_the_models_that_learnt_from_it_with_what_to_do(world):
    (path,) = (world.folder / "privacy/receipts").glob("children-found-late-*.json")
    said, late = checked(path).content, sum(map(is_late, world.rows))
    assert {name: one["rows"] for name, one in said["tables"].items()} == {"bronze.events": late, "silver.browse": late}
    assert said["training_sets"] == [{"training_set": "all", "rows": 2 * late}]
    (model,) = said["models"]
    assert (model["run"], world.did["models that learnt from children found late"]) == (world.beside.runs[0], 1)
    assert "reel train churn" in model["what_to_do"]
    assert all(hashed(name) not in path.read_text() for name in ("child", "grown", "owner-of-child"))


def test_no_byte_of_bronze_and_silver_tells_of_the_child(world):
    sessions = [one["session_id"] for one in world.rows if is_late(one)]
    names = [hashed("child"), hashed("owner-of-child"), *sessions]
    for layer in ("warehouse/bronze", "warehouse/silver", "training_sets", "predictions", "stream"):
        assert files_with(world.folder / layer, names) == {}


def test_there_is_nothing_left_to_do(world):
    assert "found late" not in str(maintain(world.settings).did)
    assert len(list((world.folder / "privacy/receipts").glob("children-found-late-*.json"))) == 1
