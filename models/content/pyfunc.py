"""The door through which MLflow loads a saved content model: `mlflow.pyfunc.load_model("models:/content/1")`."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.content.recommender import ContentRecommender
from models.content.watches import HISTORY

DEFAULT_TITLES = 10


class ServedContent:
    """A content model in MLflow's shape: columns in, columns out."""

    def __init__(self, recommender: ContentRecommender) -> None:
        self.recommender = recommender

    def predict(
        self, model_input: Mapping[str, Sequence[Sequence[str] | None]], params: Mapping[str, Any] | None = None
    ) -> dict[str, list[list[str]] | list[list[float]]]:
        """For every list of content ids in the column `HISTORY`, titles and their probabilities.

        `params["k"]` is how many titles (10).
        """
        histories = [[] if history is None else list(history) for history in model_input[HISTORY]]
        answers = self.recommender.recommend(histories, int((params or {}).get("k", DEFAULT_TITLES)))
        return {
            "content_ids": [[content_id for content_id, _ in answer] for answer in answers],
            "probabilities": [[probability for _, probability in answer] for answer in answers],
        }


def _load_pyfunc(path: str) -> ServedContent:
    return ServedContent(ContentRecommender.load(path))
