"""The door through which MLflow loads a saved cascade: `mlflow.pyfunc.load_model("models:/cascade/1")`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.cascade.cascade import Asked, Cascade
from models.cascade.folder import load
from models.cascade.signature import HISTORY
from models.ranker.features import KINDS

DEFAULT_TITLES = 10


class ServedCascade:
    """A cascade in MLflow's shape: columns in, columns out."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
        """A page for every viewer: `content_ids`, the `scores` they were ranked by, `reasons` if it could be better.

        The column `history` lists content ids, oldest first; any other columns are features of the viewer and the
        moment as the ranker calls them. `params["k"]` is how many titles (10).
        """
        histories = [_plain(one) or [] for one in model_input[HISTORY]]
        features = {name: [_plain(one) for one in model_input[name]] for name in KINDS if name in model_input}
        asked = [
            Asked(history, {name: values[row] for name, values in features.items() if values[row] is not None})
            for row, history in enumerate(histories)
        ]
        pages = self.cascade.recommend(asked, int((params or {}).get("k", DEFAULT_TITLES)))
        return {
            "content_ids": [[name for name, _ in page.titles] for page in pages],
            "scores": [[score for _, score in page.titles] for page in pages],
            "reasons": [list(page.reasons) for page in pages],
        }


def _plain(value: Any) -> Any:
    """A cell of a frame or a mapping: NaN is unknown, an array a list."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and np.isnan(value) else value


def _load_pyfunc(path: str) -> ServedCascade:
    return ServedCascade(load(path))
