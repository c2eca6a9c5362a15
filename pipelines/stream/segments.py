"""Rows by a 64-bit key, appended all the time and taken by their keys: a few sorted runs, merged as they grow.

What is appended becomes a run of its own; a run is merged with the one before it as soon as that is not twice as long
(a log-structured merge tree in memory). So a row is copied a few times in its life, a look-up is a binary search in a
few runs, and neither grows with what is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.revision import Flags
from features.runs import expand
from features.units import Hashes

Places = NDArray[np.int64]
Chosen = Callable[[pa.Table, Places, Places], Places]
"""Of rows, some places and whose they are (ascending, by the place of the key): those of the places that are wanted."""

Tidy = Callable[[pa.Table], tuple[Hashes, pa.Table]]
"""Fewer rows that say the same, with their keys."""


@dataclass(frozen=True)
class _Run:
    keys: Hashes  # ascending
    rows: pa.Table


class Segments:
    """Rows of one schema. `tidy`, if given, is applied to the rows of runs that are merged."""

    def __init__(self, schema: pa.Schema, tidy: Tidy | None = None) -> None:
        self._schema, self._tidy = schema, tidy
        self._runs: list[_Run] = []

    @property
    def size(self) -> int:
        """How many rows are kept."""
        return sum(len(run.keys) for run in self._runs)

    @property
    def rows(self) -> pa.Table:
        """All rows, in no order."""
        return pa.concat_tables([self._schema.empty_table(), *(run.rows for run in self._runs)])

    def append(self, keys: Hashes, rows: pa.Table) -> None:
        """Keep `rows` (of the schema) by their keys."""
        if not len(keys):
            return
        self._runs.append(_sorted(keys, rows))
        while len(self._runs) > 1 and len(self._runs[-2].keys) < 2 * len(self._runs[-1].keys):
            last, before = self._runs.pop(), self._runs.pop()
            keys, rows = np.concatenate([before.keys, last.keys]), pa.concat_tables([before.rows, last.rows])
            if self._tidy is not None:
                keys, rows = self._tidy(rows)
            self._runs.append(_sorted(keys, rows))

    def take(
        self, keys: Hashes, chosen: Chosen | None = None, columns: Sequence[str] | None = None
    ) -> tuple[Hashes, pa.Table]:
        """The rows of some distinct keys, each with its key; of each run only those `chosen`, which is asked first.

        All columns of them, unless `columns` says which.
        """
        names = self._schema.names if columns is None else list(columns)
        found_keys, found = [np.empty(0, np.uint64)], [self._schema.empty_table().select(names)]
        for run in self._runs:
            lower, upper = np.searchsorted(run.keys, keys, "left"), np.searchsorted(run.keys, keys, "right")
            owners, places = expand(lower, upper)
            if chosen is not None:
                places = chosen(run.rows, places, owners)
            if len(places):
                found_keys.append(run.keys[places])
                found.append(run.rows.select(names).take(pa.array(places)))
        return np.concatenate(found_keys), pa.concat_tables(found)

    def keep(self, wanted: Callable[[Hashes, pa.Table], Flags]) -> None:
        """Forget the rows that are not wanted."""
        kept = []
        for run in self._runs:
            mask = wanted(run.keys, run.rows)
            if mask.all():
                kept.append(run)
            elif mask.any():
                kept.append(_Run(run.keys[mask], run.rows.filter(pa.array(mask)).combine_chunks()))
        self._runs = kept


def _sorted(keys: Hashes, rows: pa.Table) -> _Run:
    order = np.argsort(keys, kind="stable")
    return _Run(keys[order], rows.take(pa.array(order)).combine_chunks())
