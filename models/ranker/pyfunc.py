"""The door through which MLflow loads a saved ranker: `mlflow.pyfunc.load_model("models:/ranker/1")`."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from models.ranker.ranker import Ranker


class ServedRanker:
    """A ranker in MLflow's shape: columns in, columns out."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, list[float]]:
        """The column `score` of the candidates in the columns of `models.ranker.features`: an Arrow table, or
        columns by name.
        """
        rows = model_input if isinstance(model_input, pa.Table) else pa.table({k: list(model_input[k]) for k in model_input})
        return {"score": self.ranker.score(rows).tolist()}


def _load_pyfunc(path: str) -> ServedRanker:
    return ServedRanker(Ranker.load(path))
