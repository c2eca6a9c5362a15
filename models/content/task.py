"""The content model's task: from what is written of a title to who watches it."""

from features.purposes import Purpose
from models.content.judging import NDCG, evaluate, label_ms, ndcg, popularity_ndcg
from models.content.model import ContentConfig
from models.content.training import BASELINE, WATCHED, ContentTraining
from models.content.watches import COLUMNS, HISTORY, VIEWER
from models.task import Column, Gate, Signature, Task

TASK = Task(
    name="content",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=COLUMNS,
    configure=ContentConfig.from_dict,
    start=ContentTraining,
    evaluate=evaluate,
    gate=Gate(
        metric=NDCG,
        higher_is_better=True,
        values=ndcg,
        baseline="genre popularity",
        baseline_values=popularity_ndcg,
        unit=VIEWER,
        label_ms=label_ms,
    ),
    loader="models.content.pyfunc",
    signature=Signature(
        inputs=(Column(HISTORY, "string", many=True),),
        outputs=(Column("content_ids", "string", many=True), Column("probabilities", "double", many=True)),
        parameters={"k": 10},
    ),
    training_set="models.content.training_set:TRAINING_SET",
    loss="training loss (nats per viewer)",
    search_space={
        "dim": (16, 32, 64),
        "lr": (1e-3, 3e-3, 1e-2),
        "dropout": (0.3, 0.5),
        "weight_decay": (0.01, 0.1, 0.3),
    },
)
