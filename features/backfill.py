"""Rows of the offline store for groups with an hourly or daily cadence."""

import numpy as np
import pyarrow as pa

from features.columns import timestamps
from features.declarations import FeatureGroup
from features.errors import DeclarationError
from features.runs import expand
from features.tiles import timeline_of_table
from features.timeline import Line, Timeline, line_of_log, tiled_lines
from features.windows import Cadence, Int64s, floor_ms


def backfill(group: FeatureGroup, entity: str, log: pa.Table, start_ms: int, end_ms: int) -> pa.Table:
    """The group's values at every boundary in `[start_ms, end_ms)`, in (entity, boundary) order.

    One row per entity and boundary with a contributing event before it that is no older than the TTL:
    `{entity}`, `event_timestamp` (the boundary), `created_timestamp` (boundary + delay: when it would have been
    published), `last_event_timestamp`, the features. The log must reach back a window and a TTL before the
    start. Work grows with the rows written and the tiles in their windows, not with rows times events.

    Raises:
        DeclarationError: the group is valued at every event; its offline store keeps tiles (`tiles`).
    """
    _require_boundaries(group)
    entities, events = line_of_log(group, entity, log)
    return _rows(Timeline(group, entities, tiled_lines(group, events)), entity, start_ms, end_ms)


def backfill_from_tiles(group: FeatureGroup, entity: str, tiled: pa.Table, start_ms: int, end_ms: int) -> pa.Table:
    """What `backfill` gives of the log that the tiles were made of."""
    _require_boundaries(group)
    return _rows(timeline_of_table(group, entity, tiled), entity, start_ms, end_ms)


def reach_back_ms(group: FeatureGroup) -> int:
    """How long before an instant tiles may begin that its values, or whether it has any, depend on."""
    windows = [-int(feature.reach_ms(np.zeros(1, dtype=np.int64))[0]) for feature in group.features]
    return max(group.ttl_ms, *windows) + 2 * max(group.states_of_tile) + group.cadence.step_ms


def _require_boundaries(group: FeatureGroup) -> None:
    if group.cadence is Cadence.EVENT:
        raise DeclarationError(f"group {group.name} is valued at every event: store its tiles, not boundary rows")


def _rows(timeline: Timeline, entity: str, start_ms: int, end_ms: int) -> pa.Table:
    group = timeline.group
    owners, boundaries_ms = _boundaries(group, timeline.lines[min(timeline.lines)], start_ms, end_ms)
    last_events_ms, _, columns = timeline.read(owners, boundaries_ms)
    keys = [
        timeline.entities.take(pa.array(owners)),
        timestamps(boundaries_ms),
        timestamps(boundaries_ms + group.delay),
        timestamps(last_events_ms),
    ]
    return pa.table([*keys, *columns], schema=group.row_schema(entity))


def _boundaries(group: FeatureGroup, tiles: Line, start_ms: int, end_ms: int) -> tuple[Int64s, Int64s]:
    """(entity, boundary) of every row to write: each tile's last event answers for the boundaries up to the next one.

    No tile crosses a boundary, so those before the last in it answer for none.
    """
    step_ms, last_events_ms = group.cadence.step_ms, tiles.last_events_ms
    first_of_all, after_all = -floor_ms(-start_ms, step_ms), -floor_ms(-end_ms, step_ms)
    first = np.maximum(floor_ms(last_events_ms, step_ms) + step_ms, first_of_all)
    after = np.minimum(floor_ms(last_events_ms + group.ttl_ms, step_ms) + step_ms, after_all)
    is_followed = tiles.owners[1:] == tiles.owners[:-1]
    after[:-1][is_followed] = np.minimum(after[:-1], first[1:])[is_followed]
    tile, place = expand(first // step_ms, np.maximum(first, after) // step_ms)
    return tiles.owners[tile], place * step_ms
