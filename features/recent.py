"""The last n values: the state behind watch histories."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat, milliseconds, timestamps
from features.runs import bounds, expand, order_by, run_of_row
from features.states import Inputs, Kind, chosen, inputs, suffix
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
    """Bundle of last-n lists: state `rows[e]` holds `seen` at `places[e]`; by (row, time, id), oldest first."""

    size: int
    rows: Int64s
    places: Int64s
    seen: Seen
    limit: int

    def merge(self, starts: Int64s) -> "Recents":
        """The last n of every run."""
        rows = run_of_row(starts, self.size)[self.rows]
        order = order_by(rows, self.seen.at_ms[self.places], self.seen.ids.take(pa.array(self.places)))
        rows, places = rows[order], self.places[order]
        edges = bounds(rows, len(starts))
        kept = np.arange(len(rows)) >= edges[rows + 1] - self.limit
        return Recents(len(starts), rows[kept], places[kept], self.seen, self.limit)

    def reader(self, owners: Int64s) -> Callable[[Int64s, Int64s], "Recents"]:
        """Ranges by the ends of their entries: states follow in time, so the last entries are the newest."""
        edges = bounds(self.rows, self.size)

        def read(lower: Int64s, upper: Int64s) -> Recents:
            until = edges[upper]
            rows, entries = expand(np.maximum(edges[lower], until - self.limit), until)
            return Recents(len(lower), rows, self.places[entries], self.seen, self.limit)

        return read

    def values(self) -> tuple[Int64s, pa.Array]:
        """(length of each list [size], values of all lists, oldest first)."""
        return np.bincount(self.rows, minlength=self.size), self.seen.values.take(pa.array(self.places))

    def to_arrow(self) -> pa.Array:
        """`list<struct<at, id, value>>` column, oldest first."""
        places = pa.array(self.places)
        fields = [column.take(places) for column in (self.seen.at, self.seen.ids, self.seen.values)]
        entries = pa.StructArray.from_arrays(fields, fields=list(_ENTRY))
        return pa.ListArray.from_arrays(pa.array(bounds(self.rows, self.size), pa.int32()), entries)


@dataclass(frozen=True)
class Recent:
    """The last `limit` values of a text column by (event_timestamp, event_id); null values are left out."""

    column: str
    limit: int
    where: str | None = None

    @property
    def name(self) -> str:
        """For instance `last_100_content_id_where_is_finished`."""
        return f"last_{self.limit}_{self.column}" + suffix("where", self.where)

    @property
    def arrow_type(self) -> pa.DataType:
        """`list<struct<at: timestamp, id: string, value: string>>`."""
        return pa.list_(_ENTRY)

    @property
    def inputs(self) -> Inputs:
        """The column and the flag."""
        return inputs((self.column, Kind.TEXT), (self.where, Kind.FLAG))

    def lift(self, log: pa.Table) -> Recents:
        """A list of one value for each event that has it; the log is in (entity, time, id) order."""
        values = flat(log[self.column])
        rows = np.flatnonzero(chosen(log, self.where) & np.asarray(values.is_valid()))
        kept = pa.array(rows)
        at = timestamps(milliseconds(log[EVENT_TIME])).take(kept)
        seen = Seen(at, flat(log[EVENT_ID]).take(kept), values.take(kept))
        return Recents(len(values), rows, np.arange(len(rows)), seen, self.limit)

    def from_arrow(self, column: pa.Array) -> Recents:
        """From the column that `to_arrow` gives."""
        lists = flat(column)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
        at, ids, values = lists.flatten().flatten()
        rows = np.repeat(np.arange(len(lists)), lengths)
        return Recents(len(lists), rows, np.arange(len(rows)), Seen(at, ids, values), self.limit)


_ENTRY = pa.struct([("at", pa.timestamp("ms", tz="UTC")), ("id", pa.string()), ("value", pa.string())])
