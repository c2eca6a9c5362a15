"""Which rows a part of a log is made of, and which part of a log new rows change.

A source says what holds its rows together (`features.source`): units, such as a playback or a session, and a reach in
time. Here both are followed, over rows of which only this is known: whose they are (`person`, the value of `together`),
their `unit` and when they were received. Values are 64-bit hashes; two that share one cost work, not correctness.

    new rows           change what comes after them: in their unit, within the reach of that, and in the units there
    a part of the log  needs the same backwards: `context_ms` before it, which holds all of it but of long people;
                       the rows of those are read whole
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from features.columns import milliseconds
from features.distinct import codes_of, encoded
from features.source import EVENT_TIME
from features.windows import DAY_MS

_NONE, _SEED = 0, 20_240_229
Hashes = NDArray[np.uint64]


def hashes(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """A hash of each text, [n]; 0 for null."""
    texts = encoded(column)
    distinct = pl.Series(values=texts.dictionary.cast(pa.string()), dtype=pl.String)
    values = distinct.to_frame().hash_rows(_SEED).to_numpy()  # those of `Series.hash`, which plans a query for it
    return np.append(values, np.uint64(_NONE))[codes_of(texts)]


def is_among(values: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Which of the values are wanted; `wanted` is ascending."""
    if not len(wanted):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    found: NDArray[np.bool_] = wanted[places] == values
    return found


def seen(rows: pa.Table, together: str, bindings: Sequence[Sequence[str]]) -> pl.DataFrame:
    """`person`, `unit` and `at_ms` of the rows, once for each binding: columns of which the first known one counts.

    The unit is null where there is no binding.
    """
    person, at_ms = hashes(rows[together]), milliseconds(rows[EVENT_TIME])
    if not bindings:
        return pl.DataFrame(
            {"person": person, "unit": pl.Series([None] * len(person), dtype=pl.UInt64), "at_ms": at_ms}
        )
    frames = []
    for columns in bindings:
        frames.append(pl.DataFrame({"person": person, "unit": units(rows, person, columns), "at_ms": at_ms}))
    return pl.concat(frames)


def units(rows: pa.Table, person: Hashes, columns: Sequence[str]) -> Hashes:
    """The unit of each row by some columns: its first known value of them, else its person; [n]."""
    unit = np.full(len(person), _NONE, dtype=np.uint64)
    for name in columns:
        unit = np.where(unit == _NONE, hashes(rows[name]), unit)
    return np.where(unit == _NONE, person, unit)


def spans(rows: pl.DataFrame) -> pl.DataFrame:
    """`first_ms` and `last_ms` of each unit of each person among rows of `seen`."""
    return rows.group_by("person", "unit").agg(first_ms=pl.col("at_ms").min(), last_ms=pl.col("at_ms").max())


def joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Spans of all rows, from those of some of them."""
    whole = pl.concat([_NO_SPANS, *parts])
    return whole.group_by("person", "unit").agg(pl.col("first_ms").min(), pl.col("last_ms").max())


_NO_SPANS = pl.DataFrame(schema={"person": pl.UInt64, "unit": pl.UInt64, "first_ms": pl.Int64, "last_ms": pl.Int64})


def new_by_day(rows: pl.DataFrame) -> pl.DataFrame:
    """New rows of `seen` by person, unit and `day` (whole number since 1970)."""
    days = rows.with_columns(day=pl.col("at_ms") // DAY_MS)
    return days.group_by("person", "unit", "day").agg(first_ms=pl.col("at_ms").min(), last_ms=pl.col("at_ms").max())


def touched_days(new: pl.DataFrame, known: pl.DataFrame, reach_ms: int) -> set[int]:
    """Days of which some row of the log may be another once there are new rows (of `new_by_day`).

    `known` are the spans of all units that have a row at or after the first new one, the new rows included.
    """
    by_day = ["person", "day"]
    begun = new.group_by(by_day).agg(pl.col("first_ms").min(), pl.col("last_ms").max())
    units = known.filter(pl.col("unit").is_not_null())
    same = new.select(*by_day, "unit").unique().join(units.drop("first_ms"), on=["person", "unit"])
    until = pl.concat([begun.select(*by_day, "last_ms"), same.select(*by_day, "last_ms")])
    begun = begun.drop("last_ms").join(until.group_by(by_day).agg(until_ms=pl.col("last_ms").max()), on=by_day)
    near = begun.join(units.rename({"first_ms": "unit_first_ms"}), on="person").filter(
        pl.col("unit_first_ms") <= pl.col("until_ms") + reach_ms, pl.col("last_ms") >= pl.col("first_ms")
    )
    ends = pl.concat([begun.select("day", "until_ms"), near.select("day", until_ms="last_ms")])
    found: set[int] = set()
    for day, until_ms in ends.group_by("day").agg(pl.col("until_ms").max()).iter_rows():
        found.update(range(day, until_ms // DAY_MS + 1))
    return found


def context_ms(reach_ms: int) -> int:
    """How long before a part of a log rows must be read to make it, of all but `long_people`."""
    return 3 * reach_ms


def open_units(known: pl.DataFrame, start_ms: int, reach_ms: int) -> Hashes:
    """Units that decide on a part from `start_ms` on, ascending: whoever has older rows of one is a long person."""
    near = known.filter(pl.col("unit").is_not_null(), pl.col("last_ms") >= start_ms - 2 * reach_ms)
    return near["unit"].unique().sort().to_numpy()


def long_people(known: pl.DataFrame, start_ms: int, reach_ms: int) -> Hashes:
    """Persons whose part from `start_ms` on is made of older rows than `context_ms` before it; ascending.

    Of anybody else, units with a row in the part began at most a reach before it. What lies within the reach before
    those is of units that began within three.
    """
    first_ms, last_ms = pl.col("first_ms"), pl.col("last_ms")
    is_long = ((last_ms >= start_ms) & (first_ms < start_ms - reach_ms)) | (
        (last_ms >= start_ms - 2 * reach_ms) & (first_ms < start_ms - 3 * reach_ms)
    )
    return known.filter(pl.col("unit").is_not_null(), is_long)["person"].unique().sort().to_numpy()
