"""How a saved cascade is asked."""

from models.ranker.features import CONTEXT_NUMBERS, VIEWER_NUMBERS
from models.task import Column, Signature

HISTORY = "history"
SIGNATURE = Signature(
    inputs=(
        Column(HISTORY, "string", many=True),
        *(Column(name, "double", optional=True) for name in (*VIEWER_NUMBERS.values(), *CONTEXT_NUMBERS.values())),
    ),
    outputs=(
        Column("content_ids", "string", many=True),
        Column("scores", "double", many=True),
        Column("reasons", "string", many=True),
    ),
    parameters={"k": 10},
)
