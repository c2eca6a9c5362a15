"""A constant load on a service, and every answer that came of it."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import httpx

# What a caller does whose connection failed, as HTTP lets him with what only reads: he asks again, for so long.
PATIENCE_S, PAUSE_S = 60.0, 0.05
ANSWER_WITHIN_S = 30.0
LIMITS = httpx.Limits(max_connections=None)
LOST = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


@dataclass(frozen=True)
class Answer:
    """To one question: `asked_s` and `answered_s` on the monotonic clock; `status` 0 where no answer ever came."""

    question: str
    asked_s: float
    answered_s: float
    status: int
    body: Mapping[str, Any]
    lost_connections: int

    @property
    def is_failed(self) -> bool:
        """A degraded answer is none."""
        return self.status != 200

    @property
    def told(self) -> dict[str, object]:
        """What in the answer must not depend on when it was asked; the last digits of scores do, on who else asks."""
        values = {name: self.body[name] for name in ("values", "source", "degraded") if name in self.body}
        return values | {"items": [item["content_id"] for item in self.body.get("items", [])]}


class Load:
    """Asks the questions in turn, so many a second, whether or not earlier ones were answered."""

    def __init__(self, address: str, questions: Sequence[str], per_s: float, headers: Mapping[str, str]) -> None:
        self._client = httpx.Client(base_url=address, headers=dict(headers), timeout=ANSWER_WITHIN_S, limits=LIMITS)
        self._questions, self._pause_s = itertools.cycle(questions), 1 / per_s
        self._over = threading.Event()
        self._asked: list[Future[Answer]] = []
        self._pool = ThreadPoolExecutor(int(per_s * (PATIENCE_S + ANSWER_WITHIN_S)))
        self._clock = threading.Thread(target=self._keep_asking, daemon=True)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> list[Answer]:
        """All answers, in the order they were asked for; nothing is asked any more."""
        self._over.set()
        self._clock.join()
        self._pool.shutdown()
        return [one.result() for one in self._asked]

    def until(self, is_so: Callable[[Answer], bool], within_s: float, *, times: int = 20) -> float:
        """Wait until so many questions in a row, of those asked from now on, have answers that are so.

        How long after now the first of them was asked, in seconds.
        """
        begun_s, first = time.monotonic(), len(self._asked)
        while True:
            answers = [one.result() for one in itertools.takewhile(Future.done, self._asked[first:])]
            row: list[Answer] = []
            for answer in answers:
                row = [*row, answer] if is_so(answer) else []
                if len(row) == times:
                    return row[0].asked_s - begun_s
            assert time.monotonic() < begun_s + within_s + ANSWER_WITHIN_S, answers[-3:]
            time.sleep(0.05)

    def _keep_asking(self) -> None:
        due_s = time.monotonic()
        while not self._over.wait(max(0.0, due_s - time.monotonic())):
            due_s += self._pause_s
            self._asked.append(self._pool.submit(self._ask, next(self._questions), time.monotonic()))

    def _ask(self, question: str, asked_s: float) -> Answer:
        lost = 0
        while True:
            try:
                response = self._client.get(question)
                body = response.json() if response.is_success else {"text": response.text}
                return Answer(question, asked_s, time.monotonic(), response.status_code, body, lost)
            except httpx.HTTPError as error:
                lost += 1
                if not isinstance(error, LOST) or time.monotonic() > asked_s + PATIENCE_S:
                    return Answer(question, asked_s, time.monotonic(), 0, {"text": repr(error)}, lost)
                time.sleep(PAUSE_S)
