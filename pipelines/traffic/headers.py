"""Headers as a traced service sends them (spec 11.2)."""

import numpy as np

from pipelines.identifiers import splitmix64
from pipelines.kafka.message import Headers

_PRODUCER = ("producer", b"traffic")


def trace_headers(seed: int, first: int, count: int) -> list[Headers | None]:
    """Of messages `first`, `first` + 1, …: each its own `trace_id` of 128 bits (32 digits), and who produced it."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    words = np.stack((splitmix64(numbers, 2 * seed), splitmix64(numbers, 2 * seed + 1)), axis=1).astype(">u8")
    text = words.tobytes().hex().encode()
    return [[("trace_id", text[at : at + 32]), _PRODUCER] for at in range(0, 32 * count, 32)]
