"""Built again from the manifest: the same bytes, or what went and why, or one line that says what is gone."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from pyiceberg.table.update.snapshot import ExpireSnapshots
from typer.testing import CliRunner

from models.errors import UnknownModelError
from pipelines.clean import clean
from pipelines.cli import app
from pipelines.ingest import ingest
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import SnapshotGoneError
from pipelines.lakehouse.transactions import LeanTransaction
from pipelines.training_sets import BuiltTrainingSet, build, rebuild
from pipelines.training_sets.named import NotDeclaredError
from pipelines.training_sets.rebuilding import DeclaredOtherwiseError
from tests.pipelines.registry import empty_mlflow
from tests.pipelines.training_sets.test_build import rows_of
from tests.pipelines.training_sets.world import CHURN, LEAVER, RANKER, VIEWERS
from tests.platform import DAY, T0, Platform, consent, hashed, looked_around, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def sets(platform) -> dict[str, BuiltTrainingSet]:
    return {one.name: build(platform.settings, one) for one in (CHURN, RANKER)}


def kept_bytes(one: BuiltTrainingSet) -> dict[str, bytes]:
    return {str(path.relative_to(one.folder)): path.read_bytes() for path in one.folder.rglob("*") if path.is_file()}


def test_after_more_has_come_the_same_bytes_are_built_again(platform, sets, tmp_path):
    """New events, a new consent that allows, other logs: nothing of that is as of the recorded snapshots."""
    before = {name: kept_bytes(one) for name, one in sets.items()}
    manifests = {}
    for name, one in sets.items():
        manifests[name] = tmp_path / f"{name}.json"
        shutil.copy(one.folder / "manifest.json", manifests[name])
        shutil.rmtree(one.folder)
    late = T0 + 20 * DAY
    platform.send(
        *watched(VIEWERS[7], "vod-3", late, 95.0), *looked_around(VIEWERS[7], "vod-3", late),
        consent(VIEWERS[8], late),
    )  # fmt: skip
    ingest(platform.settings)
    clean(platform.settings)
    anew = build(platform.settings, CHURN)
    assert anew.folder != sets["churn"].folder
    for name, manifest in manifests.items():
        rebuilt = rebuild(platform.settings, manifest)
        assert rebuilt.is_same
        assert rebuilt.difference == {}
        assert rebuilt.built.folder == sets[name].folder
        assert kept_bytes(rebuilt.built) == before[name]
        assert "the same bytes" in rebuilt.words


def reel(platform: Platform, *command: str) -> str:
    environ = {"REEL_WORK_DIR": str(platform.settings.work_dir)}
    done = CliRunner().invoke(app, ["training-set", *command], env=environ, standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


def test_the_command_line_builds_and_builds_again(platform, sets, tmp_path):
    said = json.loads(reel(platform, "rebuild", str(sets["churn"].folder / "manifest.json"), "--json"))
    assert said == {"folder": str(sets["churn"].folder), "is_same": True, "difference": {}, "made_otherwise": {}}
    built_now = json.loads(reel(platform, "build", "tests.pipelines.training_sets.world:CHURN", "--json"))
    one = BuiltTrainingSet.read(Path(built_now["folder"]))
    assert built_now["train rows"] == one.rows["train"] > 0
    for wrong, said in (
        (":CHURN", "give MODULE:NAME"),
        ("no.module:CHURN", "No module named"),
        ("tests.platform:T0", "is a int, not a TrainingSet"),
        ("tests.platform:X", "no attribute"),
    ):
        with pytest.raises(NotDeclaredError, match=said):
            reel(platform, "build", wrong)
    with pytest.raises(UnknownModelError, match=r"chrun.*churn"):
        reel(platform, "build", "chrun")


def test_it_is_told_to_mlflow(sets, tmp_path):
    one = sets["ranker"]
    mlflow.set_tracking_uri(empty_mlflow(tmp_path))
    try:
        mlflow.create_experiment("ranker", artifact_location=str(tmp_path / "artifacts"))
        with mlflow.start_run(experiment_id=mlflow.get_experiment_by_name("ranker").experiment_id) as run:
            one.log_to_mlflow()
        told = mlflow.get_run(run.info.run_id)
    finally:
        mlflow.set_tracking_uri(None)
    (logged,) = told.inputs.dataset_inputs
    assert logged.dataset.name == "ranker"
    assert one.digest.startswith(logged.dataset.digest)
    assert json.loads(logged.dataset.source)["uri"] == str(one.folder)
    assert json.loads(logged.dataset.profile)["rows"] == one.rows
    assert json.loads(logged.dataset.schema)["hash"] == one.manifest["schema_hash"]
    assert [tag.value for tag in logged.tags] == ["training"]
    assert told.data.tags["training_set.purpose"] == "personalization"
    snapshot = one.manifest["snapshots"]["features.viewing_log_by_profile_id"]
    assert told.data.tags["training_set.snapshot.features.viewing_log_by_profile_id"] == str(snapshot)
    assert (tmp_path / "artifacts" / run.info.run_id / "artifacts" / "training_set" / "manifest.json").is_file()


def test_who_withdrew_since_is_left_out_and_the_difference_says_so(platform, sets):
    mine = {name: [row for row in rows_of(one) if row["user_id"] == hashed(LEAVER)] for name, one in sets.items()}
    assert all(mine.values())
    platform.send(consent(LEAVER, T0 + 90 * DAY, allows_personalization=False))
    ingest(platform.settings)
    clean(platform.settings)
    for name, one in sets.items():
        rebuilt = rebuild(platform.settings, one.folder / "manifest.json")
        assert not rebuilt.is_same
        got, before = rows_of(rebuilt.built), rows_of(one)
        assert got == [row for row in before if row["user_id"] != hashed(LEAVER)], "nobody else's row moves"
        difference = dict(rebuilt.difference)
        for split in one.rows:
            assert difference.pop(f"rows.{split}", 0) == -sum(row["split"] == split for row in mine[name])
        assert difference.pop("withdrawn_since") > 0
        drawn = difference.pop("counts.drawn", 0)
        assert drawn == -sum(row.get("is_drawn", False) for row in mine[name])
        assert all(count < 0 for count in difference.values()), "what he was left out for before"
        assert sum(rebuilt.difference.values()) == 2 * drawn
        assert "withdrawn_since +" in rebuilt.words
        assert rebuilt.built.folder != one.folder
        assert rebuilt.built.manifest["difference"] == rebuilt.difference
        # What was built again can be built again.
        assert rebuild(platform.settings, rebuilt.built.folder / "manifest.json").is_same


def test_features_that_mean_something_else_by_now_are_refused(platform, sets, tmp_path):
    manifest = json.loads((sets["churn"].folder / "manifest.json").read_text())
    manifest["feature_fingerprints"]["churn_signals"] = "0" * 16
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DeclaredOtherwiseError, match=r"churn_signals is declared otherwise than when churn was built"):
        rebuild(platform.settings, tmp_path / "manifest.json")


def test_an_expired_snapshot_says_so_and_stops(platform, sets):
    """Last: it takes the snapshots away."""
    one = sets["churn"]
    name = "features.accounts_by_user_id"
    table = Lakehouse.open(platform.settings).existing(name)
    build(platform.settings, CHURN)  # the log has moved on, so that the recorded snapshot is not the current one
    table = Lakehouse.open(platform.settings).existing(name)
    recorded = one.manifest["snapshots"][name]
    assert table.metadata.current_snapshot_id != recorded
    ExpireSnapshots(LeanTransaction(table, autocommit=True)).by_ids([recorded]).commit()
    before = sorted(path.name for path in one.folder.parent.iterdir())
    with pytest.raises(SnapshotGoneError, match=rf"{name} no longer has snapshot {recorded}: it has expired") as said:
        rebuild(platform.settings, one.folder / "manifest.json")
    assert "\n" not in str(said.value)
    assert sorted(path.name for path in one.folder.parent.iterdir()) == before, "nothing is left lying about"
