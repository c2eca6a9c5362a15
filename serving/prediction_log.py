"""What models answered, kept to be judged by what came of it; how and of whom: `answer_log.py`.

column         type          is
at             timestamp     when it was answered (UTC, ms)
as_of          timestamp     the instant of the features; null where there are none
answer_id      text          random; the champion's row and its shadow's have the same
model          text          registered name
model_version  text
arm            text          whose answer it is: champion or challenger
experiment     text          the experiment the person is in; null if none
is_shadow      bool          asked for the log alone: nobody was shown it
user_id        text          pseudonym under the newest salt; null if no user was named
profile_id     text          likewise
session_id     text          likewise, where the question names one
prediction     text (JSON)   what was answered, by model: `serving/*_api.py`, `serving/recommendations.py`
propensity     float         of a random choice its probability, else null
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from serving.answer_log import AnswerLog
from serving.consent_gate import Hashes
from serving.hosting.questions import Arm
from serving.online_store import OnlineStore
from serving.settings import PredictionSettings

_TIMESTAMP = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        ("at", _TIMESTAMP),
        ("as_of", _TIMESTAMP),
        ("answer_id", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("arm", pa.string()),
        ("experiment", pa.string()),
        ("is_shadow", pa.bool_()),
        ("user_id", pa.string()),
        ("profile_id", pa.string()),
        ("session_id", pa.string()),
        ("prediction", pa.string()),
        ("propensity", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Prediction:
    """One answer. `about` is None where it is about nobody."""

    model: str
    version: str
    arm: Arm
    prediction: Mapping[str, Any]
    about: Hashes | None
    as_of_ms: int | None = None
    answer_id: str = ""
    experiment: str | None = None
    is_shadow: bool = False
    session_hash: str | None = None
    propensity: float | None = None
    at_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def row(self) -> dict[str, Any]:
        """As it is written."""
        about = self.about or Hashes(None, None)
        return {
            "at": self.at_ms,
            "as_of": self.as_of_ms,
            "answer_id": self.answer_id,
            "model": self.model,
            "model_version": self.version,
            "arm": self.arm,
            "experiment": self.experiment,
            "is_shadow": self.is_shadow,
            "user_id": about.user[0] if about.user else None,
            "profile_id": about.profile[0] if about.profile else None,
            "session_id": self.session_hash,
            "prediction": json.dumps(self.prediction, separators=(",", ":")),
            "propensity": self.propensity,
        }


class PredictionLog(AnswerLog[Prediction]):
    """The log of one process."""

    def __init__(self, settings: PredictionSettings, open_store: Callable[[], OnlineStore]) -> None:
        super().__init__("predictions", SCHEMA, settings, open_store)
