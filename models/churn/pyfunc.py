"""The door through which MLflow loads a saved churn model: `mlflow.pyfunc.load_model("models:/churn/1")`."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from models.churn.scorer import ChurnScorer

DEFAULT_REASONS = 3


class ServedChurn:
    """A churn model in MLflow's shape: columns in, columns out."""

    def __init__(self, scorer: ChurnScorer) -> None:
        self.scorer = scorer

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
        """For every row of a frame of features its probability of cancelling, and what drives it.

        A column that is not there, or null, is a feature that nobody knows. `params["reasons"]` is how many (3).
        """
        rows = self._rows(model_input)
        reasons = self.scorer.reasons(rows, int((params or {}).get("reasons", DEFAULT_REASONS)))
        return {
            "probability": self.scorer.probabilities(rows).tolist(),
            "reasons": [[one.feature for one in row] for row in reasons],
            "reasons_log_odds": [[one.log_odds for one in row] for row in reasons],
        }

    def _rows(self, model_input: Any) -> pa.Table:
        count = len(next(iter(model_input.values()))) if isinstance(model_input, dict) else len(model_input)
        columns = {
            name: pa.array(list(model_input[name]), from_pandas=True) if name in model_input else pa.nulls(count)
            for name in self.scorer.encoding.columns
        }
        return pa.table(columns)


def _load_pyfunc(path: str) -> ServedChurn:
    return ServedChurn(ChurnScorer.load(path))
