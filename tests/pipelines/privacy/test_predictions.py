"""The prediction log keeps no longer than it is to, and nothing of a profile that turns out to be a child's."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.maintain import maintain
from pipelines.privacy import predictions
from pipelines.privacy.person import Person
from pipelines.settings import Settings
from pipelines.settings_serving import PredictionSettings, ServedFeatureSettings, ServingSettings
from serving import answer_log, prediction_log
from tests.pipelines.privacy.world import World, hashed


def write(folder: Path, day: str, profiles: list[str], name: str = "some-000000") -> Path:
    rows = [{"at": 0, "profile_id": hashed(one), "prediction": "{}"} for one in profiles]
    path = folder / f"date={day}" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, prediction_log.SCHEMA), path)
    return path


def test_both_ends_mean_the_same_lock():
    assert predictions.LOCK_FILE == answer_log.LOCK_FILE


@pytest.mark.parametrize(("age_days", "goes"), [(0, False), (29.9, False), (30, True), (400, True)])
def test_a_day_goes_when_its_last_instant_is_past_the_limit(tmp_path, age_days, goes):
    end = datetime(2026, 3, 2, tzinfo=UTC)
    path = write(tmp_path, "2026-03-01", ["a", "b"])
    now_ms = int((end + timedelta(days=age_days)).timestamp() * 1000)
    assert predictions.expire(tmp_path, 30, now_ms) == (2 if goes else 0)
    assert path.exists() != goes


def profiles_of(folder: Path) -> list[str]:
    files = predictions.files_of(folder)
    return sorted(one for file in files for one in pq.read_table(file, partitioning=None)["profile_id"].to_pylist())


def test_a_day_that_is_over_becomes_one_file_also_after_a_kill(tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path, "2026-03-01", [f"a-{number}", "b"], f"some-{number:06d}")
        write(tmp_path, "2026-03-02", [f"c-{number}"], f"some-{number:06d}")
    before, today = profiles_of(tmp_path), date(2026, 3, 2)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            predictions.put_together(tmp_path, today)
    assert predictions.put_together(tmp_path, today) == 4  # what the file of the killed run holds is deleted
    assert profiles_of(tmp_path) == before
    assert [path.parent.name for path in predictions.files_of(tmp_path)] == ["date=2026-03-01"] + [
        "date=2026-03-02"
    ] * 4
    write(tmp_path, "2026-03-01", ["late"], "other-000000")
    assert predictions.put_together(tmp_path, today) == 1
    assert profiles_of(tmp_path) == sorted([*before, hashed("late")])
    assert predictions.put_together(tmp_path, today) == 0


def test_maintenance_keeps_neither_old_days_nor_children_found_late(ray_session, tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", "the first salt of all,the salt of today")
    world = World(tmp_path)
    days, fewer = PredictionSettings(retention_days=10), ServedFeatureSettings(retention_days=10)
    chosen = ServingSettings(predictions=days, served_features=fewer)
    settings: Settings = world.settings.model_copy(update={"serving": chosen})
    folder = settings.predictions_folder
    write(folder, "2020-01-01", ["adult"] * 3)
    write(settings.served_features_folder, "2020-01-01", ["adult"] * 2)
    write(settings.served_features_folder, f"{datetime.now(UTC):%Y-%m-%d}", ["adult", "child"])
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    path = write(folder, today, ["adult", "child", "adult", "child"])
    world.describe("owner", "adult")
    world.describe("owner", "child")
    did = maintain(settings).did
    assert (did["predictions: rows past their retention"], did["served features: rows past their retention"]) == (3, 2)
    assert pq.read_metadata(path).num_rows == 4
    who = {"user_id": hashed("owner"), "profile_id": hashed("child")}
    world.append("privacy.profiles", {**who, "is_kids": True, "at_ms": int(datetime.now(UTC).timestamp() * 1000)})
    did = maintain(settings).did
    assert did["predictions: rows of children found late, deleted"] == 2
    assert did["served features: rows of children found late, deleted"] == 1
    assert pq.read_table(path, partitioning=None)["profile_id"].to_pylist() == [hashed("adult")] * 2
    assert "predictions" not in str(maintain(settings).did)
    assert list(predictions.rows_of([path], Person(profile_ids=frozenset({hashed("nobody")})))) == []
