"""What was known when: as-of look-up in slowly changing tables (the catalogue, subscriptions).

The row in force at an instant is the latest of its key at or before it. There is no row in force before the first:
what became known afterwards is not told of what happened before. Look-ups are one search in a sorted array of whole
numbers for all rows at once; texts are compared once for each distinct key.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.columns import milliseconds
from features.distinct import codes_of, encoded

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class History:
    """Facts by key and instant. A number stands for each (key, instant), ascending; `facts` are in that order."""

    keys: pa.Array
    instants_ms: Rows
    numbers: Rows
    facts: pa.Table

    @classmethod
    def of(cls, rows: pa.Table, key: str) -> "History":
        """From rows with `event_timestamp` and `event_id`; of two at the same instant the greater id comes later."""
        frame = pl.DataFrame(rows).filter(pl.col(key).is_not_null())
        frame = frame.sort(key, "event_timestamp", "event_id").unique(
            [key, "event_timestamp"], keep="last", maintain_order=True
        )
        facts = frame.to_arrow().select(rows.column_names).cast(rows.schema)
        codes = encoded(facts[key])
        known_ms = milliseconds(facts["event_timestamp"])
        instants_ms = np.unique(known_ms)
        numbers = _numbers(codes_of(codes).astype(np.int64), known_ms, instants_ms)
        return cls(codes.dictionary, instants_ms, numbers, _encoded_texts(facts))

    def at(self, keys: pa.Array | pa.ChunkedArray, instants_ms: Rows) -> Rows:
        """The row of `facts` in force for each key and instant, shape (n,); -1 where there is none."""
        if not len(self.numbers):
            return np.full(len(instants_ms), -1)
        texts = encoded(keys)
        places = pc.index_in(texts.dictionary, value_set=self.keys).fill_null(-1).to_numpy().astype(np.int64)
        place = np.append(places, -1)[codes_of(texts)]
        found = np.searchsorted(self.numbers, _numbers(place, instants_ms, self.instants_ms), side="right") - 1
        is_same_key = (found >= 0) & (place >= 0) & (self.numbers[found] // (len(self.instants_ms) + 1) == place)
        return np.where(is_same_key, found, -1)

    def take(self, column: str, rows: Rows) -> pa.Array:
        """`column` of the facts at `rows`; null for -1."""
        return self.facts[column].combine_chunks().take(pa.array(rows, mask=rows < 0))


def _numbers(places: Rows, at_ms: Rows, instants_ms: Rows) -> Rows:
    # By the instant's rank, not its milliseconds: the two would not fit into 64 bits together.
    ranks: Rows = np.searchsorted(instants_ms, at_ms, side="right")
    return places * (len(instants_ms) + 1) + ranks


def _encoded_texts(facts: pa.Table) -> pa.Table:
    for index, field in enumerate(facts.schema):
        if pa.types.is_string(field.type):
            facts = facts.set_column(index, field.name, encoded(facts[field.name]))
    return facts
