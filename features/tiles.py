"""Tiles: the states of short stretches of time, which is all that has to be kept to value an event group.

A tile table has one row per entity, tile length and tile start: `{entity}`, `tile_ms`, `tile_start`,
`last_event_timestamp` and a column for every state of the group, null in tiles of a length that no feature
reads it from. Tiles of different batches of events, in any number and order, merge to the tiles of all.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import as_declared, encode, flat, milliseconds, rows_at, timestamps
from features.declarations import LAST_EVENT, TILE_LENGTH, TILE_START, FeatureGroup
from features.errors import LogError
from features.runs import run_starts
from features.states import Bundle, State
from features.timeline import Line, Timeline, line_of_log, tiled_lines
from features.windows import Int64s


def tiles(group: FeatureGroup, entity: str, log: pa.Table) -> pa.Table:
    """Tiles of the events in a log, in (entity, tile_ms, tile_start) order."""
    entities, events = line_of_log(group, entity, log)
    return _table_of_lines(group, entity, entities, tiled_lines(group, events))


def merge_tiles(group: FeatureGroup, entity: str, tables: Sequence[pa.Table]) -> pa.Table:
    """Tiles of all events whose tiles are in the tables; the same, to the bit, whatever their order."""
    whole = _whole(group, entity, tables)
    entities, owners = encode(whole[entity])
    lengths_ms, starts_ms = np.asarray(flat(whole[TILE_LENGTH]), dtype=np.int64), milliseconds(whole[TILE_START])
    order = np.lexsort((starts_ms, lengths_ms, owners))
    if len(run_starts(owners[order], lengths_ms[order], starts_ms[order])) == len(order):  # none is there twice
        return whole.take(pa.array(order)).combine_chunks()
    merged = timeline_of_tiles(group, entities, owners, whole)
    return _table_of_lines(group, entity, merged.entities, merged.lines)


def values_from_tiles(
    group: FeatureGroup,
    entity: str,
    tiled: pa.Table,
    entities: pa.Array | pa.ChunkedArray,
    instants_ms: npt.ArrayLike,
) -> pa.Table:
    """What `values_at` gives, from tiles instead of the log.

    Of an event group, the tiles must hold no event at or after `instant - delay` of the row: a tile cannot be
    cut. For hourly and daily groups later events do no harm, because no tile crosses a boundary.
    """
    return timeline_of_table(group, entity, tiled).values_at(entities, instants_ms)


def timeline_of_table(group: FeatureGroup, entity: str, tiled: pa.Table) -> Timeline:
    """Timeline of a tile table in any order; those of the same entity, length and start are merged."""
    whole = _whole(group, entity, [tiled])
    return timeline_of_tiles(group, *encode(whole[entity]), whole)


def timeline_of_tiles(group: FeatureGroup, entities: pa.Array, owners: Int64s, tiled: pa.Table) -> Timeline:
    """Timeline of tiles in any order; those of the same entity, length and start are merged.

    `owners` [rows of tiled] are places in `entities`; the tiles' own entity column is not read.
    """
    starts_ms = milliseconds(tiled[TILE_START])
    lengths_ms = np.asarray(flat(tiled[TILE_LENGTH]), dtype=np.int64)
    lines = {}
    for tile_ms, states in group.states_of_tile.items():
        rows = np.flatnonzero(lengths_ms == tile_ms)
        rows = rows[np.lexsort((starts_ms[rows], owners[rows]))]
        lines[tile_ms] = _merged_line(rows_at(tiled, rows), owners[rows], starts_ms[rows], states)
    return Timeline(group, entities, lines)


def timeline_of_whole_tiles(
    group: FeatureGroup, entities: pa.Array, owners: Int64s, tiled: pa.Table, shortest_ms: int
) -> Timeline:
    """Timeline that counts a tile once it has ended, so that it may be asked about any instant of the past.

    What the head of a window holds is in no tile that has ended: a value is as of the last tile boundary before
    `instant - delay`, at most a hop older than the exact one, and no later event moves it. `shortest_ms` is the length
    of the tiles that say when the last event was: the shortest of the whole group, whichever features are read.
    """
    starts_ms = milliseconds(tiled[TILE_START])
    lengths_ms = np.asarray(flat(tiled[TILE_LENGTH]), dtype=np.int64)
    lines = {}
    for tile_ms, states in {shortest_ms: (), **group.states_of_tile}.items():
        rows = np.flatnonzero(lengths_ms == tile_ms)
        rows = rows[np.lexsort((starts_ms[rows], owners[rows]))]
        # A window reads what is before its end, so a tile that stands at its last millisecond is read when it is over.
        lines[tile_ms] = _merged_line(rows_at(tiled, rows), owners[rows], starts_ms[rows] + (tile_ms - 1), states)
    return Timeline(group, entities, lines)


def _whole(group: FeatureGroup, entity: str, tables: Sequence[pa.Table]) -> pa.Table:
    """All tiles of some tables, in the types that are declared."""
    group.check_entity(entity)
    schema = group.tile_schema(entity)
    parts = [as_declared(table, schema, f"the tile table of {group.name}") for table in tables]
    whole = pa.concat_tables(parts) if parts else schema.empty_table()
    if whole[entity].null_count:
        raise LogError(f"the tile table of {group.name} has rows without {entity}; tiles are of known entities")
    return whole


def _merged_line(table: pa.Table, owners: Int64s, starts_ms: Int64s, states: Sequence[State]) -> Line:
    bundles: dict[State, Bundle] = {state: state.from_arrow(flat(table[state.name])) for state in states}
    last_events_ms = milliseconds(table[LAST_EVENT])
    firsts = run_starts(owners, starts_ms)
    if len(firsts) < len(owners):
        bundles = {state: bundle.merge(firsts) for state, bundle in bundles.items()}
        last_events_ms = np.maximum.reduceat(last_events_ms, firsts)
    return Line(owners[firsts], starts_ms[firsts], last_events_ms, bundles)


def _table_of_lines(group: FeatureGroup, entity: str, entities: pa.Array, lines: dict[int, Line]) -> pa.Table:
    """Tiles of some entities, in ascending order, as a table in (entity, tile_ms, tile_start) order."""
    schema = group.tile_schema(entity)
    parts = []
    for tile_ms, line in lines.items():
        size = len(line.owners)
        keys = [
            entities.take(pa.array(line.owners)),
            pa.array(np.full(size, tile_ms)),
            timestamps(line.times_ms),
            timestamps(line.last_events_ms),
        ]
        states = [
            line.bundles[state].to_arrow() if state in line.bundles else pa.nulls(size, state.arrow_type)
            for state in group.states
        ]
        parts.append(pa.Table.from_arrays(keys + states, schema=schema))
    if len(parts) == 1:
        return parts[0]
    lengths_ms = np.repeat(list(lines), [len(line.owners) for line in lines.values()])
    starts_ms, owners = (
        np.concatenate([getattr(line, name) for line in lines.values()]) for name in ("times_ms", "owners")
    )
    order = np.lexsort((starts_ms, lengths_ms, owners))
    return pa.concat_tables(parts).combine_chunks().take(pa.array(order))
