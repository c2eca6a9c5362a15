"""A load of HTTP requests from a process of its own, so that whoever answers shares no interpreter with who asks.

    python -m tests.benchmarks.load < ORDER

ORDER is one JSON object: `address`, `request` (its bytes, as Latin-1 text), `seconds`, `connections`, and `per_s`.
Without `per_s` each connection asks again as soon as it is answered, and the answers are counted. With it requests are
due at even distances, whatever became of those before, and a latency counts from when its request was due: one that had
to wait for a connection has waited. Prints one JSON object: `answers`, `failures`, `per_s`, `p50_ms`, `p99_ms`.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop


@dataclass(frozen=True)
class Order:
    """What to ask, how often, how long."""

    address: str
    request: str
    seconds: float
    connections: int
    per_s: float | None = None


class Load:
    """One run of an order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._latencies_s: list[float] = []
        self._failures = 0

    async def run(self) -> dict[str, Any]:
        """Ask, and say what came of it."""
        order = self._order
        started_s = time.perf_counter()
        due: asyncio.Queue[float | None] = asyncio.Queue()
        askers = [asyncio.create_task(self._ask(started_s, due)) for _ in range(order.connections)]
        if order.per_s is not None:
            for number in range(int(order.per_s * order.seconds)):
                due_s = started_s + number / order.per_s
                await asyncio.sleep(due_s - time.perf_counter())
                due.put_nowait(due_s)
            for _ in askers:
                due.put_nowait(None)
        await asyncio.gather(*askers)
        taken_s = time.perf_counter() - started_s
        p50, p99 = np.percentile(self._latencies_s, [50, 99]) * 1000
        return {
            "answers": len(self._latencies_s),
            "failures": self._failures,
            "per_s": len(self._latencies_s) / taken_s,
            "p50_ms": float(p50),
            "p99_ms": float(p99),
        }

    async def _ask(self, started_s: float, due: asyncio.Queue[float | None]) -> None:
        parts, request = urlsplit(self._order.address), self._order.request.encode("latin-1")
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while True:
            since_s = time.perf_counter() if self._order.per_s is None else await due.get()
            if since_s is None or since_s > started_s + self._order.seconds:
                break
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            (length,) = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
            await reader.readexactly(int(length))
            self._latencies_s.append(time.perf_counter() - since_s)
            self._failures += not lines[0].startswith(b"http/1.1 200")
        writer.close()


def loaded(order: Order) -> dict[str, Any]:
    """What a process of its own finds. Raises AssertionError where a request was not answered with 200."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load"],
        input=json.dumps(asdict(order)),
        text=True,
        capture_output=True,
        check=True,
    )
    said: dict[str, Any] = json.loads(found.stdout)
    assert said["failures"] == 0, said
    return said


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(Load(Order(**json.load(sys.stdin))).run())))
