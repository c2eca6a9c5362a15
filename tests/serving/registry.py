"""A real MLflow registry (SQLite) with a real, tiny recommender."""

from pathlib import Path

import mlflow
import torch

from models.recommendation.batches import Vocabulary
from models.recommendation.model import RecommenderConfig, SASRec
from models.recommendation.recommender import Recommender
from tests.serving.platform import TITLES

NAME, ALIAS = "recommendation", "champion"


def make_recommender(folder: Path, seed: int) -> Recommender:
    """An untrained model: its answers are arbitrary, and the same every time."""
    torch.manual_seed(seed)
    config = RecommenderConfig.from_dict({"dim": 8, "heads": 2, "blocks": 1, "max_length": 10})
    recommender = Recommender(SASRec(len(TITLES), config), Vocabulary(TITLES))
    recommender.save(folder)
    return recommender


def publish(tracking_uri: str, artifacts: Path, folder: Path) -> str:
    """Register the model in `folder` and make it the champion; its version."""
    client = mlflow.MlflowClient(tracking_uri, tracking_uri)
    experiment = client.get_experiment_by_name("serving tests")
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment("serving tests", artifact_location=artifacts.as_uri())
    )
    run = client.create_run(experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "recommender")
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    source = f"{run.info.artifact_uri}/recommender"
    version = client.create_model_version(NAME, source, run.info.run_id).version
    client.set_registered_model_alias(NAME, ALIAS, version)
    client.set_terminated(run.info.run_id)
    return str(version)
