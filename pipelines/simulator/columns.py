"""Rows as columns: equally long NumPy arrays by name, which is how the simulator holds everything that happened."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]


def length(columns: Columns) -> int:
    """Number of rows."""
    return len(next(iter(columns.values())))


def take(columns: Columns, rows: NDArray[Any] | slice) -> Columns:
    """Select rows by index, mask or slice."""
    return {name: values[rows] for name, values in columns.items()}


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Put parts of the same columns one after the other; there must be at least one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
