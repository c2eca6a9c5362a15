"""What the clock on the viewer's wall said when something happened: the only use of the client's own time.

The instant is the client's where that is reliable, else the server's; the zone is the viewer's, else UTC.
"""

import polars as pl

from features.errors import LogError

CLOCK_COLUMNS = ("client_timestamp", "client_timestamp_reliable", "time_zone")
"""Columns of events that are read, besides `event_timestamp`."""

LOCAL = "local_time"


def with_local_time(events: pl.DataFrame, what: str) -> pl.DataFrame:
    """The events with their `local_time`, a naive datetime; one conversion for each time zone.

    Raises:
        LogError: a time zone is unknown; `what` says of which table.
    """
    is_reliable = pl.col("client_timestamp_reliable").fill_null(False)
    happened = pl.coalesce(pl.when(is_reliable).then("client_timestamp"), "event_timestamp")
    zone = pl.col("time_zone").fill_null("UTC")
    local = pl.lit(None, pl.Datetime("ms"))
    try:
        for name in events.select(zone.unique(maintain_order=True)).to_series():
            here = happened.dt.convert_time_zone(name).dt.replace_time_zone(None)
            local = pl.when(zone == name).then(here).otherwise(local)
        return events.with_columns(local.alias(LOCAL))
    except pl.exceptions.ComputeError as error:
        raise LogError(f"a time zone of {what} is unknown: {str(error).splitlines()[0]}") from None


def weekday() -> pl.Expr:
    """0 is Monday."""
    return pl.col(LOCAL).dt.weekday().cast(pl.Int64) - 1


def hour() -> pl.Expr:
    """0 to 23."""
    return pl.col(LOCAL).dt.hour().cast(pl.Int64)
