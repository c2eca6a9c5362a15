"""Between tables of events and logs: the same first and last step of every source."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from features.columns import require_columns
from features.errors import LogError


def frame_of(table: pa.Table, columns: Sequence[str], what: str) -> pl.DataFrame:
    """The columns as Polars, times in whole milliseconds UTC.

    Raises:
        LogError: a column is missing, or a row has no `event_timestamp`; `what` says of which table.
    """
    require_columns(table, columns, what)
    if table["event_timestamp"].null_count:
        raise LogError(f"{what} has {table['event_timestamp'].null_count:,} row(s) without event_timestamp")
    frame = pl.DataFrame(table.select(list(columns)))
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(times).dt.cast_time_unit("ms").dt.convert_time_zone("UTC"))


def log_of(frames: Sequence[pl.DataFrame], schema: pa.Schema) -> pa.Table:
    """One log of rows that each have some of the schema's columns (the others are null), by (time, id)."""
    rows = pl.concat(frames, how="diagonal_relaxed").sort("event_timestamp", "event_id")
    missing = [pl.lit(None).alias(name) for name in schema.names if name not in rows.columns]
    return rows.with_columns(missing).select(schema.names).to_arrow().cast(schema)
