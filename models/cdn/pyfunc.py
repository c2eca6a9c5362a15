"""The door through which MLflow loads a saved routing model: `mlflow.pyfunc.load_model("models:/cdn/1")`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from models.cdn.policy import inverse_gap
from models.cdn.quality import HIGHEST_SCORE, QualityModel

REQUEST = "request"
"""Rows of the same request are the networks that one session can go over."""


class ServedRouting:
    """A routing model in MLflow's shape: columns in, columns out."""

    def __init__(self, model: QualityModel) -> None:
        self.model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, list[float]]:
        """For every network of a request its expected score and the probability to choose it with.

        A column that is not there, or null, is a feature that nobody knows. Without `request` all rows are of one.
        """
        count = len(next(iter(model_input.values()))) if isinstance(model_input, dict) else len(model_input)
        scores = self.model.scores(self._rows(model_input, count))
        requests = np.array([str(one) for one in model_input[REQUEST]] if REQUEST in model_input else [""] * count)
        probabilities = np.empty(count)
        for request in np.unique(requests):
            mine = requests == request
            expected = scores[None, mine] / HIGHEST_SCORE
            probabilities[mine] = inverse_gap(expected, np.ones(expected.shape, bool), self.model.gamma)[0]
        return {"score": scores.tolist(), "probability": probabilities.tolist()}

    def _rows(self, model_input: Any, count: int) -> pa.Table:
        return pa.table(
            {
                name: pa.array(list(model_input[name]), from_pandas=True) if name in model_input else pa.nulls(count)
                for name in self.model.encoding.columns
            }
        )


def _load_pyfunc(path: str) -> ServedRouting:
    return ServedRouting(QualityModel.load(path))
