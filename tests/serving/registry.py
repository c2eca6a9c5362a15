"""A real MLflow registry (SQLite) with real, tiny models."""

import importlib
import uuid
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.recommendation.batches import Vocabulary
from models.recommendation.model import RecommenderConfig, SASRec
from models.recommendation.recommender import Recommender
from models.task import Place, load_task, model_names
from models.training_set import read_manifest
from pipelines.signature import mlflow_signature
from pipelines.tracking import Tracking
from tests.serving.platform import TITLES

NAME, ALIAS = "recommendation", "champion"


def make_recommender(folder: Path, seed: int) -> Recommender:
    """An untrained model: its answers are arbitrary, and the same every time."""
    torch.manual_seed(seed)
    config = RecommenderConfig.from_dict({"dim": 8, "heads": 2, "blocks": 1, "max_length": 10})
    recommender = Recommender(SASRec(len(TITLES), config), Vocabulary(TITLES))
    recommender.save(folder)
    return recommender


def train(model: str, folder: Path, **configuration: object) -> None:
    """Train a model for one epoch on the planted truth of its own tests, and save it into `folder`."""
    task, planted = load_task(model), folder.parent / f"{folder.name}-set"
    importlib.import_module(f"tests.models.{model}.planted").write_training_set(planted)
    rows = {
        split: pa.concat_tables(
            pq.read_table(path, partitioning=None, columns=list(task.columns))
            for path in sorted((planted / f"split={split}").glob("*.parquet"))
        )
        for split in ("train", "validation")
    }
    manifest = read_manifest(planted, task.needs)
    configured = task.configure({"epochs": 1, **configuration})
    training = task.start(configured, manifest, rows["train"], rows["validation"], Place(threads=1))
    training.epoch()
    training.best().save(folder)


def publish(tracking_uri: str, folder: Path, *, model: str = NAME, alias: str = ALIAS) -> str:
    """Register the model in `folder` as the road does, and give it the alias; its version."""
    return publish_folder(tracking_uri, folder, model, load_task(model).loader, alias=alias)


def publish_folder(tracking_uri: str, folder: Path, model: str, loader: str, *, alias: str = ALIAS) -> str:
    """The same of any folder, whether a model is in it or not."""
    tracking, signature = Tracking(tracking_uri), load_task(NAME).signature
    if model in model_names():
        signature = load_task(model).signature
    run_id = tracking.open_run("serving tests", f"{model}-{uuid.uuid4()}", {})
    version = tracking.register(model, run_id, folder, loader, mlflow_signature(signature), {})
    tracking.set_alias(version, alias)
    tracking.client.update_model_version(model, version.version, f"# {model} {version.version}")
    tracking.end_run(run_id, "FINISHED")
    return str(version.version)


def withdraw(tracking_uri: str, *, model: str = NAME, alias: str = ALIAS) -> None:
    """Take the alias away."""
    mlflow.MlflowClient(tracking_uri, tracking_uri).delete_registered_model_alias(model, alias)


def give(tracking_uri: str, version: str, *, model: str = NAME, alias: str = ALIAS) -> None:
    """Give the alias to a version that is there."""
    mlflow.MlflowClient(tracking_uri, tracking_uri).set_registered_model_alias(model, alias, version)
