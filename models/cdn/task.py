"""The routing task: how well will a session go over each network, and which should it go over?

The gate is the off-policy value: a candidate is published only if the log of choices says that its policy earns more
than the champion's, or first of all than the policy that made the log, by more than noise.
"""

from features.purposes import Purpose
from models.cdn.features import COLUMNS, NETWORK, REGION
from models.cdn.judging import evaluate, row_values, running_values
from models.cdn.quality import QualityConfig
from models.cdn.rows import ACCOUNT, READ
from models.cdn.training import BASELINE, WATCHED, QualityTraining
from models.task import Column, Gate, Signature, Task, instants_ms

_TEXTS = (NETWORK, REGION, "session_context__device_type", "session_context__connection_type")

TASK = Task(
    name="cdn",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=READ,
    configure=QualityConfig.from_dict,
    start=QualityTraining,
    evaluate=evaluate,
    gate=Gate(
        metric="off_policy_value",
        higher_is_better=True,
        values=row_values,
        baseline="the policy that made the log",
        baseline_values=running_values,
        unit=ACCOUNT,
        label_ms=instants_ms,
    ),
    loader="models.cdn.pyfunc",
    signature=Signature(
        inputs=(
            *(Column(name, "string" if name in _TEXTS else "double", optional=name != NETWORK) for name in COLUMNS),
            Column("request", "string", optional=True),
        ),
        outputs=(Column("score", "double"), Column("probability", "double")),
    ),
    training_set="models.cdn.training_set:TRAINING_SET",
    library="lightgbm",
    loss="training loss (squared points of the score per playback)",
    cadence_hours=1,
    search_space={"lr": (0.03, 0.05, 0.1), "leaves": (15, 31, 63), "leaf_rows": (20, 50, 200), "ridge": (1.0, 10.0)},
)
