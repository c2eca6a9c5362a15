"""The floor: librdkafka hands the messages over, and they are dropped. Nothing that reads Kafka here can be faster."""

import time
from collections.abc import Sequence
from functools import partial

from pipelines.kafka.offsets import OffsetRange
from tests.benchmarks.peers.consuming import Consumed, consume, on_all_processes


def floor(bootstrap: str, ranges: Sequence[OffsetRange]) -> Consumed:
    """Consume and drop everything in `ranges`, on all processes."""
    parts = on_all_processes(partial(_drop, bootstrap), ranges)
    return Consumed(sum(n for n, _, _ in parts), max(end for *_, end in parts) - min(start for _, start, _ in parts))


def _drop(bootstrap: str, ranges: list[OffsetRange]) -> tuple[int, float, float]:
    started = time.monotonic()  # one clock for all processes of a machine
    messages = sum(len(batch) for batch in consume(bootstrap, ranges, whole=True))
    return messages, started, time.monotonic()
