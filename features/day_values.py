"""The values that a group had on a day, of what the offline store keeps of it.

A day's values are as of its end, or of boundaries within it, so that every event of the day is in some of them:

    hourly groups    the boundaries 01:00, 02:00 … 24:00, in their newest versions
    daily groups     the boundary 24:00
    event groups     the values at 24:00 of the entities with an event that day: what a service asked a delay later had

Days are UTC, and whole numbers: days since 1970. A day can be told once something after its end is known.
"""

import numpy as np
import pyarrow as pa

from features.columns import encode, flat, milliseconds
from features.declarations import CREATED, TILE_START, FeatureGroup
from features.runs import run_ends, run_starts
from features.source import EVENT_TIME
from features.tiles import values_from_tiles
from features.windows import DAY_MS, Cadence, Int64s

DAY = "day"


def values_of_days(group: FeatureGroup, entity: str, stored: pa.Table, first_day: int, last_day: int) -> pa.Table:
    """Values of the days from the first to the last, both included, in day order.

    `stored` is what the group's store holds of some entities: tiles of an event group, else rows at boundaries, with
    all their history. Columns: day, the entity, the features.
    """
    read = _of_tiles if group.cadence is Cadence.EVENT else _of_rows
    days, keys, values = read(group, entity, stored, first_day, last_day)
    order = np.argsort(days, kind="stable")
    columns = {DAY: pa.array(days), entity: keys} | {one.name: flat(values[one.name]) for one in group.features}
    return pa.table(columns).take(pa.array(order)).combine_chunks()


def entities_of(values: pa.Table, entity: str) -> int:
    """How many entities values are of."""
    return len(flat(values[entity]).unique())


def _of_rows(
    group: FeatureGroup, entity: str, stored: pa.Table, first_day: int, last_day: int
) -> tuple[Int64s, pa.Array, pa.Table]:
    boundaries_ms = milliseconds(stored[EVENT_TIME], EVENT_TIME)
    within = np.flatnonzero((boundaries_ms > first_day * DAY_MS) & (boundaries_ms <= (last_day + 1) * DAY_MS))
    _, owners = encode(stored[entity])
    created_ms = milliseconds(stored[CREATED], CREATED)
    ordered = within[np.lexsort((created_ms[within], boundaries_ms[within], owners[within]))]
    newest = ordered[run_ends(owners[ordered], boundaries_ms[ordered])]
    rows = stored.take(pa.array(newest))
    return (boundaries_ms[newest] - 1) // DAY_MS, _plain(rows[entity]), rows


def _of_tiles(
    group: FeatureGroup, entity: str, stored: pa.Table, first_day: int, last_day: int
) -> tuple[Int64s, pa.Array, pa.Table]:
    # No tile crosses a midnight, so at midnight no tile need be cut: the values are exact.
    entities, owners = encode(_plain(stored[entity]))
    days = milliseconds(stored[TILE_START], TILE_START) // DAY_MS
    within = np.flatnonzero((days >= first_day) & (days <= last_day) & (owners >= 0))
    ordered = within[np.lexsort((days[within], owners[within]))]
    firsts = ordered[run_starts(owners[ordered], days[ordered])]
    keys, seen = entities.take(pa.array(owners[firsts])), days[firsts]
    tiled = stored.set_column(stored.schema.get_field_index(entity), entity, _plain(stored[entity]))
    return seen, keys, values_from_tiles(group, entity, tiled, keys, (seen + 1) * DAY_MS + group.delay)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Texts that may come as a dictionary."""
    return flat(column.cast(pa.string()))
