"""Children in aggregates: only in whole crowds of viewers, so that no two publications differ by fewer (spec 8.5).

What a child watched says something about a title or a channel, and may be counted in it among many. What is published
of a title today and tomorrow, of this hour and the next, of a day and its hours, can be subtracted, so it is not enough
that every number is of many viewers: every difference must be. Therefore

    a cell    is an entity and an hour (UTC); windows of published groups begin and end with the hour, so each is of
              whole cells, and so is what one window has more than another
    a crowd   is k viewers of a cell, in the order in which they became known there. The first k make the first crowd,
              the next k the second; those who are left over, fewer than k, make none and count nowhere
    a row     counts if its viewer is of a crowd, and if it was known when the crowd was full: what a child of a full
              crowd does later would be told by the difference between two publications of the same hour

Values at any instant (event groups, sorted logs) begin and end anywhere, so children count in none of them.

So a publication is the sum of whole crowds, later ones only add whole crowds, and any two differ by some of them, each
of k viewers or more. Which crowds there are depends on what happened and on when it was ingested, not on when features
were built: built at once or bit by bit, they are the same.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.columns import TIMESTAMP, flat, milliseconds
from features.source import EVENT_ID, EVENT_TIME, FROM
from features.windows import HOUR_MS, floor_ms

CHILD, CHILD_KNOWN = "child", "child_known_at"
"""Beside a log: the token of the child whose row it is, null for others; and when the row was ingested."""


def in_crowds(log: pa.Table, entity: str, least_viewers: int) -> NDArray[np.bool_]:
    """Which rows of a log may count in aggregates of `entity`, shape (n,): all but those of children in no crowd.

    The log needs the entity's column, `event_timestamp`, `child` and `child_known_at`, and all rows of its hours.
    """
    is_child = np.asarray(log[CHILD].is_valid())
    counts: NDArray[np.bool_] = ~is_child
    if not is_child.any():
        return counts
    theirs = log.filter(pa.array(is_child))
    rows = pl.DataFrame(
        {
            "entity": pl.Series(values=flat(theirs[entity]).cast(pa.string()), dtype=pl.String),
            "hour_ms": floor_ms(milliseconds(theirs[EVENT_TIME]), HOUR_MS),
            "child": pl.Series(values=flat(theirs[CHILD]).cast(pa.string()), dtype=pl.String),
            "known_ms": milliseconds(theirs[CHILD_KNOWN]),
        }
    )
    cell = ["entity", "hour_ms"]
    viewers = rows.group_by(*cell, "child").agg(pl.col("known_ms").min()).sort(*cell, "known_ms", "child")
    viewers = viewers.with_columns(crowd=pl.int_range(pl.len()).over(cell) // least_viewers)
    crowds = viewers.group_by(*cell, "crowd").agg(pl.len().alias("viewers"), pl.col("known_ms").max().alias("full_ms"))
    full = viewers.join(crowds.filter(pl.col("viewers") == least_viewers), on=[*cell, "crowd"])
    found = rows.join(full.select(*cell, "child", "full_ms"), on=[*cell, "child"], how="left", maintain_order="left")
    counts[is_child] = (found["known_ms"] <= found["full_ms"]).fill_null(False).to_numpy()
    return counts


def without_children(log: pa.Table) -> pa.Table:
    """The log with nobody's rows but grown-ups', and without the columns that say so."""
    if CHILD not in log.column_names:
        return log
    return log.filter(log[CHILD].is_null()).drop_columns([CHILD, CHILD_KNOWN])


def with_crowds(log: pa.Table, entity: str, least_viewers: int) -> pa.Table:
    """The log with only those rows of children that are `in_crowds`, and without the columns that say so."""
    if CHILD not in log.column_names:
        return log
    return log.filter(pa.array(in_crowds(log, entity, least_viewers))).drop_columns([CHILD, CHILD_KNOWN])


def with_children(log: pa.Table, events: Sequence[pa.Table]) -> pa.Table:
    """The log with `child` and `child_known_at`, from those columns of the events that it was made of.

    A row of a log has the id of the event that it became known with, some with `FROM` after it.
    """
    children = pa.concat_tables(
        [part.filter(part[CHILD].is_valid()).select([EVENT_ID, CHILD, CHILD_KNOWN]) for part in events]
    )
    if not children.num_rows:
        nulls = pa.nulls(log.num_rows, pa.string()), pa.nulls(log.num_rows, TIMESTAMP)
        return log.append_column(CHILD, nulls[0]).append_column(CHILD_KNOWN, nulls[1])
    ids, theirs = flat(log[EVENT_ID]), flat(children[EVENT_ID]).cast(pa.string())
    follows = pc.if_else(pc.ends_with(ids, FROM), pc.utf8_slice_codeunits(ids, 0, -len(FROM)), None)
    places = pc.coalesce(pc.index_in(ids, value_set=theirs), pc.index_in(follows, value_set=theirs))
    for name, kind in ((CHILD, pa.string()), (CHILD_KNOWN, TIMESTAMP)):
        log = log.append_column(name, flat(children[name]).cast(kind).take(places))
    return log
