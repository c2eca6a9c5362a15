"""The recommender's task: from the titles a viewer finished before an instant to the title finished next."""

from features.purposes import Purpose
from models.recommendation.batches import COLUMNS
from models.recommendation.model import RecommenderConfig
from models.recommendation.training import BASELINE, WATCHED, RecommenderTraining
from models.task import Task

TASK = Task(
    name="recommendation",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=COLUMNS,
    configure=RecommenderConfig.from_dict,
    start=RecommenderTraining,
    loader="models.recommendation.pyfunc",
)
