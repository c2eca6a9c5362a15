"""The ranker's task: from a viewer, a title and the moment to whether it is watched past the half when shown."""

from features.purposes import Purpose
from models.ranker.features import CONTEXT_NUMBERS, GENRES, TITLE, TITLE_NUMBERS, VIEWER_NUMBERS
from models.ranker.judging import NDCG, evaluate, label_ms, ndcg, shown_ndcg
from models.ranker.model import RankerConfig
from models.ranker.shown import COLUMNS
from models.ranker.training import BASELINE, WATCHED, RankerTraining
from models.task import Column, Gate, Signature, Task

TASK = Task(
    name="ranker",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=COLUMNS,
    configure=RankerConfig.from_dict,
    start=RankerTraining,
    evaluate=evaluate,
    gate=Gate(
        metric=NDCG,
        higher_is_better=True,
        values=ndcg,
        baseline="the order shown",
        baseline_values=shown_ndcg,
        unit="profile_id",
        label_ms=label_ms,
    ),
    loader="models.ranker.pyfunc",
    signature=Signature(
        inputs=(
            Column(TITLE, "string"),
            Column(GENRES, "string", many=True),
            *(
                Column(name, "double", optional=True)
                for numbers in (VIEWER_NUMBERS, TITLE_NUMBERS, CONTEXT_NUMBERS)
                for name in numbers.values()
            ),
        ),
        outputs=(Column("score", "double"),),
    ),
    training_set="models.ranker.training_set:TRAINING_SET",
    library="lightgbm",
    loss="1 - NDCG@10 of what is learnt",
    cadence_hours=6,
    search_space={
        "leaves": (4, 7, 15, 31),
        "lr": (0.03, 0.05, 0.1),
        "least_tiles_per_leaf": (50, 200, 500),
        "l2": (5.0, 20.0),
    },
)
