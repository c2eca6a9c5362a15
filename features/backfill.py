"""Rows of the offline store for groups with an hourly or daily cadence."""

import numpy as np
import pyarrow as pa

from features.columns import timestamps
from features.declarations import FeatureGroup
from features.errors import DeclarationError
from features.runs import expand
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
    if group.cadence is Cadence.EVENT:
        raise DeclarationError(f"group {group.name} is valued at every event: store its tiles, not boundary rows")
    entities, events = line_of_log(group, entity, log)
    timeline = Timeline(group, entities, tiled_lines(group, events))
    owners, boundaries_ms = _boundaries(group, events, start_ms, end_ms)
    last_events_ms, _, columns = timeline.read(owners, boundaries_ms)
    keys = [
        entities.take(pa.array(owners)),
        timestamps(boundaries_ms),
        timestamps(boundaries_ms + group.delay),
        timestamps(last_events_ms),
    ]
    return pa.table([*keys, *columns], schema=group.row_schema(entity))


def _boundaries(group: FeatureGroup, events: Line, start_ms: int, end_ms: int) -> tuple[Int64s, Int64s]:
    """(entity, boundary) of every row to write: each event answers for the boundaries up to the next event."""
    step_ms = group.cadence.step_ms
    first_of_all, after_all = -floor_ms(-start_ms, step_ms), -floor_ms(-end_ms, step_ms)
    first = np.maximum(floor_ms(events.times_ms, step_ms) + step_ms, first_of_all)
    after = np.minimum(floor_ms(events.times_ms + group.ttl_ms, step_ms) + step_ms, after_all)
    is_followed = events.owners[1:] == events.owners[:-1]
    after[:-1][is_followed] = np.minimum(after[:-1], first[1:])[is_followed]
    event, place = expand(first // step_ms, np.maximum(first, after) // step_ms)
    return events.owners[event], place * step_ms
