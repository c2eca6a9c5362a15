"""The viewing log: silver playback events turned into what features count.

A row is an event that says something about viewing: a playback began, ended, or went on. `watch_ms` is the
watched time that *became known* with it: the time since the previous event of the same playback, if it was
playing. So the sum over the events before `t` is the watch time known at `t`, whatever comes later: a playback
whose end has not arrived is watched up to its last event, and its completion is null, not false.

Rules:

- A playback is known by (profile, `playback_id`). Without an id, it is a run of events of one session (of one
  viewer token, where the session is unknown, as for kids) and title without a gap of more than 30 minutes; a
  start that follows a stop begins another.
- It plays from `started` (or, where that never came, from its first heartbeat) and from `resumed`, until
  `paused` or `stopped`. Stalls count as watched. At `started` the increment is 0.
- After its first `stopped` a playback says nothing more. It is started once, however often that is sent.
- Order within a playback is (event_timestamp, event_id): what the server knew, and when.
- The local weekday is taken from the client's clock where that is reliable, else from the server's, in the
  viewer's time zone (null: UTC).
- Genres and a missing content type come from the title's latest row at or before the event, else its earliest.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of
from features.local_time import CLOCK_COLUMNS, weekday, with_local_time
from features.source import Source, Tables
from features.windows import MINUTE_MS

_GAP_MS = 30 * MINUTE_MS
_COMPLETE_ABOVE_PERCENT = 90
_FINISHED_FROM_PERCENT = 50
_STARTED, _STOPPED = "playback.started", "playback.stopped"
# What decides which playback an event belongs to.
IDENTITY_COLUMNS = ("event_id", "event_name", "event_timestamp", "profile_id", "session_id", "viewer_token",
                    "playback_id", "content_id")  # fmt: skip
# By what the events of a playback are held together, however far they lie apart.
PLAYBACK_BOUND_BY = ("playback_id", "session_id")
PLAYBACK_EVENTS = tuple(
    f"playback.{what}"
    for what in ("requested", "started", "heartbeat", "paused", "resumed", "seeked", "quality_changed", "rebuffer",
                 "error", "stopped")
)  # fmt: skip

PLAYBACK_COLUMNS = (*IDENTITY_COLUMNS, *CLOCK_COLUMNS, "user_id", "content_type", "completion_percent")
"""Columns of silver.playback that are read."""

TITLE_COLUMNS = ("content_id", "content_type", "genres", "event_timestamp")
"""Columns of silver.titles that are read."""


def viewing_log(playback: pa.Table, titles: pa.Table) -> pa.Table:
    """The viewing log of playback events in any order; sorted by (profile_id, event_timestamp, event_id).

    All events of a playback must be there together; kids' events have no profile and come last. The result
    has the schema of `VIEWING_LOG`.

    Raises:
        LogError: a column is missing, an event has no time, or a time zone is unknown.
    """
    events = frame_of(playback, PLAYBACK_COLUMNS, "the playback table")
    log = _said(playing(in_playbacks(events)))
    log = _with_title(log, frame_of(titles, TITLE_COLUMNS, "the titles table"))
    log = with_local_time(log, "the playback table").with_columns(weekday=weekday())
    log = log.sort("profile_id", "event_timestamp", "event_id", nulls_last=True)
    return log.select(VIEWING_LOG.schema.names).to_arrow().cast(VIEWING_LOG.schema)


def _make(tables: Tables) -> pa.Table:
    return viewing_log(tables["silver.playback"], tables["silver.titles"])


VIEWING_LOG = Source(
    "viewing_log",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("profile_id", pa.string()),
            ("user_id", pa.string()),
            ("viewer_token", pa.string()),
            ("content_id", pa.string()),
            ("content_type", pa.string()),
            ("genres", pa.list_(pa.string())),
            ("watch_ms", pa.int64()),
            ("is_start", pa.bool_()),
            ("is_stop", pa.bool_()),
            ("is_complete", pa.bool_()),
            ("is_finished", pa.bool_()),
            ("weekday", pa.int64()),
        ]
    ),
    events=PLAYBACK_EVENTS,
    reads={"silver.playback": PLAYBACK_COLUMNS},
    shared={"silver.titles": TITLE_COLUMNS},
    together="viewer_token",
    make=_make,
    bound_by=PLAYBACK_BOUND_BY,
)
"""`is_complete`: past 90 % at the stop of a VOD playback, null of any other event or where that is not known;
`is_finished`: stopped at 50 % or more; `weekday`: 0 is Monday, in local time."""


def in_playbacks(events: pl.DataFrame) -> pl.DataFrame:
    """Events by (playback, time, id), with `playback`: a number for each playback."""
    is_known = pl.col("playback_id").is_not_null()
    session = pl.when(is_known).then(None).otherwise(pl.coalesce("session_id", "viewer_token"))
    content = pl.when(is_known).then(None).otherwise(pl.col("content_id"))
    identity = ("profile_id", "playback_id", "_session", "_content")
    events = events.with_columns(_session=session, _content=content)
    events = events.sort(*identity, "event_timestamp", "event_id")
    is_other = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in identity)
    events = events.with_columns(_chain=is_other.fill_null(True).cum_sum())
    # What the last start or stop before an event was: true for a stop.
    mark = pl.when(pl.col("event_name") == _STOPPED).then(True).when(pl.col("event_name") == _STARTED).then(False)
    after_stop = mark.shift(1).forward_fill().over("_chain").fill_null(False)
    since_ms = pl.col("event_timestamp").diff().dt.total_milliseconds().over("_chain")
    is_next = ~is_known & ((since_ms > _GAP_MS) | (after_stop & (pl.col("event_name") == _STARTED)))
    is_first = pl.col("_chain").diff().fill_null(1) > 0
    return events.with_columns(playback=(is_first | is_next.fill_null(False)).cum_sum())


def playing(events: pl.DataFrame) -> pl.DataFrame:
    """Of `in_playbacks`, events up to the first stop of each, with `watch_ms`, `is_start` and `is_stop`."""
    name = pl.col("event_name")
    switched = (
        pl.when(name.is_in([_STARTED, "playback.resumed"])).then(True)
        .when(name.is_in(["playback.paused", _STOPPED])).then(False)
    )  # fmt: skip
    beating = pl.when(name == "playback.heartbeat").then(True)
    is_playing = pl.coalesce(switched.forward_fill(), beating.forward_fill(), pl.lit(False))
    was_playing = is_playing.shift(1).over("playback").fill_null(False)
    since_ms = pl.col("event_timestamp").diff().dt.total_milliseconds().over("playback")
    started, stopped = (name == _STARTED).cast(pl.Int64), (name == _STOPPED).cast(pl.Int64)
    return events.with_columns(
        watch_ms=pl.when(was_playing & (name != _STARTED)).then(since_ms).otherwise(0).fill_null(0),
        is_start=(name == _STARTED) & (started.cum_sum().over("playback") == 1),
        is_stop=name == _STOPPED,
        _stops_before=(stopped.cum_sum() - stopped).over("playback"),
    ).filter(pl.col("_stops_before") == 0)


def _said(events: pl.DataFrame) -> pl.DataFrame:
    """Only the events that say something about viewing; the others must not look like a sign of life."""
    return events.filter(pl.col("is_start") | pl.col("is_stop") | (pl.col("watch_ms") > 0))


def _with_title(log: pl.DataFrame, titles: pl.DataFrame) -> pl.DataFrame:
    """Genres, content type and what depends on it."""
    titles = titles.rename({"content_type": "_type"}).with_columns(_is_known=pl.lit(True))
    titles = titles.sort("event_timestamp", "_type", pl.col("genres").list.join("\n"), nulls_last=True)
    earliest = titles.unique("content_id", keep="first", maintain_order=True).drop("event_timestamp")
    log = log.sort("event_timestamp").join_asof(
        titles, on="event_timestamp", by="content_id", strategy="backward", check_sortedness=False
    )
    log = log.join(earliest, on="content_id", how="left", suffix="_earliest")
    is_dated = pl.col("_is_known").is_not_null()
    log = log.with_columns(
        pl.when(is_dated).then(name).otherwise(f"{name}_earliest").alias(name) for name in ("genres", "_type")
    )
    log = log.with_columns(content_type=pl.coalesce("content_type", "_type"))
    percent, is_vod = pl.col("completion_percent"), pl.col("content_type") == "vod"
    return log.with_columns(
        is_complete=pl.when(pl.col("is_stop") & is_vod).then(percent > _COMPLETE_ABOVE_PERCENT),
        is_finished=(pl.col("is_stop") & (percent >= _FINISHED_FROM_PERCENT)).fill_null(False),
    )
