"""The last, or the first, n values: the state behind watch histories and what a session began with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat, milliseconds, timestamps
from features.filters import Where, chosen, name_of
from features.runs import bounds, expand, order_by, run_of_row
from features.states import Inputs, Kind, condition, inputs
from features.windows import Int64s

EVENT_TIME = "event_timestamp"
EVENT_ID = "event_id"


@dataclass(frozen=True)
class Seen:
    """Values with the time and the id of their event; [n] each. Bundles point into it instead of copying."""

    at: pa.Array
    ids: pa.Array
    values: pa.Array

    @cached_property
    def at_ms(self) -> Int64s:
        """The times as int64."""
        return milliseconds(self.at)


@dataclass(frozen=True)
class Recents:
    """Bundle of lists of the last, or first, n: state `rows[e]` holds `seen` at `places[e]`; by (row, time, id)."""

    size: int
    rows: Int64s
    places: Int64s
    seen: Seen
    limit: int
    is_first: bool = False

    def _of(self, size: int, rows: Int64s, places: Int64s) -> "Recents":
        return Recents(size, rows, places, self.seen, self.limit, self.is_first)

    def merge(self, starts: Int64s) -> "Recents":
        """The last, or first, n of every run."""
        rows = run_of_row(starts, self.size)[self.rows]
        order = order_by(rows, self.seen.at_ms[self.places], self.seen.ids.take(pa.array(self.places)))
        rows, places = rows[order], self.places[order]
        edges = bounds(rows, len(starts))
        entries = np.arange(len(rows))
        kept = entries < edges[rows] + self.limit if self.is_first else entries >= edges[rows + 1] - self.limit
        return self._of(len(starts), rows[kept], places[kept])

    def reader(self, owners: Int64s) -> Callable[[Int64s, Int64s], "Recents"]:
        """Ranges by one end of their entries: states follow in time, so the last entries are the newest."""
        edges = bounds(self.rows, self.size)

        def read(lower: Int64s, upper: Int64s) -> Recents:
            since, until = edges[lower], np.maximum(edges[lower], edges[upper])
            if self.is_first:
                until = np.minimum(until, since + self.limit)
            else:
                since = np.maximum(since, until - self.limit)
            rows, entries = expand(since, until)
            return self._of(len(lower), rows, self.places[entries])

        return read

    def values(self) -> tuple[Int64s, pa.Array]:
        """(length of each list [size], values of all lists, oldest first)."""
        return np.bincount(self.rows, minlength=self.size), self.seen.values.take(pa.array(self.places))

    def to_arrow(self) -> pa.Array:
        """`list<struct<at, id, value>>` column, oldest first."""
        places = pa.array(self.places)
        fields = [column.take(places) for column in (self.seen.at, self.seen.ids, self.seen.values)]
        entries = pa.StructArray.from_arrays(fields, fields=list(_entry(self.seen.values.type)))
        return pa.ListArray.from_arrays(pa.array(bounds(self.rows, self.size), pa.int32()), entries)


@dataclass(frozen=True)
class Recent:
    """The last (or first) `limit` values of a column by (event_timestamp, event_id); null values are left out.

    The column is text, or of whole numbers where `is_whole`.
    """

    column: str
    limit: int
    where: Where = None
    is_first: bool = False
    is_whole: bool = False

    @property
    def name(self) -> str:
        """For instance `last_100_content_id_where_is_finished`."""
        return f"{'first' if self.is_first else 'last'}_{self.limit}_{self.column}" + name_of(self.where)

    @property
    def value_type(self) -> pa.DataType:
        """Type of one value."""
        return pa.int64() if self.is_whole else pa.string()

    @property
    def arrow_type(self) -> pa.DataType:
        """`list<struct<at: timestamp, id: string, value>>`."""
        return pa.list_(_entry(self.value_type))

    @property
    def inputs(self) -> Inputs:
        """The column and the condition."""
        return inputs((self.column, Kind.WHOLE if self.is_whole else Kind.TEXT), condition(self.where))

    def lift(self, log: pa.Table) -> Recents:
        """A list of one value for each event that has it; the log is in (entity, time, id) order."""
        values = flat(log[self.column])
        rows = np.flatnonzero(chosen(log, self.where) & np.asarray(values.is_valid()))
        kept = pa.array(rows)
        at = timestamps(milliseconds(log[EVENT_TIME])).take(kept)
        seen = Seen(at, flat(log[EVENT_ID]).take(kept), values.take(kept).cast(self.value_type))
        return Recents(len(values), rows, np.arange(len(rows)), seen, self.limit, self.is_first)

    def from_arrow(self, column: pa.Array) -> Recents:
        """From the column that `to_arrow` gives."""
        lists = flat(column)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
        at, ids, values = lists.flatten().flatten()
        rows = np.repeat(np.arange(len(lists)), lengths)
        return Recents(len(lists), rows, np.arange(len(rows)), Seen(at, ids, values), self.limit, self.is_first)


def _entry(value_type: pa.DataType) -> pa.DataType:
    return pa.struct([("at", pa.timestamp("ms", tz="UTC")), ("id", pa.string()), ("value", value_type)])
