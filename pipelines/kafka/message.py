"""Messages of a topic, held column by column: everything after the reading works on many at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Messages:
    """`n` messages of one topic. A value of None is a tombstone; headers of None are no headers.

    `partitions` is int32[n] and `offsets` int64[n]; `keys`, `values` and `headers` are of the same length.
    """

    topic: str
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers | None]

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of_partition(
        cls,
        topic: str,
        partition: int,
        offsets: Sequence[int] | NDArray[Any],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers | None] | None = None,
    ) -> "Messages":
        """Messages of a single partition."""
        count = len(values)
        return cls(
            topic,
            np.full(count, partition, np.int32),
            np.asarray(offsets, np.int64),
            keys,
            values,
            [None] * count if headers is None else headers,
        )
