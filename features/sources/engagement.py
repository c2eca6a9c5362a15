"""The engagement log: how far titles are watched, and what follows.

Rules:

- What a playback is, and what was watched of it, is as in `features.playbacks`.
- At the stop of a VOD playback it is known how many tenths of the title it reached (`tenths`, 0 to 10), and whether
  its intro was skipped.
- Somebody who starts the next episode of a series at most 30 minutes after a stop of the one before went on. That is
  known with the start, and is a row (`event_id` and `:from`) of the episode before.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.frames import frame_of, log_of
from features.playbacks import IDENTITY_COLUMNS, PLAYBACK_BOUND_BY, PLAYBACK_EVENTS, in_playbacks, playing
from features.source import FROM, Source, Tables
from features.windows import MINUTE_MS

_PLAYBACK = (*IDENTITY_COLUMNS, "user_id", "content_type", "completion_percent", "seek_method", "content_series_id",
             "content_episode_number")  # fmt: skip
_GOES_ON_WITHIN = "30m"


def engagement_log(playback: pa.Table) -> pa.Table:
    """The engagement log of playback events in any order, by (time, id); has the schema of `ENGAGEMENT`.

    All events of a viewer must be there together.

    Raises:
        LogError: a column is missing, or an event has no time.
    """
    events = playing(in_playbacks(frame_of(playback, _PLAYBACK, "the playback table")))
    has_skipped = (pl.col("seek_method") == "skip_intro").fill_null(False).cum_max().over("playback")
    is_vod_stop = pl.col("is_stop") & (pl.col("content_type") == "vod")
    is_episode = pl.col("content_series_id").is_not_null() & pl.col("content_episode_number").is_not_null()
    events = events.with_columns(
        tenths=pl.when(is_vod_stop).then((pl.col("completion_percent") / 10).floor().clip(0, 10).cast(pl.Int64)),
        has_skipped_intro=pl.when(is_vod_stop).then(has_skipped),
        episode_viewer=pl.when(is_episode).then("viewer_token"),
        went_on=pl.lit(False),
    )
    said = events.filter(pl.col("is_start") | pl.col("is_stop") | (pl.col("watch_ms") > 0))
    return log_of([said, _gone_on(said.filter(pl.col("episode_viewer").is_not_null()))], ENGAGEMENT.schema)


def _gone_on(events: pl.DataFrame) -> pl.DataFrame:
    """A row of the episode before, for each start of an episode soon after a stop of that."""
    place = ["viewer_token", "content_series_id", "_episode"]
    stops = events.filter("is_stop").select(
        "event_timestamp", "viewer_token", "content_series_id", "event_id",
        (pl.col("content_episode_number") + 1).alias("_episode"), pl.col("content_id").alias("_before"),
    ).sort("event_timestamp", "event_id").drop("event_id")  # fmt: skip
    starts = events.filter("is_start").select(
        pl.col("event_id") + FROM, "event_timestamp", "viewer_token", "episode_viewer", "content_series_id",
        pl.col("content_episode_number").alias("_episode"),
    ).sort("event_timestamp")  # fmt: skip
    followed = starts.join_asof(
        stops, on="event_timestamp", by=place, strategy="backward", tolerance=_GOES_ON_WITHIN, check_sortedness=False
    )
    return followed.filter(pl.col("_before").is_not_null()).select(
        "event_id", "event_timestamp", pl.col("_before").alias("content_id"), "episode_viewer", went_on=pl.lit(True)
    )


def _make(tables: Tables) -> pa.Table:
    return engagement_log(tables["silver.playback"])


ENGAGEMENT = Source(
    "engagement",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("content_id", pa.string()),
            ("episode_viewer", pa.string()),
            ("watch_ms", pa.int64()),
            ("is_start", pa.bool_()),
            ("tenths", pa.int64()),
            ("has_skipped_intro", pa.bool_()),
            ("went_on", pa.bool_()),
        ]
    ),
    events=PLAYBACK_EVENTS,
    reads={"silver.playback": _PLAYBACK},
    together="viewer_token",
    make=_make,
    bound_by=PLAYBACK_BOUND_BY,
    reach_ms=30 * MINUTE_MS,
)
"""`episode_viewer`: who watched, of episodes of a series only."""
