"""Which events of a log an aggregate counts: all, those whose flag is true, or those of a given value."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flags, flat

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Is:
    """The events whose text column has this value, or one of these: `Is("event_name", "tile.click")`."""

    column: str
    value: str | tuple[str, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """The values, one or several."""
        return (self.value,) if isinstance(self.value, str) else self.value


Where = str | Is | None
"""The name of a flag column, a value of a text column, or no condition."""


def column_of(where: Where) -> str | None:
    """The column that is read, if any."""
    return where.column if isinstance(where, Is) else where


def name_of(where: Where) -> str:
    """What a state's name ends with: `_where_is_start`, `_where_event_name_tile_click`, or nothing."""
    if where is None:
        return ""
    said = "_".join((where.column, *where.values)) if isinstance(where, Is) else where
    return "_where_" + _NOT_IN_NAMES.sub("_", said.lower())


def chosen(log: pa.Table, where: Where) -> npt.NDArray[np.bool_]:
    """[rows] whether the condition holds; null is no."""
    if where is None:
        return np.ones(log.num_rows, dtype=np.bool_)
    if isinstance(where, Is):
        return flags(pc.is_in(flat(log[where.column]), value_set=pa.array(where.values, pa.string())))
    return flags(log[where])
