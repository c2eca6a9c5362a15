"""How good a playback was, told on `qoe.metrics` (spec 3.1, 4.3): rows of the event `qoe.session_scored`.

It says nothing of who watched. The account, the profile, the session and the device are null; `playback_id` is a
pseudonym as those of people's ids are, so that versions of one playback are known as such, and nothing else is.

The event's id is made of what it says, and its time is that at which the playback was over: told again after a crash
it is the same event, which whoever reads it takes once.
"""

import hashlib
import json
from typing import Any

import polars as pl
import pyarrow as pa

from features.pseudonyms import Pseudonymizer

EVENT = "qoe.session_scored"


def session_scores(versions: pa.Table, hasher: Pseudonymizer) -> pa.Table:
    """The events of some versions of `finished_playbacks`, one a row.

    There is none of a version that lacks what the event must say: a title, a bitrate, a delivery network, a country; or
    of which nothing was watched.
    """
    frame = pl.DataFrame(versions)
    said = frame.select(
        pl.lit(EVENT).alias("event_name"),
        pl.col("over_at").alias("event_timestamp"),
        pl.lit("SERVER").alias("source"),
        *("device_type", "platform", "market", "app_version", "connection_type"),
        _identity().map_elements(hasher.hash, return_dtype=pl.String).alias("playback_id"),
        *("content_id", "content_type"),
        pl.col("score").alias("qoe_score"),
        "start_time_ms",
        pl.col("stall_count").cast(pl.Int32).alias("rebuffer_count"),
        (pl.col("stall_ms") / pl.col("watch_ms")).clip(0, 1).alias("rebuffer_ratio"),
        pl.coalesce("mean_bitrate_kbps", "initial_bitrate_kbps").round().cast(pl.Int32).alias("average_bitrate_kbps"),
        pl.col("bitrate_switch_count").cast(pl.Int32),
        pl.col("watch_ms").alias("watched_ms"),
        "cdn",
        pl.coalesce("geo_country", "market").alias("region"),
        "isp",
    )
    said = said.filter(
        pl.all_horizontal(pl.col(name).is_not_null() for name in ("content_id", "content_type", "cdn", "region")),
        pl.col("qoe_score").is_not_null() & (pl.col("average_bitrate_kbps") > 0) & (pl.col("watched_ms") > 0),
    )
    return said.with_columns(pl.Series("event_id", _ids(said), pl.String)).to_arrow()


def _identity() -> pl.Expr:
    """Of a playback: its own id; without one, what tells it from others (`features.playbacks`)."""
    names = ("profile_id", "session_id", "content_id", "first_event_at")
    parts = [pl.col(name).cast(pl.String).fill_null("") for name in names]
    return pl.coalesce("playback_id", pl.concat_str(parts, separator="|"))


def _ids(said: pl.DataFrame) -> list[str]:
    """'evt_' and a UUID version 7 of each row: its time, and a hash of all that it says."""
    times_ms = said["event_timestamp"].dt.epoch("ms").to_list()
    return [_id(at_ms, row) for at_ms, row in zip(times_ms, said.iter_rows(named=True), strict=True)]


def _id(at_ms: int, row: dict[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(row, sort_keys=True, default=str).encode(), digest_size=10).digest()
    random = int.from_bytes(digest, "big")
    # RFC 9562, 5.7: 48 bits of milliseconds, the version, 12 bits, the variant, 62 bits.
    number = at_ms << 80 | 7 << 76 | (random >> 68 & 0xFFF) << 64 | 2 << 62 | random & (1 << 62) - 1
    text = f"{number:032x}"
    return "evt_" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
