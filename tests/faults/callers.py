"""Constant load on the service, from callers as other teams would write them.

Each asks again and again, at even distances, over a connection that it keeps. It asks only with GET. Where the
connection fails, before or after the request was sent, it asks once more on a new one: HTTP lets a client do that by
itself for methods that are idempotent (RFC 9110, 9.2.2), and most do. It never repeats a request that was answered:
every answer but 200 is a failed request, and so is one that no connection carries for `GIVES_UP_S`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

GIVES_UP_S = 300.0
ASKS_AGAIN_S = 0.1
EVERY_S = 0.1
ANSWERED_WITHIN_S = 120.0


@dataclass(frozen=True)
class Seen:
    """An answer that is not degraded, and when it came."""

    at_s: float
    answer: Mapping[str, Any]


@dataclass
class Callers:
    """A caller for each of `paths`, by name, while in the block."""

    address: str
    headers: Mapping[str, str]
    paths: Mapping[str, str]
    failed: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    """Requests that were sent again because their connection failed."""
    last: dict[str, Seen] = field(default_factory=dict)
    """Of each name the newest answer that was not degraded."""
    wrong: list[str] = field(default_factory=list)
    _expected: dict[str, Callable[[Mapping[str, Any]], bool]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def expect(self, name: str, is_right: Callable[[Mapping[str, Any]], bool]) -> None:
        """From now on, what is answered without being degraded has to be so."""
        self._expected[name] = is_right

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._call, args=one) for one in self.paths.items()]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def good_since(self, at_s: float) -> bool:
        """Whether each had an answer that is not degraded since an instant of `time.monotonic`."""
        return all(name in self.last and self.last[name].at_s > at_s for name in self.paths)

    def _call(self, name: str, path: str) -> None:
        client = httpx.Client(base_url=self.address, headers=self.headers, timeout=ANSWERED_WITHIN_S)
        while not self._ended.wait(EVERY_S):
            began = time.monotonic()
            while True:
                try:
                    response = client.get(path)
                    break
                except httpx.TransportError as error:
                    self.repeated[name] += 1
                    client.close()
                    if time.monotonic() - began > GIVES_UP_S:
                        self.failed.append(f"{name}: {error!r}")
                        return
                    time.sleep(ASKS_AGAIN_S)
                    client = httpx.Client(base_url=self.address, headers=self.headers, timeout=ANSWERED_WITHIN_S)
            self._note(name, response)
        client.close()

    def _note(self, name: str, response: httpx.Response) -> None:
        self.answers[name] += 1
        if response.status_code != httpx.codes.OK:
            self.failed.append(f"{name}: {response.status_code} {response.text[:200]}")
            return
        answer = response.json()
        if answer["degraded"]:
            self.degraded[name] += 1
            return
        if name in self._expected and not self._expected[name](answer):
            self.wrong.append(f"{name}: {answer}")
        self.last[name] = Seen(time.monotonic(), answer)
