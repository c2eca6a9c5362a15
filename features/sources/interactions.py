"""The interactions log: what a viewer was shown, clicked, scrolled to and searched for.

Rules:

- A rail's depth is how far it was scrolled in one session, in per mille of its length. What a scroll adds to the
  deepest one before it is its `deeper`; the first scroll of a rail in a session is a `is_first_scroll`. So the sum of
  the one over the number of the other is the mean deepest scroll known by then, whatever comes later.
- Genres of a click, on a tile or on a search's result, are those the title had at the time.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.source import Source, Tables

_BROWSE = ("event_id", "event_name", "event_timestamp", "user_id", "profile_id", "session_id", "rail_id",
           "scroll_depth_percent", "content_genres")  # fmt: skip
_SEARCH = ("event_id", "event_name", "event_timestamp", "user_id", "profile_id", "content_genres")
_EVENTS = ("tile.impression", "tile.click", "rail.scroll", "search.query", "search.result.click")
_CLICKS = ("tile.click", "search.result.click")


def interactions_log(browse: pa.Table, search: pa.Table) -> pa.Table:
    """The interactions of events in any order, by (time, id); has the schema of `INTERACTIONS`.

    All events of a profile's session must be there together.

    Raises:
        LogError: a column is missing, or an event has no time.
    """
    browsed = frame_of(browse, _BROWSE, "the browse table").filter(pl.col("event_name").is_in(_EVENTS))
    searched = frame_of(search, _SEARCH, "the search table").filter(pl.col("event_name").is_in(_EVENTS))
    genres = pl.when(pl.col("event_name").is_in(_CLICKS)).then(pl.col("content_genres")).alias("clicked_genres")
    return log_of([_scrolled(browsed).with_columns(genres), searched.with_columns(genres)], INTERACTIONS.schema)


def _scrolled(events: pl.DataFrame) -> pl.DataFrame:
    """The events with what each scroll adds to its rail's depth."""
    rail = ["profile_id", "session_id", "rail_id", "_is_scroll"]
    is_scroll = (pl.col("event_name") == "rail.scroll") & pl.col("scroll_depth_percent").is_not_null()
    depth = (pl.col("scroll_depth_percent") * 10).round().cast(pl.Int64)
    events = events.with_columns(_is_scroll=is_scroll, _depth=depth).sort("event_timestamp", "event_id")
    before = pl.col("_depth").cum_max().shift(1).over(rail)
    is_first = pl.int_range(pl.len()).over(rail) == 0
    return events.with_columns(
        deeper=pl.when("_is_scroll").then(pl.max_horizontal(pl.col("_depth") - before.fill_null(0), 0)),
        is_first_scroll=pl.col("_is_scroll") & is_first,
    )


def _make(tables: Tables) -> pa.Table:
    return interactions_log(tables["silver.browse"], tables["silver.search"])


INTERACTIONS = Source(
    "interactions",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_name", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("user_id", pa.string()),
            ("profile_id", pa.string()),
            ("deeper", pa.int64()),
            ("is_first_scroll", pa.bool_()),
            ("clicked_genres", pa.list_(pa.string())),
        ]
    ),
    events=_EVENTS,
    reads={"silver.browse": _BROWSE, "silver.search": _SEARCH},
    make=_make,
    bound_by=("session_id",),
)
