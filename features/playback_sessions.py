"""Playback sessions: one row for each playback, from its events (spec 4.4, session grouping).

What a playback is, and what of it was watched, is as in `features.playbacks`: the same arithmetic, so that the watch
time of a session is the sum of what its events said. A session is as much as is known of it: without a stop it ends at
its last event, and its completion is null, not false.

A `chain` brings playbacks together whose events decide on each other (two runs of one title in one session, cut by a
gap that a late event may fill): whoever updates sessions makes all of a chain anew.
"""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import require_columns
from features.playbacks import in_playbacks, playing
from features.sketches import hash64

CHAIN_COLUMNS = ("profile_id", "playback_id", "session_id", "viewer_token", "content_id")
"""What decides which chain an event belongs to."""

# Of the first event of the playback that says it: who watched, with what, from where, and what of.
_TOLD_ONCE = (
    *("playback_id", "user_id", "profile_id", "session_id", "device_id", "viewer_token", "is_kids"),
    *("subscription_tier", "consent_analytics", "consent_personalization", "consent_ad_targeting"),
    *("market", "platform", "device_type", "app_version", "connection_type"),
    *("geo_country", "geo_region", "geo_city", "time_zone", "isp", "device_class"),
    *("content_id", "content_type", "content_title", "content_genres", "content_series_id", "content_episode_number"),
    *("content_runtime_ms", "content_maturity_rating", "channel_name", "start_time_ms", "cdn"),
)
_MEASURED = (
    *("position_ms", "total_duration_ms", "completion_percent", "stop_reason"),
    *("rebuffer_duration_ms", "bitrate_kbps", "error_category"),
)
EVENT_COLUMNS = tuple(dict.fromkeys(("event_id", "event_name", "event_timestamp", *_TOLD_ONCE, *_MEASURED)))
"""Columns of playback events that are read."""

_NO_ID = "\x1f"  # ASCII's unit separator: in no id


def chains(events: pa.Table) -> pa.Array:
    """The chain of each event, int64, shape (n,): a hash of the viewer, and of the playback's id or what stands for it.

    `events` needs `CHAIN_COLUMNS`. The same on every machine; two chains may share a number, which costs time only.
    """
    text = {name: _plain(events[name]) for name in CHAIN_COLUMNS}
    is_known = text["playback_id"].is_valid()
    session = pc.coalesce(text["session_id"], text["viewer_token"])
    anonymous = [pc.if_else(is_known, pa.scalar(None, pa.string()), part) for part in (session, text["content_id"])]
    identity = pc.binary_join_element_wise(
        text["profile_id"], text["playback_id"], *anonymous, _NO_ID, null_handling="replace", null_replacement=_NO_ID
    )
    return pa.array(hash64(identity).view("int64"))


def playback_sessions(events: pa.Table) -> pa.Table:
    """Sessions of playback events in any order, by (chain, first event).

    All events of a chain must be there. `events` needs `EVENT_COLUMNS`; a column without a value may be of any type.

    The result has, besides what is told once by an event (context, content): `chain`, `chain_first_at` and
    `chain_last_at` (of all playbacks of the chain), `first_event_at`, `started_at` (null: it never came),
    `last_event_at`, `is_ended`, `event_count`, `watch_ms`, the last known `position_ms` and `total_duration_ms`;
    `completion_percent` and `stop_reason` of the stop; `stall_count` and `stall_ms`; `mean_bitrate_kbps` over the
    heartbeats, which come at even distances; `bitrate_switch_count`; `error_count` and the last `error_category`.

    Raises LogError when a column is missing.
    """
    sessions = sessions_in(in_chains(events, EVENT_COLUMNS)).with_columns(
        pl.col("first_event_at").min().over("chain").alias("chain_first_at"),
        pl.col("last_event_at").max().over("chain").alias("chain_last_at"),
    )
    return sessions.drop("playback").sort("chain", "first_event_at").to_arrow()


def in_chains(events: pa.Table, columns: Sequence[str]) -> pl.DataFrame:
    """Events `in_playbacks`, with these columns and `chain`. Raises LogError when a column is missing."""
    require_columns(events, columns, "the playback table")
    frame = pl.DataFrame(events.select(columns).append_column("chain", chains(events)))
    return in_playbacks(frame.with_columns(pl.col("event_timestamp").dt.cast_time_unit("ms")))


def sessions_in(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a `playback` of `in_chains`, in their order; without what is said of the whole chain."""
    said = playing(frame).select("event_id", "playback", "watch_ms", "is_start", "is_stop")
    seen = frame.join(said, on=["event_id", "playback"], how="left", maintain_order="left")
    return seen.group_by("playback", maintain_order=True).agg(
        pl.col("chain").first(),
        *(pl.col(name).drop_nulls().first() for name in _TOLD_ONCE),
        pl.col("event_timestamp").first().alias("first_event_at"),
        pl.col("event_timestamp").filter(pl.col("is_start")).first().alias("started_at"),
        pl.col("event_timestamp").last().alias("last_event_at"),
        pl.col("is_stop").fill_null(value=False).any().alias("is_ended"),
        pl.len().cast(pl.Int64).alias("event_count"),
        pl.col("watch_ms").sum(),
        *(pl.col(name).drop_nulls().last() for name in ("position_ms", "total_duration_ms")),
        *(pl.col(name).filter(pl.col("is_stop")).first() for name in ("completion_percent", "stop_reason")),
        _count("playback.rebuffer").alias("stall_count"),
        pl.col("rebuffer_duration_ms").cast(pl.Int64).sum().alias("stall_ms"),
        pl.col("bitrate_kbps").filter(pl.col("event_name") == "playback.heartbeat").mean().alias("mean_bitrate_kbps"),
        _count("playback.quality_changed").alias("bitrate_switch_count"),
        _count("playback.error").alias("error_count"),
        pl.col("error_category").drop_nulls().last(),
    )


def _count(event_name: str) -> pl.Expr:
    return (pl.col("event_name") == event_name).sum().cast(pl.Int64)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.string()).combine_chunks()
