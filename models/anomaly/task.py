"""The anomaly task: how is the next value of a metric distributed, given the values before it?"""

from features.purposes import Purpose
from models.anomaly.judging import evaluate, row_log_density, seasonal_log_density
from models.anomaly.shape import ShapeConfig
from models.anomaly.training import BASELINE, INSTANT, SEGMENT, VALUE, WATCHED, AnomalyTraining
from models.task import Column, Gate, Signature, Task, instants_ms

TASK = Task(
    name="anomaly",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=(SEGMENT, INSTANT, VALUE),
    configure=ShapeConfig.from_dict,
    start=AnomalyTraining,
    evaluate=evaluate,
    gate=Gate(
        metric="log_density",
        higher_is_better=True,
        values=row_log_density,
        baseline="the seasonal baseline",
        baseline_values=seasonal_log_density,
        unit=SEGMENT,
        label_ms=instants_ms,
    ),
    loader="models.anomaly.pyfunc",
    signature=Signature(
        inputs=(
            Column(SEGMENT, "string"),
            Column("at_ms", "long", optional=True),
            Column("history", "double", many=True, optional=True),
            Column(VALUE, "double", optional=True),
        ),
        outputs=(
            Column("expected", "double"),
            Column("low", "double"),
            Column("high", "double"),
            Column("score", "double"),
        ),
    ),
    training_set="models.anomaly.training_set:TRAINING_SET",
    loss="training loss (nats per scaled value)",
    cadence_hours=168,
    search_space={
        "lr": (1e-3, 3e-3, 1e-2),
        "length": (24, 48, 96),
        "channels": (8, 16, 32),
        "weight_decay": (1e-3, 1e-2),
    },
)
