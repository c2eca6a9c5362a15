"""The door through which MLflow loads a saved ranker: `mlflow.pyfunc.load_model("models:/ranker/1")`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from models.ranker.features import KINDS, TITLE
from models.ranker.ranker import Ranker


class ServedRanker:
    """A ranker in MLflow's shape: columns in, columns out."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, list[float]]:
        """The column `score` of candidates in columns by name, as in `KINDS`; the higher, the earlier to be shown."""
        ids = list(model_input[TITLE])
        columns = {name: pa.nulls(len(ids), kind) for name, kind in KINDS.items()}
        columns |= {name: _array(model_input[name], kind) for name, kind in KINDS.items() if name in model_input}
        return {"score": self.ranker.score(pa.table(columns)).tolist()}


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    """A column of a frame or of a mapping; NaN is null, an array a list."""
    plain = [one.tolist() if isinstance(one, np.ndarray) else one for one in values]
    return pa.array([None if isinstance(one, float) and np.isnan(one) else one for one in plain], kind)


def _load_pyfunc(path: str) -> ServedRanker:
    return ServedRanker(Ranker.load(path))
