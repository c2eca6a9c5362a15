"""Labels: what came of a row, an aggregate over the events strictly after its instant.

A label is said in the vocabulary of features, over the horizon instead of a window: of a row at `t` it reads the events
with `t < event_timestamp <= t + horizon`, exact to the millisecond at both ends. So no event can be in a feature, which
ends before `t`, and in a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.aggregates import Aggregate, Reading, Span
from features.columns import codes_in, encode, flat, milliseconds
from features.declarations import check_aggregate
from features.entities import entity as entity_of
from features.entities import key_of
from features.errors import DeclarationError
from features.filters import Where
from features.names import nearest
from features.runs import SortedRows, order_by
from features.source import EVENT_ID, EVENT_TIME, Source
from features.states import Bundle, State, Total
from features.windows import Int64s


@dataclass(frozen=True)
class Happened(Aggregate):
    """Whether there was an event at all, or one that meets the condition."""

    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """Their number."""
        return (Total(where=self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Yes or no."""
        return pa.bool_()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """False where there was none."""
        return pa.array(readings[0].totals(0) > 0)


@dataclass(frozen=True)
class Label:
    """One column of what came: an aggregate over the events of `source` in the row's horizon.

    `by`: the columns in which an event and a row must agree, called alike in both; the log is cut by the first, which
    is an entity's key. `("profile_id", "content_id")` is what this profile did with this title.
    """

    name: str
    aggregate: Aggregate
    source: Source
    by: tuple[str, ...]
    description: str = ""

    def check(self, horizon_ms: int) -> None:
        """Raise `DeclarationError` where the label cannot be worked out over this horizon."""
        if not self.by:
            raise DeclarationError(f"label {self.name}: by which column do events and rows agree? give `by`")
        if entity_of(self.by[0]).columns != (self.by[0],):
            raise DeclarationError(f"label {self.name}: a log cannot be cut by {self.by[0]}, which has several columns")
        texts = [field.name for field in self.source.schema if pa.types.is_string(field.type)]
        for column in self.by:
            if column not in texts:
                raise DeclarationError(
                    f"label {self.name}: {column} is no text column of the source {self.source.name}; "
                    f"the nearest is {nearest(column, texts)}, of {', '.join(texts)}"
                )
        if self.aggregate.spans(horizon_ms) != (Span(horizon_ms),):
            raise DeclarationError(
                f"label {self.name}: {type(self.aggregate).__name__} compares parts of a window, and a horizon has none"
            )
        check_aggregate(f"label {self.name}", self.aggregate, self.source, horizon_ms)

    @property
    def reads(self) -> set[str]:
        """Columns of the log that are read, beside `by`, the time and the id."""
        return {column for state in self.aggregate.states for column, _ in state.inputs}


def label_values(
    labels: Sequence[Label], horizon_ms: int, log: pa.Table, keys: pa.Array, owners: Int64s, asked_ms: Int64s
) -> list[pa.Array]:
    """The labels of n rows, [n] each: row i is of `keys[owners[i]]`, at `asked_ms[i]`.

    The labels read one log by the same columns. The log may have any order; a key is as `key_of` makes it of them.
    """
    for column in labels[0].by:
        log = log.filter(log[column].is_valid()) if log[column].null_count else log
    known, codes = encode(key_of([log[column] for column in labels[0].by]))
    times_ms = milliseconds(log[EVENT_TIME], EVENT_TIME)
    order = order_by(codes, times_ms, flat(log[EVENT_ID]))
    log, codes, times_ms = log.take(pa.array(order)), codes[order], times_ms[order]
    lower, upper = _edges(SortedRows(codes, times_ms), np.append(codes_in(keys, known), -1)[owners], asked_ms,
                          horizon_ms)  # fmt: skip
    read: dict[State, Bundle] = {}
    for state in {state: None for label in labels for state in label.aggregate.states}:
        read[state] = state.lift(log).reader(codes)(lower, upper)
    is_occupied = upper > lower
    return [
        label.aggregate.finish([Reading(tuple(read[state] for state in label.aggregate.states), is_occupied)])
        for label in labels
    ]


def _edges(rows: SortedRows, owners: Int64s, asked_ms: Int64s, horizon_ms: int) -> tuple[Int64s, Int64s]:
    """Events of each row's horizon, `lower[i]:upper[i]`; none of an owner that has no event (-1)."""
    lower, upper = np.zeros(len(owners), dtype=np.int64), np.zeros(len(owners), dtype=np.int64)
    known = np.flatnonzero(owners >= 0)
    lower[known] = rows.first_at_or_after(owners[known], asked_ms[known] + 1)
    upper[known] = rows.first_at_or_after(owners[known], asked_ms[known] + horizon_ms + 1)
    return lower, upper
