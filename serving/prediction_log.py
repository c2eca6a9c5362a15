"""What models answered, kept to be judged by what came of it: Parquet files, a folder a day, that are only ever added.

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

Nothing is kept of a child, or of somebody whose consent to analytics and personalization is not on record (a market's
default does not do). That is asked when rows are written, of the store, so that whoever withdrew or was erased since
the answer is not in them. While the store cannot say, rows are dropped.

An answer never waits: it hands its rows to a bounded queue, and what does not fit is dropped and counted. One thread
writes. `LOCK_FILE` is held while rows are checked and written: an erasure that has taken a person out of the online
store and then waits for it finds every row of theirs.
"""

import fcntl
import json
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.purposes import Purpose
from serving.consent_gate import Hashes, refusals_of
from serving.errors import StoreUnavailableError
from serving.hosting.questions import Arm
from serving.online_store import OnlineStore
from serving.settings import PredictionSettings

LOCK_FILE = "lock"
PURPOSES = frozenset({Purpose.ANALYTICS, Purpose.PERSONALIZATION})
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

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One answer. `about` is None where it is about nobody: what is about people is kept only if they allow it."""

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


@dataclass
class Counts:
    """Rows since the process started."""

    written: int = 0
    not_allowed: int = 0
    """Of people who are not to be logged."""
    dropped: int = 0
    """For want of room, of a disk that takes them, or of a store that can say who allows it."""


class PredictionLog:
    """The log of one process."""

    def __init__(self, settings: PredictionSettings, open_store: Callable[[], OnlineStore]) -> None:
        self.counts = Counts()
        self._settings = settings
        self._open_store = open_store
        self._waiting: queue.Queue[Prediction] = queue.Queue(settings.most_waiting)
        self._process = uuid.uuid4().hex[:12]
        self._files = 0
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_for_ever, name="predictions", daemon=True)
        self._writer.start()

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Hand answers over; never waits."""
        for one in predictions:
            try:
                self._waiting.put_nowait(one)
            except queue.Full:
                self.counts.dropped += 1

    def close(self) -> None:
        """Write what waits."""
        self._closing.set()
        self._writer.join()

    def _write_for_ever(self) -> None:
        while not self._closing.wait(self._settings.flush_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        waiting = [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
        if not waiting:
            return
        try:
            with writing(self._settings.folder):
                allowed = self._allowed(waiting)
                self._write([one.row() for one in allowed])
        except (OSError, StoreUnavailableError, pa.ArrowException) as error:
            self.counts.dropped += len(waiting)
            _log.warning("%d predictions were dropped: %s", len(waiting), error)
            return
        self.counts.written += len(allowed)
        self.counts.not_allowed += len(waiting) - len(allowed)

    def _allowed(self, waiting: Sequence[Prediction]) -> list[Prediction]:
        people = list(dict.fromkeys(one.about for one in waiting if one.about is not None))
        allowed: set[Hashes] = set()
        if people:
            with self._open_store() as store:
                refusals = refusals_of(store, people, PURPOSES, None)
            allowed = {person for person, refusal in zip(people, refusals, strict=True) if refusal is None}
        return [one for one in waiting if one.about is None or one.about in allowed]

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One file, under its name once it is whole."""
        if not rows:
            return
        day = datetime.fromtimestamp(time.time(), UTC).date().isoformat()
        folder = self._settings.folder / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._process}-{self._files:06d}.parquet"
        self._files += 1
        draft = path.with_suffix(".draft")
        try:
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), draft, compression="zstd")
            draft.replace(path)
        except (OSError, pa.ArrowException):
            draft.unlink(missing_ok=True)
            raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock together with other writers, and against whoever erases."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
