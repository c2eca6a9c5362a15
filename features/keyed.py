"""Sums by key: the state behind shares, modes and vectors by bucket."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import encode, flat
from features.filters import Where, name_of
from features.runs import bounds, expand, prefix_sums, run_of_row, run_starts, sums
from features.states import Inputs, Kind, amounts, condition, inputs, suffix
from features.windows import Int64s

# An amount is shared among n keys in whole units of 1/27,720, which 1 to 12 all divide: no rounding up to 12
# keys, and for more an error under one unit. A sum of milliseconds overflows after 10,000 years.
UNITS_PER_SHARED_AMOUNT = 27_720


@dataclass(frozen=True)
class KeyedTotals:
    """Bundle of sums by key: entry `e` adds `totals[e]` under `vocabulary[keys[e]]` to state `rows[e]`.

    Rows are ascending, the vocabulary too; a total of 0 is left out.
    """

    size: int
    rows: Int64s
    keys: Int64s
    totals: Int64s
    vocabulary: pa.Array

    def merge(self, starts: Int64s) -> "KeyedTotals":
        """Sums by key of every run."""
        rows = run_of_row(starts, self.size)[self.rows]
        order = np.lexsort((self.keys, rows))
        rows, keys = rows[order], self.keys[order]
        firsts = run_starts(rows, keys)
        totals = sums(self.totals[order], firsts)
        return KeyedTotals(len(starts), rows[firsts], keys[firsts], totals, self.vocabulary)

    def reader(self, owners: Int64s) -> Callable[[Int64s, Int64s], "KeyedTotals"]:
        """Ranges by running totals of each (owner, key): two searches a key that the owner ever had."""
        width = len(self.vocabulary)
        group = owners[self.rows] * width + self.keys
        order = np.argsort(group, kind="stable")
        firsts = run_starts(group[order])
        groups = group[order][firsts]
        group_keys = groups % width if width else groups
        edges = bounds(groups // width if width else groups, int(owners[-1]) + 1 if len(owners) else 0)
        # Folding the (owner, key) and the row into one number makes a probe one binary search.
        folded = run_of_row(firsts, len(order)) * (self.size + 1) + self.rows[order]
        running = prefix_sums(self.totals[order])

        def read(lower: Int64s, upper: Int64s) -> KeyedTotals:
            filled = np.flatnonzero(upper > lower)
            owner = owners[lower[filled]]
            which, place = expand(edges[owner], edges[owner + 1])
            base = place * (self.size + 1)
            until = running[np.searchsorted(folded, base + upper[filled][which])]
            totals = until - running[np.searchsorted(folded, base + lower[filled][which])]
            kept = totals != 0
            rows = filled[which[kept]]
            return KeyedTotals(len(lower), rows, group_keys[place[kept]], totals[kept], self.vocabulary)

        return read

    def row_totals(self) -> Int64s:
        """Sum over the keys of each state; [size]."""
        totals = np.zeros(self.size, dtype=np.int64)
        firsts = run_starts(self.rows)
        totals[self.rows[firsts]] = sums(self.totals, firsts)
        return totals

    def largest(self) -> Int64s:
        """Key with the largest total of each state, the first in the vocabulary if several; -1 if none; [size]."""
        order = np.lexsort((self.keys, -self.totals, self.rows))
        firsts = run_starts(self.rows)
        keys = np.full(self.size, -1, dtype=np.int64)
        keys[self.rows[firsts]] = self.keys[order][firsts]
        return keys

    def to_arrow(self) -> pa.Array:
        """`map<string, int64>` column, keys ascending."""
        offsets = pa.array(bounds(self.rows, self.size), pa.int32())
        return pa.MapArray.from_arrays(offsets, self.vocabulary.take(pa.array(self.keys)), pa.array(self.totals))


@dataclass(frozen=True)
class KeyedTotal:
    """Sum of a whole-number column by key; without a column, the number of events by key.

    A list of keys shares the amount equally (its totals count in `UNITS_PER_SHARED_AMOUNT`); null and empty
    lists add nothing.
    """

    column: str | None
    key: str
    where: Where = None

    @property
    def name(self) -> str:
        """For instance `sum_watch_ms_by_genres`."""
        base = f"sum_{self.column}" if self.column else "events"
        return base + suffix("by", self.key) + name_of(self.where)

    @property
    def arrow_type(self) -> pa.DataType:
        """`map<string, int64>`; whole-number keys become their decimal digits."""
        return pa.map_(pa.string(), pa.int64())

    @property
    def inputs(self) -> Inputs:
        """The column, the key and the condition."""
        return inputs((self.column, Kind.WHOLE), (self.key, Kind.KEY), condition(self.where))

    def lift(self, log: pa.Table) -> KeyedTotals:
        """The amount of each event under its key."""
        keys = flat(log[self.key])
        added = amounts(log, self.column, self.where)
        if pa.types.is_list(keys.type):
            rows, added = shared(np.asarray(pc.fill_null(pc.list_value_length(keys), 0), dtype=np.int64), added)
            keys = keys.flatten()
        else:
            rows = np.arange(len(keys))
        vocabulary, codes = encode(keys.cast(pa.string()))
        kept = (codes >= 0) & (added != 0)
        return KeyedTotals(log.num_rows, rows[kept], codes[kept], added[kept], vocabulary)

    def from_arrow(self, column: pa.Array) -> KeyedTotals:
        """From a `map<string, int64>` column."""
        maps = flat(column)
        rows = np.flatnonzero(np.asarray(maps.is_valid()))
        present = maps.drop_null()
        edges = np.asarray(present.offsets, dtype=np.int64) if len(present) else np.zeros(1, dtype=np.int64)
        entries = slice(int(edges[0]), int(edges[-1]))
        vocabulary, codes = encode(present.keys[entries])
        totals = np.asarray(present.items[entries], dtype=np.int64)
        return KeyedTotals(len(maps), np.repeat(rows, np.diff(edges)), codes, totals, vocabulary)


def shared(lengths: Int64s, added: Int64s) -> tuple[Int64s, Int64s]:
    """Each amount shared among `lengths[row]` keys: (row, units) of every key; the units add up exactly."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    units, parts = added[rows] * UNITS_PER_SHARED_AMOUNT, lengths[rows]
    return rows, units * (place + 1) // parts - units * place // parts
