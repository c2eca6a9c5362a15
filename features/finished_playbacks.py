"""Playbacks that are over: their session and its quality, for whoever follows them live (spec 4.3).

A playback is over 5 seconds after it stopped, or when nothing came of it for 30 minutes: so long events may be on
their way. Whatever comes after that (a viewer who resumes tomorrow) makes another version of it, which says all that
has come by then. So versions follow from the events and from nothing else, neither from when one looks nor from how
events are put together; the last version's session is the row of `features.playback_sessions`.

The score is that of `features.sources.playback_quality` at the end of the last stretch that has one.
"""

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.playback_sessions import EVENT_COLUMNS as SESSION_COLUMNS
from features.playback_sessions import in_chains, sessions_in
from features.playbacks import PLAYBACK_BOUND_BY, PLAYBACK_EVENTS, playing
from features.source import Source
from features.sources.playback_quality import SCORE_UNIT, scored
from features.windows import MINUTE_MS, SECOND_MS

IDLE_MS, STOPPED_MS = 30 * MINUTE_MS, 5 * SECOND_MS
"""How long after its last event a playback is over; and how long, once it has stopped."""

STOPPED = "playback.stopped"
EVENT_COLUMNS = tuple(dict.fromkeys((*SESSION_COLUMNS, "initial_bitrate_kbps", "new_bitrate_kbps")))
"""Columns of playback events that are read."""

FINISHED_PLAYBACKS = Source(
    "finished_playbacks",
    pa.schema([("event_id", pa.string()), ("event_timestamp", TIMESTAMP)]),
    events=PLAYBACK_EVENTS,
    reads={"silver.playback": EVENT_COLUMNS},
    together="viewer_token",
    bound_by=PLAYBACK_BOUND_BY,
)
"""Which events they are made of. It has no log: a version is known when nothing came, not with an event."""


def finished_playbacks(events: pa.Table) -> pa.Table:
    """Every version of the playbacks of some events in any order; all events of a playback must be there.

    `playback`: a number that all versions of one share. `over_at`: from when on it is known that the version is one.
    The others are `playback_sessions`' columns (without those of chains), `initial_bitrate_kbps`, and `score` in per
    cent, null where it is not known.

    Raises LogError when a column is missing.
    """
    frame = in_chains(events, EVENT_COLUMNS)
    has_stopped = (pl.col("event_name") == STOPPED).cum_max().over("playback")
    patience = pl.duration(milliseconds=pl.when(has_stopped).then(STOPPED_MS).otherwise(IDLE_MS))
    frame = frame.with_columns(_over_at=(pl.col("event_timestamp") + patience).dt.cast_time_unit("ms"))
    before = pl.col("_over_at").shift(1).over("playback")
    frame = frame.with_columns(
        _version=(pl.col("event_timestamp") > before).fill_null(value=False).cum_sum().over("playback")
    )
    frame = frame.with_columns(_versions=pl.col("_version").max().over("playback"))
    most = max(frame["_version"].n_unique(), 1)  # of no events there is one, which is empty
    parts = [
        _versions(frame.filter(pl.col("_versions") >= number, pl.col("_version") <= number)) for number in range(most)
    ]
    return pl.concat(parts).sort("over_at", "chain", "first_event_at").drop("chain").to_arrow()


def _versions(frame: pl.DataFrame) -> pl.DataFrame:
    """What is known of each playback by all of these events."""
    quality = scored(playing(frame)).group_by("playback").agg(
        pl.col("score").drop_nulls().last(),
        pl.col("initial_bitrate_kbps").drop_nulls().first(),
    )  # fmt: skip
    # Rounded, or the last bit would depend on how many playbacks are looked at: a column is multiplied by 1 / 1000.
    quality = quality.with_columns((pl.col("score") / SCORE_UNIT).round(len(str(SCORE_UNIT)) - 1))
    over_at = frame.group_by("playback").agg(pl.col("_over_at").last().alias("over_at"))
    sessions = sessions_in(frame).join(quality, on="playback", how="left").join(over_at, on="playback", how="left")
    return sessions
