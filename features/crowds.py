"""Who counts in aggregates only among many: children, and those who have withdrawn their consent since (spec 8.4, 8.5).

What a child watched says something about a title or a channel, and may be counted in it among many. What is published
of a title today and tomorrow, of this hour and the next, of a day and its hours, can be subtracted, so it is not enough
that every number is of many viewers: every difference must be. Therefore

    a cell    is an entity and an hour (UTC); windows of published groups begin and end with the hour, so each is of
              whole cells, and so is what one window has more than another
    a crowd   is k children of a cell, in the order in which they became known there. The first k make the first crowd,
              the next k the second; those who are left over, fewer than k, make none and count nowhere
    a row     of a child counts if the child is of a crowd, and if it was known when the crowd was full: what a child of
              a full crowd does later would be told by the difference between two publications of the same hour

So a publication is the sum of whole crowds, later ones only add whole crowds, and any two differ by some of them, each
of k viewers or more. Which crowds there are depends on what happened and on when it was ingested, not on when features
were built: built at once or bit by bit, they are the same.

Somebody who has withdrawn stays in what was published of at least k viewers: in cells that many counted in. In others
they count no more from the next build on.

Values at any instant (event groups, sorted logs) begin and end anywhere, so neither counts in any of them.
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

GUARD, VIEWER, KNOWN = "guard", "guarded_viewer", "guarded_known_at"
"""Beside a log: CHILD or WITHDRAWN for rows that count only among many; whose each is; when it was ingested."""
CHILD, WITHDRAWN = 1, 2
_BESIDE = {GUARD: pa.int8(), VIEWER: pa.string(), KNOWN: TIMESTAMP}
BESIDE = tuple(_BESIDE)

Flags = NDArray[np.bool_]


def guards(is_child: Flags, is_withdrawn: Flags) -> pa.Array:
    """The column `guard`: whose rows count only among many; null for all others."""
    guard = np.where(is_child, CHILD, WITHDRAWN).astype(np.int8)
    return pa.array(guard, mask=~(is_child | is_withdrawn))


def guarded(log: pa.Table, events: Sequence[pa.Table]) -> pa.Table:
    """The log with the columns of BESIDE, from those of the events that it was made of.

    A row of a log has the id of the event that it became known with, some with `FROM` after it.
    """
    said = pa.concat_tables([part.select([EVENT_ID, *BESIDE]) for part in events])
    if said[GUARD].null_count == said.num_rows:
        for name, kind in _BESIDE.items():
            log = log.append_column(name, pa.nulls(log.num_rows, kind))
        return log
    ids, known = flat(log[EVENT_ID]), flat(said[EVENT_ID]).cast(pa.string())
    follows = pc.if_else(pc.ends_with(ids, FROM), pc.utf8_slice_codeunits(ids, 0, -len(FROM)), None)
    places = pc.coalesce(pc.index_in(ids, value_set=known), pc.index_in(follows, value_set=known))
    for name, kind in _BESIDE.items():
        log = log.append_column(name, flat(said[name]).cast(kind).take(places))
    return log


def unguarded(log: pa.Table) -> pa.Table:
    """The log with only those rows that count alone, without the columns of BESIDE."""
    if GUARD not in log.column_names:
        return log
    return log.filter(log[GUARD].is_null()).drop_columns(list(BESIDE))


def among_many(log: pa.Table, entity: str, least_viewers: int) -> pa.Table:
    """The log with only those rows that count in aggregates of `entity`, without the columns of BESIDE.

    The log needs all rows of its hours.
    """
    if GUARD not in log.column_names:
        return log
    return log.filter(pa.array(counts(log, entity, least_viewers))).drop_columns(list(BESIDE))


def counts(log: pa.Table, entity: str, least_viewers: int) -> Flags:
    """Which rows count, shape (n,)."""
    guard = np.asarray(flat(log[GUARD]).fill_null(0))
    counted: Flags = guard == 0
    if counted.all():
        return counted
    cells = pl.DataFrame(
        {
            "entity": pl.Series(values=flat(log[entity]).cast(pa.string()), dtype=pl.String),
            "hour_ms": floor_ms(milliseconds(log[EVENT_TIME]), HOUR_MS),
            "viewer": pl.Series(values=flat(log[VIEWER]).cast(pa.string()), dtype=pl.String),
        }
    )
    is_child, is_withdrawn = guard == CHILD, guard == WITHDRAWN
    if is_child.any():
        children = cells.filter(is_child).with_columns(known_ms=milliseconds(log[KNOWN].filter(pa.array(is_child))))
        counted[is_child] = _in_crowds(children, least_viewers)
    if is_withdrawn.any():
        counting = cells.filter(counted | is_withdrawn)
        viewers = counting.group_by("entity", "hour_ms").agg(pl.col("viewer").n_unique().alias("viewers"))
        many = viewers.filter(pl.col("viewers") >= least_viewers).with_columns(is_many=pl.lit(True))
        found = cells.filter(is_withdrawn).join(many, on=["entity", "hour_ms"], how="left", maintain_order="left")
        counted[is_withdrawn] = found["is_many"].fill_null(False).to_numpy()
    return counted


def _in_crowds(rows: pl.DataFrame, least_viewers: int) -> Flags:
    """Which rows of children are of crowds, shape (n,)."""
    cell = ["entity", "hour_ms"]
    viewers = rows.group_by(*cell, "viewer").agg(pl.col("known_ms").min()).sort(*cell, "known_ms", "viewer")
    viewers = viewers.with_columns(crowd=pl.int_range(pl.len()).over(cell) // least_viewers)
    crowds = viewers.group_by(*cell, "crowd").agg(pl.len().alias("viewers"), pl.col("known_ms").max().alias("full_ms"))
    full = viewers.join(crowds.filter(pl.col("viewers") == least_viewers), on=[*cell, "crowd"])
    found = rows.join(full.select(*cell, "viewer", "full_ms"), on=[*cell, "viewer"], how="left", maintain_order="left")
    are: Flags = (found["known_ms"] <= found["full_ms"]).fill_null(False).to_numpy()
    return are
