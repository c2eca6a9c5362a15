"""The recommender's task: from the titles a viewer finished before an instant to the title finished next."""

from features.purposes import Purpose
from models.recommendation.batches import COLUMNS
from models.recommendation.judging import NDCG, VIEWER, evaluate, label_ms, ndcg, popularity_ndcg
from models.recommendation.model import RecommenderConfig
from models.recommendation.training import BASELINE, WATCHED, RecommenderTraining
from models.task import Column, Gate, Signature, Task

TASK = Task(
    name="recommendation",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=COLUMNS,
    configure=RecommenderConfig.from_dict,
    start=RecommenderTraining,
    evaluate=evaluate,
    gate=Gate(
        metric=NDCG,
        higher_is_better=True,
        values=ndcg,
        baseline="popularity",
        baseline_values=popularity_ndcg,
        unit=VIEWER,
        label_ms=label_ms,
    ),
    loader="models.recommendation.pyfunc",
    signature=Signature(
        inputs=(Column("history", "string", many=True),),
        outputs=(Column("content_ids", "string", many=True), Column("probabilities", "double", many=True)),
        parameters={"k": 10},
    ),
    needs=("catalogue", "popularity"),
)
