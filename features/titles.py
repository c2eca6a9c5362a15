"""Of which titles the viewing log says something else than it did, and since when.

A log row has what the title's latest row at or before it says, else what its earliest says (`features.playbacks`).
"""

import polars as pl
import pyarrow as pa

from features.frames import frame_of
from features.playbacks import TITLE_COLUMNS

_SINCE_EVER_MS = -(1 << 60)


def titles_changed(before: pa.Table, now: pa.Table) -> pl.DataFrame:
    """`content_id` and `since_ms`, the first instant of which it says something else, of titles that changed."""
    old, new = _said(before), _said(now)
    points = pl.concat([one.select("content_id", "at_ms") for one in (old, new)]).unique().sort("at_ms")
    for known, name in ((old, "old"), (new, "new")):
        points = points.join_asof(
            known.rename({"said": name}).sort("at_ms"), on="at_ms", by="content_id", check_sortedness=False
        )
    differs = points.filter(pl.col("old").ne_missing(pl.col("new")))
    return differs.group_by("content_id").agg(since_ms=pl.col("at_ms").min()).sort("content_id")


def _said(titles: pa.Table) -> pl.DataFrame:
    """What is said of each title from each instant (`at_ms`) on, as text."""
    frame = frame_of(titles, TITLE_COLUMNS, "the titles table").with_columns(
        _genres=pl.col("genres").list.join("\n"), at_ms=pl.col("event_timestamp").dt.epoch("ms")
    )
    frame = frame.sort("at_ms", "content_type", "_genres", nulls_last=True)
    kind, genres = (pl.col(name).fill_null("\0") for name in ("content_type", "_genres"))
    said = frame.select("content_id", "at_ms", said=pl.format("{}|{}", kind, genres))
    first = said.unique("content_id", keep="first", maintain_order=True).with_columns(
        at_ms=pl.lit(_SINCE_EVER_MS, pl.Int64)
    )
    return pl.concat([first, said]).unique(["content_id", "at_ms"], keep="last", maintain_order=True)
