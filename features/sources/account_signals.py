"""The account log: signs of staying or leaving, from what the platform's services and players report.

Rules:

- Watch time is as in `features.playbacks`: what became known with each playback event.
- Stalled time is what a player reports of a stall that is over, `rebuffer_duration_ms`; unknown is none.
- Log-ins, support contacts and failed payments are the events of `user.events` of that name.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.playbacks import IDENTITY_COLUMNS, PLAYBACK_BOUND_BY, PLAYBACK_EVENTS, in_playbacks, playing
from features.source import Source, Tables

_PLAYBACK = (*IDENTITY_COLUMNS, "user_id", "rebuffer_duration_ms")
_USER = ("event_id", "event_name", "event_timestamp", "user_id")
_SIGNS = ("auth.login_succeeded", "support.contacted", "payment.failed")


def account_log(user: pa.Table, playback: pa.Table) -> pa.Table:
    """The account log of events in any order, by (time, id); has the schema of `ACCOUNT_SIGNALS`.

    All events of an account must be there together.

    Raises:
        LogError: a column is missing, or an event has no time.
    """
    watched = playing(in_playbacks(frame_of(playback, _PLAYBACK, "the playback table")))
    is_stall = pl.col("event_name") == "playback.rebuffer"
    watched = watched.with_columns(stalled_ms=pl.when(is_stall).then("rebuffer_duration_ms").otherwise(0).fill_null(0))
    watched = watched.filter((pl.col("watch_ms") > 0) | (pl.col("stalled_ms") > 0))
    signs = frame_of(user, _USER, "the user table").filter(pl.col("event_name").is_in(_SIGNS))
    return log_of([watched, signs], ACCOUNT_SIGNALS.schema)


def _make(tables: Tables) -> pa.Table:
    return account_log(tables["silver.user"], tables["silver.playback"])


ACCOUNT_SIGNALS = Source(
    "account_signals",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_name", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("user_id", pa.string()),
            ("watch_ms", pa.int64()),
            ("stalled_ms", pa.int64()),
        ]
    ),
    events=(*_SIGNS, *PLAYBACK_EVENTS),
    reads={"silver.user": _USER, "silver.playback": _PLAYBACK},
    make=_make,
    bound_by=PLAYBACK_BOUND_BY,
)
