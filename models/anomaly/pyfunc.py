"""The door through which MLflow loads a saved anomaly model: `mlflow.pyfunc.load_model("models:/anomaly/1")`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.anomaly.forecaster import Forecaster


class ServedForecaster:
    """An anomaly model in MLflow's shape: columns in, columns out."""

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
        """For every row what is expected, the 95 % band, and how strange the value is that came.

        `history` are the last values of the segment, oldest first, `at_ms` is when the next one comes; without, it is
        what comes after the past that the model keeps. `score` is -log10 of the probability of a value at least as far
        out; None where no value is given.
        """
        segments = list(model_input["channel_id"])
        instants, histories, values = (
            list(model_input[name]) if name in model_input else [None] * len(segments)
            for name in ("at_ms", "history", "tune_ins")
        )
        answers: dict[str, list[Any]] = {name: [] for name in ("expected", "low", "high", "score")}
        for segment, at_ms, history, value in zip(segments, instants, histories, values, strict=True):
            context = self.forecaster.expected(segment, _whole(at_ms), None if history is None else list(history))
            given = self.forecaster.predicted(context)
            (low,), (high,) = given.band()
            answers["expected"].append(float(given.location[0]))
            answers["low"].append(float(low))
            answers["high"].append(float(high))
            is_given = value is not None and not math.isnan(value)
            answers["score"].append(-math.log10(given.tail(np.array([float(value)]))[0]) if is_given else None)
        return answers


def _whole(at_ms: float | None) -> int | None:
    return None if at_ms is None or math.isnan(at_ms) else int(at_ms)


def _load_pyfunc(path: str) -> ServedForecaster:
    return ServedForecaster(Forecaster.load(path))
