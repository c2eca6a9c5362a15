"""The channels log: who tuned in to a channel, for how long, and where they went.

Rules:

- A tune-in is a row of the channel tuned to, at the hour of the viewer's wall clock.
- It is another row of the channel that was left for it (`event_id` and `:from`), which says what came next.
- A tune-away is a row of its channel, with how long it was on.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.local_time import CLOCK_COLUMNS, hour, with_local_time
from features.source import FROM, Source, Tables

_LIVE = ("event_id", "event_name", "event_timestamp", *CLOCK_COLUMNS, "viewer_token", "channel_id",
         "previous_channel_id", "view_duration_ms")  # fmt: skip
_TUNE, _TUNE_AWAY = "channel.tune", "channel.tune_away"


def channels_log(live: pa.Table) -> pa.Table:
    """The channels log of events in any order, by (time, id); has the schema of `CHANNELS`.

    Raises:
        LogError: a column is missing, an event has no time, or a time zone is unknown.
    """
    events = with_local_time(frame_of(live, _LIVE, "the live table"), "the live table")
    tunes = events.filter(pl.col("event_name") == _TUNE)
    into = tunes.with_columns(hour=hour())
    is_other = (
        pl.col("previous_channel_id").ne_missing(pl.col("channel_id")) & pl.col("previous_channel_id").is_not_null()
    )
    out_of = tunes.filter(is_other).with_columns(
        event_id=pl.col("event_id") + FROM, next_channel_id="channel_id", channel_id="previous_channel_id"
    )
    away = events.filter(pl.col("event_name") == _TUNE_AWAY)
    return log_of([into, out_of, away], CHANNELS.schema)


def _make(tables: Tables) -> pa.Table:
    return channels_log(tables["silver.live"])


CHANNELS = Source(
    "channels",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_name", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("channel_id", pa.string()),
            ("next_channel_id", pa.string()),
            ("hour", pa.int64()),
            ("view_duration_ms", pa.int64()),
        ]
    ),
    events=(_TUNE, _TUNE_AWAY),
    reads={"silver.live": _LIVE},
    together="viewer_token",
    make=_make,
)
"""`hour`: 0 to 23, of tune-ins only; `view_duration_ms`: of tune-aways only."""
