"""The watching log: who watches what right now, as the players' signs of life say.

Rules:

- A viewer watches at the start of a playback and at every heartbeat, which players send every 30 seconds while they
  play. Nothing else says so: a pause and a stop only end it, a seek or a change of quality comes with heartbeats.
- The channel is the content of what is live; catch-up and start-over are watched for themselves.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.playbacks import PLAYBACK_BOUND_BY
from features.source import Source, Tables

_PLAYBACK = ("event_id", "event_name", "event_timestamp", "viewer_token", "playback_id", "session_id", "content_id",
             "content_type", "platform")  # fmt: skip
_EVENTS = ("playback.started", "playback.heartbeat")


def watching_log(playback: pa.Table) -> pa.Table:
    """The watching log of events in any order, by (time, id); has the schema of `WATCHING`.

    Raises:
        LogError: a column is missing, or an event has no time.
    """
    events = frame_of(playback, _PLAYBACK, "the playback table").filter(pl.col("event_name").is_in(_EVENTS))
    channel = pl.when(pl.col("content_type") == "live").then("content_id")
    return log_of([events.with_columns(channel_id=channel)], WATCHING.schema)


def _make(tables: Tables) -> pa.Table:
    return watching_log(tables["silver.playback"])


WATCHING = Source(
    "watching",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("viewer_token", pa.string()),
            ("content_id", pa.string()),
            ("channel_id", pa.string()),
            ("platform", pa.string()),
        ]
    ),
    events=_EVENTS,
    reads={"silver.playback": _PLAYBACK},
    together="viewer_token",
    make=_make,
    bound_by=PLAYBACK_BOUND_BY,  # a row stands for itself; so its rows lie with those of the other playback logs
)
