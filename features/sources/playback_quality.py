"""The playback quality log: how well playbacks went, from what the players themselves report.

Rules:

- What a playback is, and what was watched of it, is as in `features.playbacks`.
- The score of a stretch of watching is that of its playback as known at its end: from the start, the stalls and the
  bitrates before. It weighs as much as the stretch is long. A stretch before which no bitrate is known has none.
- The delivery network is the last one the playback named; errors before it is known belong to none.
- The region is the country the address lies in, else the market.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.entities import key_of
from features.frames import frame_of, log_of
from features.playbacks import IDENTITY_COLUMNS, PLAYBACK_BOUND_BY, PLAYBACK_EVENTS, in_playbacks, playing
from features.source import Source, Tables
from features.sources.session_quality import level, score

_PLAYBACK = (*IDENTITY_COLUMNS, "user_id", "cdn", "geo_country", "market", "start_time_ms", "initial_bitrate_kbps",
             "bitrate_kbps", "new_bitrate_kbps", "rebuffer_duration_ms")  # fmt: skip
SCORE_UNIT = 1000


def playback_quality_log(playback: pa.Table) -> pa.Table:
    """The quality log of playback events in any order, by (time, id); has the schema of `PLAYBACK_QUALITY`.

    All events of a playback must be there together.

    Raises:
        LogError: a column is missing, or an event has no time.
    """
    events = playing(in_playbacks(frame_of(playback, _PLAYBACK, "the playback table")))
    name = pl.col("event_name")
    log = scored(events).with_columns(
        pl.col("cdn").forward_fill().over("playback"),
        pl.coalesce("geo_country", "market").alias("region"),
        pl.when("is_start").then("start_time_ms").alias("start_time_ms"),
        is_rebuffer=name == "playback.rebuffer",
        is_error=name == "playback.error",
    )
    log = log.filter(pl.any_horizontal("is_start", "is_rebuffer", "is_error", pl.col("watch_ms") > 0))
    key = key_of([log[column].to_arrow().cast(pa.string()) for column in ("cdn", "region")])
    return log_of([log.with_columns(pl.Series("cdn_region", key, pl.String))], PLAYBACK_QUALITY.schema)


def scored(events: pl.DataFrame) -> pl.DataFrame:
    """Events that are `playing`, with the `score` of their playback so far, in thousandths of a per cent; null where
    nothing was watched.
    """
    bitrate = pl.coalesce("initial_bitrate_kbps", "bitrate_kbps", "new_bitrate_kbps")
    is_rebuffer = pl.col("event_name") == "playback.rebuffer"
    events = events.with_columns(level(bitrate).forward_fill().shift(1).over("playback").alias("_level"))
    known_ms = pl.when(pl.col("_level").is_not_null()).then("watch_ms").otherwise(0)
    events = events.with_columns(
        _watched_ms=known_ms.cum_sum().over("playback"),
        _levels=(known_ms * pl.col("_level").fill_null(0)).cum_sum().over("playback"),
        _squares=(known_ms * pl.col("_level").fill_null(0) ** 2).cum_sum().over("playback"),
        _stalls=is_rebuffer.cast(pl.Int64).cum_sum().over("playback"),
        _stalled_ms=pl.when(is_rebuffer).then("rebuffer_duration_ms").fill_null(0).cum_sum().over("playback"),
        _start_ms=pl.when("is_start").then("start_time_ms").forward_fill().over("playback"),
    )
    columns = ("_watched_ms", "_levels", "_squares", "_stalls", "_stalled_ms", "_start_ms")
    whole = (score(*(pl.col(name) for name in columns)) * SCORE_UNIT).round().cast(pl.Int64)
    return events.with_columns(
        pl.when((pl.col("watch_ms") > 0) & pl.col("_level").is_not_null()).then(whole).alias("score")
    )


def _make(tables: Tables) -> pa.Table:
    return playback_quality_log(tables["silver.playback"])


PLAYBACK_QUALITY = Source(
    "playback_quality",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("user_id", pa.string()),
            ("session_id", pa.string()),
            ("cdn_region", pa.string()),
            ("cdn", pa.string()),
            ("watch_ms", pa.int64()),
            ("score", pa.int64()),
            ("start_time_ms", pa.int64()),
            ("is_start", pa.bool_()),
            ("is_rebuffer", pa.bool_()),
            ("is_error", pa.bool_()),
        ]
    ),
    events=PLAYBACK_EVENTS,
    reads={"silver.playback": _PLAYBACK},
    together="viewer_token",
    make=_make,
    bound_by=PLAYBACK_BOUND_BY,
)
"""`score`: in thousandths of a per cent, see `session_quality`; `cdn_region`: the key of both, see `entities`."""
