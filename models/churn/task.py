"""The churn task: will an account that is active at an instant cancel within the 30 days after it?"""

from features.purposes import Purpose
from models.churn.features import COLUMNS
from models.churn.judging import evaluate, logistic_log_loss, row_log_loss
from models.churn.model import ChurnConfig
from models.churn.training import ACCOUNT, BASELINE, INSTANT, LABEL, WATCHED, WEIGHT, ChurnTraining
from models.task import Column, Gate, Signature, Task, instants_ms

_LISTS, _TEXTS = ("user_viewing_history__viewing_hours_per_dow",), ("user_viewing_history__preferred_content_type",)

TASK = Task(
    name="churn",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=(ACCOUNT, INSTANT, *COLUMNS, WEIGHT, LABEL),
    configure=ChurnConfig.from_dict,
    start=ChurnTraining,
    evaluate=evaluate,
    gate=Gate(
        metric="log_loss",
        higher_is_better=False,
        values=row_log_loss,
        baseline="logistic regression",
        baseline_values=logistic_log_loss,
        unit=ACCOUNT,
        label_ms=instants_ms,
    ),
    loader="models.churn.pyfunc",
    signature=Signature(
        inputs=tuple(
            Column(name, "string" if name in _TEXTS else "double", many=name in _LISTS, optional=True)
            for name in COLUMNS
        ),
        outputs=(
            Column("probability", "double"),
            Column("reasons", "string", many=True),
            Column("reasons_log_odds", "double", many=True),
        ),
        parameters={"reasons": 3},
    ),
    training_set="models.churn.training_set:TRAINING_SET",
    library="xgboost",
    search_space={"depth": (3, 4, 6), "lr": (0.03, 0.05, 0.1), "leaf_weight": (1.0, 5.0, 20.0), "ridge": (1.0, 10.0)},
    loss="training loss (nats per row)",
)
