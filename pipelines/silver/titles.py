"""The catalogue's history: every row says all that is known of a title from then on.

`title.added` and `title.updated` say all of a title but its availability, `availability.changed` says that alone; so
each row carries what the latest row before it said of the other. A row that is received late changes what those after
it carry: the table is then written anew as a whole, which a catalogue is small enough for.
"""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from pipelines.lakehouse import tables

AVAILABILITY_EVENT = "availability.changed"
_AVAILABILITY = ("is_available", "available_markets", "available_until")
_DESCRIPTION = ("title", "content_type", "genres", "runtime_ms", "maturity_rating", "series_id", "episode_number")
_ORDER = ("content_id", "event_timestamp", "event_id")


@dataclass(frozen=True)
class Announced:
    """The history after some announcements: rows to append, or, if `is_rewritten`, all rows."""

    rows: pa.Table
    is_rewritten: bool
    added: int
    duplicates: int


def announce(history: pa.Table, fresh: pa.Table) -> Announced:
    """`history` (the schema of `TITLE_HISTORY`) with `fresh` announcements, in any order, of which some may repeat."""
    before = _frame(history)
    incoming = _frame(fresh).sort("event_timestamp", "event_id", maintain_order=True)
    new = incoming.unique("event_id", keep="first", maintain_order=True).join(before, on="event_id", how="anti")
    after = carried(pl.concat([before, new]))
    is_new = after["event_id"].is_in(new["event_id"].implode())
    unchanged = after.filter(~is_new).equals(before.sort(*_ORDER))
    rows = after.filter(is_new) if unchanged else after
    return Announced(
        rows.to_arrow().cast(tables.TITLE_HISTORY), not unchanged, new.height, incoming.height - new.height
    )


def carried(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows by title and time, each with what the latest row before it said of what it does not say itself."""
    rows = rows.sort(*_ORDER).with_row_index("row")
    describes = pl.col("announced_by").ne_missing(AVAILABILITY_EVENT)
    latest = {
        name: pl.when(says).then("row").forward_fill().over("content_id")
        for name, says in (("described", describes), ("offered", ~describes))
    }
    at = rows.select(**latest)
    columns = [
        rows[name].gather(at["described" if name in _DESCRIPTION else "offered"])
        for name in (*_DESCRIPTION, *_AVAILABILITY)
    ]
    return rows.with_columns(columns).drop("row")


def _frame(rows: pa.Table) -> pl.DataFrame:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in tables.TITLE_HISTORY
    ]
    frame = pl.from_arrow(pa.table(columns, names=tables.TITLE_HISTORY.names))
    assert isinstance(frame, pl.DataFrame)
    return frame
