"""The sessions log: in which surroundings somebody opens the app.

Rules:

- A session begins with its first launch or playback. Its number is how many sessions of the same profile began on the
  same day of the viewer's calendar up to and with it; it stays that, past midnight too.
- The hour and the weekday are those of each event, on the viewer's wall clock.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.local_time import CLOCK_COLUMNS, LOCAL, hour, weekday, with_local_time
from features.source import Source, Tables
from features.windows import HOUR_MS

_COLUMNS = ("event_id", "event_name", "event_timestamp", *CLOCK_COLUMNS, "user_id", "profile_id", "session_id",
            "device_type", "connection_type")  # fmt: skip
_EVENTS = ("app.launch", "playback.started")


def sessions_log(navigation: pa.Table, playback: pa.Table) -> pa.Table:
    """The sessions log of events in any order, by (time, id); has the schema of `SESSIONS`.

    All events of an account must be there together.

    Raises:
        LogError: a column is missing, an event has no time, or a time zone is unknown.
    """
    tables = ((navigation, "the navigation table"), (playback, "the playback table"))
    events = pl.concat([with_local_time(frame_of(table, _COLUMNS, what), what) for table, what in tables])
    events = events.filter(pl.col("event_name").is_in(_EVENTS), pl.col("session_id").is_not_null())
    events = events.sort("event_timestamp", "event_id")
    begun = events.unique("session_id", keep="first", maintain_order=True)
    viewer = pl.coalesce("profile_id", "user_id")
    number = pl.int_range(1, pl.len() + 1).over(viewer, pl.col(LOCAL).dt.date())
    begun = begun.select("session_id", pl.when(viewer.is_not_null()).then(number).alias("session_number"))
    log = events.join(begun, on="session_id", how="left").with_columns(hour=hour(), weekday=weekday())
    return log_of([log], SESSIONS.schema)


def _make(tables: Tables) -> pa.Table:
    return sessions_log(tables["silver.navigation"], tables["silver.playback"])


SESSIONS = Source(
    "sessions",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("session_id", pa.string()),
            ("device_type", pa.string()),
            ("connection_type", pa.string()),
            ("hour", pa.int64()),
            ("weekday", pa.int64()),
            ("session_number", pa.int64()),
        ]
    ),
    events=_EVENTS,
    reads={"silver.navigation": _COLUMNS, "silver.playback": _COLUMNS},
    make=_make,
    bound_by=("session_id",),
    reach_ms=26 * HOUR_MS,  # a calendar day has 25 hours at most, and a reliable clock is minutes off
)
"""`hour`: 0 to 23; `weekday`: 0 is Monday; `session_number`: 1 and up."""
