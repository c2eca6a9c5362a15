"""What was answered, kept: Parquet files, a folder a day, that are only ever added. What a row holds, its owner says.

Nothing is kept of a child, or of somebody whose consent to analytics and personalization is not on record (a market's
default does not do). That is asked when rows are written, of the store, so that whoever withdrew or was erased since
the answer is not in them. While the store cannot say, rows are dropped.

An answer never waits: it hands its rows to a bounded queue, and what does not fit is dropped and counted. One thread
writes. `LOCK_FILE` is held while rows are checked and written: an erasure that has taken a person out of the online
store and then waits for it finds every row of theirs.
"""

import fcntl
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from features.purposes import Purpose
from serving.consent_gate import Hashes, refusals_of
from serving.errors import StoreUnavailableError
from serving.online_store import OnlineStore
from serving.settings import AnswerLogSettings
from serving.watch import measures

LOCK_FILE = "lock"
PURPOSES = frozenset({Purpose.ANALYTICS, Purpose.PERSONALIZATION})

_log = logging.getLogger(__name__)


class Kept(Protocol):
    """One answer. `about` is None where it is about nobody: what is about people is kept only if they allow it."""

    @property
    def about(self) -> Hashes | None:
        """Whom it is about."""

    def row(self) -> dict[str, Any]:
        """As it is written."""


@dataclass
class Counts:
    """Rows since the process started."""

    written: int = 0
    not_allowed: int = 0
    """Of people who are not to be logged."""
    dropped: int = 0
    """For want of room, of a disk that takes them, or of a store that can say who allows it."""


One = TypeVar("One", bound=Kept)


class AnswerLog(Generic[One]):
    """The log `name` of one process."""

    def __init__(
        self, name: str, schema: pa.Schema, settings: AnswerLogSettings, open_store: Callable[[], OnlineStore]
    ) -> None:
        self.counts = Counts()
        self._name, self._schema = name, schema
        self._settings = settings
        self._open_store = open_store
        self._waiting: queue.Queue[One] = queue.Queue(settings.most_waiting)
        self._process = uuid.uuid4().hex[:12]
        self._files = 0
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_for_ever, name=name, daemon=True)
        self._writer.start()

    def add(self, answers: Sequence[One]) -> None:
        """Hand answers over; never waits."""
        for place, one in enumerate(answers):
            try:
                self._waiting.put_nowait(one)
            except queue.Full:
                self._lose(len(answers) - place)
                return

    def close(self) -> None:
        """Write what waits."""
        self._closing.set()
        self._writer.join()

    def _lose(self, rows: int) -> None:
        self.counts.dropped += rows
        measures.LOGGED.labels(self._name, "dropped").inc(rows)

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
            self._lose(len(waiting))
            _log.warning("%d %s were dropped: %s", len(waiting), self._name, error)
            return
        self.counts.written += len(allowed)
        self.counts.not_allowed += len(waiting) - len(allowed)
        measures.LOGGED.labels(self._name, "written").inc(len(allowed))
        measures.LOGGED.labels(self._name, "not_allowed").inc(len(waiting) - len(allowed))

    def _allowed(self, waiting: Sequence[One]) -> list[One]:
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
            pq.write_table(pa.Table.from_pylist(list(rows), self._schema), draft, compression="zstd")
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
