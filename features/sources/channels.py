"""The channels log: who tuned in to a channel, for how long, and where they went.

Rules:

- A tune-in is a row of the channel tuned to, at the hour of the viewer's wall clock, and in a slot of the platform's:
  hours since 1970 (UTC), modulo 744. No two hours of 31 days share one.
- It is another row of the channel that was left for it (`event_id` and `event_name`, each with `:from`), which says
  what came next: it is no tune-in of that channel.
- A tune-away is a row of its channel, with how long it was on.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.local_time import CLOCK_COLUMNS, hour, with_local_time
from features.source import FROM, Source, Tables
from features.windows import HOUR_MS

_LIVE = ("event_id", "event_name", "event_timestamp", *CLOCK_COLUMNS, "viewer_token", "channel_id",
         "previous_channel_id", "view_duration_ms")  # fmt: skip
HOUR_SLOTS = 31 * 24
_TUNE, _TUNE_AWAY = "channel.tune", "channel.tune_away"


def channels_log(live: pa.Table) -> pa.Table:
    """The channels log of events in any order, by (time, id); has the schema of `CHANNELS`.

    Raises:
        LogError: a column is missing, an event has no time, or a time zone is unknown.
    """
    events = with_local_time(frame_of(live, _LIVE, "the live table"), "the live table")
    tunes = events.filter(pl.col("event_name") == _TUNE)
    hours = pl.col("event_timestamp").dt.epoch("ms") // HOUR_MS
    into = tunes.with_columns(hour=hour(), hour_slot=hours % HOUR_SLOTS)
    is_other = (
        pl.col("previous_channel_id").ne_missing(pl.col("channel_id")) & pl.col("previous_channel_id").is_not_null()
    )
    out_of = tunes.filter(is_other).with_columns(
        event_id=pl.col("event_id") + FROM,
        event_name=pl.col("event_name") + FROM,
        next_channel_id="channel_id",
        channel_id="previous_channel_id",
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
            ("hour_slot", pa.int64()),
            ("view_duration_ms", pa.int64()),
        ]
    ),
    events=(_TUNE, _TUNE_AWAY),
    reads={"silver.live": _LIVE},
    together="viewer_token",
    make=_make,
)
"""`hour`: 0 to 23, `hour_slot`: 0 to 743, of tune-ins only; `view_duration_ms`: of tune-aways only."""
