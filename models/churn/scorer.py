"""The churn model as it is saved and asked: rows of a training set in, probabilities and reasons out.

Beside the model's own files lie `encoding.json`, how columns become numbers, and `baselines.json`: what it is compared
with was fitted to the same rows, and has to be there when it is judged.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.churn.columns import Encoding
from models.churn.features import LAST_ACTIVITY
from models.churn.logistic import LogisticRegression
from models.churn.model import ChurnModel, Reason
from models.errors import TrainingSetError
from models.saved import whole

Floats = npt.NDArray[np.float64]

ENCODING_FILE, BASELINES_FILE = "encoding.json", "baselines.json"
_DAY_MS = 86_400_000
_DAYS = (1, 2, 4, 7, 14, 30)


@dataclass(frozen=True)
class LastActivity:
    """The rule that everybody has: the longer nothing was watched, the likelier to leave. A rate by days since."""

    rates: tuple[float, ...]
    """Of under 1, 2, 4, 7, 14 and 30 days, and of more or never."""

    @classmethod
    def fit(cls, rows: pa.Table, truth: Floats, weights: Floats) -> Self:
        """Rates of the training rows, half a yes and half a no added to each."""
        place = cls._place(rows)
        yes, all_rows = (np.bincount(place, one, minlength=len(_DAYS) + 1) for one in (truth * weights, weights))
        return cls(tuple(map(float, (yes + 0.5) / (all_rows + 1))))

    def probabilities(self, rows: pa.Table) -> Floats:
        """[rows] of a yes."""
        return np.asarray(self.rates)[self._place(rows)]

    @staticmethod
    def _place(rows: pa.Table) -> npt.NDArray[np.int64]:
        if LAST_ACTIVITY not in rows.column_names:
            raise TrainingSetError(f"the rows lack the column {LAST_ACTIVITY}; received {', '.join(rows.column_names)}")
        age_ms = rows[LAST_ACTIVITY].cast(pa.float64()).to_numpy()
        days = np.where(np.isnan(age_ms), np.inf, age_ms) / _DAY_MS
        return np.searchsorted(np.asarray(_DAYS, np.float64), days, side="right")


@dataclass(frozen=True)
class ChurnScorer:
    """A model, how rows become its numbers, and its baselines."""

    model: ChurnModel
    encoding: Encoding
    logistic: LogisticRegression
    last_activity: LastActivity

    def probabilities(self, rows: pa.Table) -> Floats:
        """[rows] of cancelling within the horizon.

        Raises:
            TrainingSetError: a column is missing.
        """
        return self.model.probabilities(self.encoding.values(rows))

    def reasons(self, rows: pa.Table, most: int = 3) -> list[list[Reason]]:
        """For each row what drives its probability, strongest first."""
        return self.model.reasons(self.encoding.values(rows), most)

    def baselines(self, rows: pa.Table) -> dict[str, Floats]:
        """[rows] the baselines' probabilities, by name."""
        return {
            "logistic": self.logistic.probabilities(self.encoding.values(rows)),
            "last_activity": self.last_activity.probabilities(rows),
        }

    def save(self, folder: Path) -> None:
        """Writes all files into `folder`."""
        self.model.save(folder)
        (folder / ENCODING_FILE).write_text(json.dumps(self.encoding.as_dict(), indent=2))
        baselines = {"logistic": self.logistic.as_dict(), "last_activity": list(self.last_activity.rates)}
        (folder / BASELINES_FILE).write_text(json.dumps(baselines))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """What `save` wrote.

        Raises:
            ModelFolderError: a file is missing or broken.
        """
        folder = Path(folder)
        model = ChurnModel.load(folder)
        with whole(folder, "churn model"):
            encoding = Encoding.from_dict(json.loads((folder / ENCODING_FILE).read_text()))
            baselines = json.loads((folder / BASELINES_FILE).read_text())
            logistic = LogisticRegression.from_dict(baselines["logistic"])
            return cls(model, encoding, logistic, LastActivity(tuple(baselines["last_activity"])))
