"""The gate where less is better: log loss, row by row, against the logistic regression, then against the champion."""

from pathlib import Path

import pyarrow.parquet as pq
from mlflow.entities.model_registry import ModelVersion

from models.churn.task import TASK
from models.task import Place
from models.training_set import read_manifest
from pipelines.evaluate import evaluate
from pipelines.publish import publish
from pipelines.signature import mlflow_signature
from pipelines.tracking import Tracking
from tests.models.churn.planted import DAY_MS, START_MS, write_training_set
from tests.pipelines.registry import empty_mlflow


def register(tracking: Tracking, folder: Path, epochs: int) -> ModelVersion:
    """A version of so many blocks of rounds, trained in this process."""
    manifest = read_manifest(folder)
    rows = [pq.read_table(folder / f"split={split}", partitioning=None) for split in ("train", "validation")]
    configuration = TASK.configure({"epochs": epochs, "patience": epochs, "rounds_per_epoch": 3 if epochs == 1 else 20})
    training = TASK.start(configuration, manifest, *rows, Place(threads=1))
    while not training.done:
        training.epoch()
    training.best().save(folder / "saved")
    run_id = tracking.open_run(TASK.name, f"{folder.name} {epochs}", {})
    tags = {
        "training_set": str(folder),
        "training_set_digest": manifest.digest,
        "label_horizon_ms": str(manifest.label_horizon_ms),
    }
    signature = mlflow_signature(TASK.signature)
    return tracking.register(TASK.name, run_id, folder / "saved", TASK.loader, signature, tags)


def test_who_loses_less_takes_over_and_who_loses_more_does_not(tmp_path: Path) -> None:
    uri = empty_mlflow(tmp_path)
    tracking = Tracking(uri)
    for name, epochs, start_ms, decision, opponent, said in (
        ("young", 1, START_MS, "refused", "logistic regression", "not better by more than noise: log_loss"),
        ("grown", 6, START_MS, "published", "logistic regression", "better by more than noise: log_loss"),
        ("again", 1, START_MS, "refused", "version 2", "of 800 users"),
        ("early", 6, START_MS - 30 * DAY_MS, "refused", "version 2", "no test row of the candidate is later"),
    ):
        write_training_set(tmp_path / name, accounts=800, start_ms=start_ms)
        version = register(tracking, tmp_path / name, epochs)
        evaluate(TASK.name, tracking_uri=uri)
        report = publish(TASK.name, tracking_uri=uri)
        assert (report.did["decision"], report.read["opponent"]) == (decision, opponent), report.did["reason"]
        assert said in str(report.did["reason"])
        tags = tracking.version(TASK.name, str(version.version)).tags
        assert tags["gate.metric"] == "log_loss"
        if "gate.gain_low" in tags:
            assert (float(tags["gate.gain_low"]) > 0) == (decision == "published")
    aliases = tracking.client.get_registered_model(TASK.name).aliases
    assert {name: str(version) for name, version in aliases.items()} == {"champion": "2", "challenger": "4"}
