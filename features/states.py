"""Mergeable states: what is kept of a set of events, so that sets can be joined without their events.

Every aggregate is made of a few states, and every path (value at an instant, tiles, backfill, online) does the
same three things with them: *lift* each event of a log to a state of its own, *merge* neighbours, *read* the
merged state of a range. Merging is associative and does not depend on order, and all numbers in a state are
whole, so the paths agree to the bit.

A *bundle* holds `size` states of one kind, one a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat
from features.filters import Is, Where, chosen, column_of, name_of
from features.runs import prefix_sums, sums
from features.sketches import Sketches, cells_of
from features.windows import Int64s

Inputs = tuple[tuple[str, "Kind"], ...]
BundleT = TypeVar("BundleT", bound="Bundle")


class Kind(StrEnum):
    """What a column must be for a state to read it."""

    ANY = "any type"
    WHOLE = "a whole number or a Boolean"
    FLAG = "a Boolean"
    TEXT = "a string"
    KEY = "a string, a whole number or a list of strings"

    def accepts(self, arrow_type: pa.DataType) -> bool:
        """Whether a column of this Arrow type will do."""
        is_whole, is_text = pa.types.is_integer(arrow_type), pa.types.is_string(arrow_type)
        is_flag = pa.types.is_boolean(arrow_type)
        is_text_list = pa.types.is_list(arrow_type) and pa.types.is_string(arrow_type.value_type)
        accepted: dict[Kind, bool] = {
            Kind.ANY: True,
            Kind.WHOLE: is_whole or is_flag,
            Kind.FLAG: is_flag,
            Kind.TEXT: is_text,
            Kind.KEY: is_text or is_whole or is_text_list,
        }
        return accepted[self]


class Bundle(Protocol):
    """Many states of one kind."""

    @property
    def size(self) -> int:
        """How many states."""

    def merge(self, starts: Int64s) -> Self:
        """One state for each run of neighbours that begins at `starts`; no run is empty."""

    def reader(self: BundleT, owners: Int64s) -> Callable[[Int64s, Int64s], BundleT]:
        """Reader of ranges `lower[i]:upper[i]`, which may overlap and be empty but stay within one owner.

        `owners` [size] is ascending: whose each state is. Preparing is done once, reading many times.
        """

    def to_arrow(self) -> pa.Array:
        """The states as a column of the state's `arrow_type`."""


class State(Protocol):
    """Declaration of a kind of state; hashable, and equal where it computes the same."""

    @property
    def name(self) -> str:
        """Column name in tiles, derived from what is computed."""

    @property
    def arrow_type(self) -> pa.DataType:
        """Column type in tiles."""

    @property
    def inputs(self) -> Inputs:
        """Columns of the log that are read."""

    def lift(self, log: pa.Table) -> Bundle:
        """One state for each row of the log."""

    def from_arrow(self, column: pa.Array) -> Bundle:
        """Inverse of `Bundle.to_arrow`; null is the state of no event."""


@dataclass(frozen=True)
class Totals:
    """Bundle of whole-number sums: int64 [size]."""

    values: Int64s

    @property
    def size(self) -> int:
        """How many sums."""
        return len(self.values)

    def merge(self, starts: Int64s) -> "Totals":
        """Sum of every run."""
        return Totals(sums(self.values, starts))

    def reader(self, owners: Int64s) -> Callable[[Int64s, Int64s], "Totals"]:
        """Ranges by the difference of two running totals."""
        running = prefix_sums(self.values)
        return lambda lower, upper: Totals(running[upper] - running[lower])

    def to_arrow(self) -> pa.Array:
        """`int64` column."""
        return pa.array(self.values, pa.int64())


@dataclass(frozen=True)
class Total:
    """Sum of a whole-number column over events (null counts 0); without a column, the number of events.

    `present` counts the events that have a value in the column instead. `times` multiplies what each event adds by
    another whole-number column.
    """

    column: str | None = None
    where: Where = None
    present: bool = False
    times: str | None = None

    @property
    def name(self) -> str:
        """For instance `sum_watch_ms`, `present_is_complete`, `events_where_is_start`."""
        prefix = "present_" if self.present else "sum_"
        base = f"{prefix}{self.column}" if self.column else "events"
        return base + suffix("times", self.times) + name_of(self.where)

    @property
    def arrow_type(self) -> pa.DataType:
        """`int64`."""
        return pa.int64()

    @property
    def inputs(self) -> Inputs:
        """The column, the factor and the condition."""
        kind = Kind.ANY if self.present else Kind.WHOLE
        return inputs((self.column, kind), (self.times, Kind.WHOLE), condition(self.where))

    def lift(self, log: pa.Table) -> Totals:
        """The amount of each event."""
        added = amounts(log, self.column, self.where, present=self.present)
        return Totals(added * amounts(log, self.times, None) if self.times else added)

    def from_arrow(self, column: pa.Array) -> Totals:
        """From an `int64` column."""
        return Totals(np.asarray(pc.fill_null(flat(column), 0), dtype=np.int64))


@dataclass(frozen=True)
class Distinct:
    """Sketch of the distinct values of a text column (null is no value)."""

    column: str
    where: Where = None

    @property
    def name(self) -> str:
        """For instance `distinct_viewer_token`."""
        return f"distinct_{self.column}" + name_of(self.where)

    @property
    def arrow_type(self) -> pa.DataType:
        """`binary`: stored sketches."""
        return pa.binary()

    @property
    def inputs(self) -> Inputs:
        """The column and the condition."""
        return inputs((self.column, Kind.TEXT), condition(self.where))

    def lift(self, log: pa.Table) -> Sketches:
        """A sketch of one value for each event."""
        values = flat(log[self.column])
        rows = np.flatnonzero(chosen(log, self.where) & np.asarray(values.is_valid()))
        return Sketches(len(values), rows, cells_of(values.take(pa.array(rows))))

    def from_arrow(self, column: pa.Array) -> Sketches:
        """From stored sketches."""
        return Sketches.from_arrow(column)


def suffix(word: str, name: str | None) -> str:
    """`_word_name`, or nothing without a name: the parts of state names."""
    return f"_{word}_{name}" if name else ""


def inputs(*columns: tuple[str | None, Kind]) -> Inputs:
    """The columns that are named."""
    return tuple((name, kind) for name, kind in columns if name)


def condition(where: Where) -> tuple[str | None, Kind]:
    """The column that a condition reads, and what it must be."""
    return column_of(where), Kind.TEXT if isinstance(where, Is) else Kind.FLAG


def amounts(log: pa.Table, column: str | None, where: Where, *, present: bool = False) -> Int64s:
    """What each event adds: its value in the column, 1 without a column, 0 where the condition fails."""
    if column is None:
        return chosen(log, where).astype(np.int64)
    values: Any = flat(log[column])
    added = values.is_valid() if present else pc.fill_null(values.cast(pa.int64()), 0)
    return np.where(chosen(log, where), np.asarray(added, dtype=np.int64), 0)
