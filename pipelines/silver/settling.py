"""Whose profile is it? What becomes of rows whose profile nobody had described when they came in (spec 8.5).

A profile that stays undescribed is treated as a child's after a while: the protective reading.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.columns import milliseconds
from features.decision import Registries
from features.late_children import LateChildren
from features.pseudonyms import Pseudonymizer


@dataclass(frozen=True)
class Settling:
    """What is known of people now, and how long rows wait for it."""

    known: Registries
    pseudonymizer: Pseudonymizer
    now_ms: int
    wait_ms: int

    def settle(self, rows: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]]:
        """The rows, in another order, with `is_kids` said of each; and which of them wait on.

        Only rows that came in undescribed are looked at: of all others the door has decided.
        """
        undescribed = came_in_undescribed(rows)
        if not undescribed.any():
            return _with_kids(rows, pc.fill_null(rows["is_kids"], False)), np.zeros(rows.num_rows, dtype=bool)
        asked = rows.filter(pa.array(undescribed))
        is_kids, described = self._described(asked)
        waiting = self._waits(asked, described)
        kids = is_kids | (~described & ~waiting)
        parts = [
            _with_kids(known := rows.filter(pa.array(~undescribed)), pc.fill_null(known["is_kids"], False)),
            _with_kids(asked.filter(pa.array(~kids)), False),
            self._stripped(asked.filter(pa.array(kids))),
        ]
        still_waiting = np.concatenate(
            [np.zeros(len(parts[0]), dtype=bool), waiting[~kids], np.zeros(len(parts[2]), dtype=bool)]
        )
        return pa.concat_tables(parts), still_waiting

    def waiting(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Which rows wait, shape (n,), as far as it is known here."""
        _, described = self._described(rows)
        return came_in_undescribed(rows) & self._waits(rows, described)

    def _described(self, rows: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return self.known.profiles.describe(
            pl.Series(values=rows["profile_id"].cast(pa.string()).combine_chunks(), dtype=pl.String),
            pl.Series(milliseconds(rows["event_timestamp"])),
        )

    def _waits(self, rows: pa.Table, described: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return ~described & (self.now_ms - milliseconds(rows["ingested_at"]) < self.wait_ms)

    def _stripped(self, rows: pa.Table) -> pa.Table:
        return LateChildren(self.known, self.pseudonymizer, self.now_ms).stripped(rows)


def came_in_undescribed(rows: pa.Table) -> NDArray[np.bool_]:
    """Rows of a profile that nobody had described when they came in, shape (n,)."""
    return np.asarray(pc.invert(pc.fill_null(rows["profile_described"], True)), dtype=bool)


def _with_kids(rows: pa.Table, values: pa.ChunkedArray | bool) -> pa.Table:
    column = pa.repeat(pa.scalar(values), rows.num_rows) if isinstance(values, bool) else values
    return rows.set_column(rows.column_names.index("is_kids"), "is_kids", column)
