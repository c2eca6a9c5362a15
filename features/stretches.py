"""Stretches of time in which what is read from an entity's tiles stays as it is.

The head of a window takes a tile in when the instant passes its start. Once it has passed all of them only tails move:
an edge that lies `back` before the instant `t` is at `floor(t - back, hop)`, so it leaves the tile at `start` behind,
which is a hop long, from `t = start + hop + back` on.
"""

import numpy as np

from features.declarations import FeatureGroup
from features.timeline import Line, Timeline
from features.windows import Int64s

NEVER_MS = int(np.iinfo(np.int64).max)


def stretches(timeline: Timeline, owners: Int64s, at_ms: Int64s, count: int) -> Int64s:
    """Bounds of the stretch that each instant lies in and of those that follow, [n, count + 1], of an event group.

    `bounds[i, 0] <= at_ms[i] < bounds[i, 1] < bounds[i, 2] …`; NEVER_MS, several times where need be, if nothing
    changes any more. Owners are places in the timeline's entities that have tiles; their instants lie after the start
    of the last one.
    """
    shortest = timeline.lines[min(timeline.lines)]
    since_ms = _starts(shortest, owners, shortest.rows.first_at_or_after(owners, at_ms) - 1, -NEVER_MS) + 1
    coming = []
    for tile_ms, back_ms in sorted(_edges(timeline.group)):
        line = timeline.lines[tile_ms]
        shift_ms = tile_ms + back_ms
        first = line.rows.first_at_or_after(owners, at_ms - shift_ms + 1)
        left_ms = _starts(line, owners, first - 1, -NEVER_MS)
        since_ms = np.maximum(since_ms, left_ms + shift_ms)
        for ahead in range(count):
            start_ms = _starts(line, owners, first + ahead, NEVER_MS)
            coming.append(np.where(start_ms == NEVER_MS, NEVER_MS, start_ms + shift_ms))
    return np.column_stack([since_ms, _first_distinct(np.column_stack(coming), count)])


def _edges(group: FeatureGroup) -> set[tuple[int, int]]:
    """(tile length, how far back) of every edge of a window, or of a part of one, but its head."""
    return {
        (group.tile_ms(feature), back_ms)
        for feature in group.features
        for span in feature.spans
        for back_ms in (span.since_ms, span.until_ms)
        if back_ms
    }


def _starts(line: Line, owners: Int64s, places: Int64s, otherwise_ms: int) -> Int64s:
    """Starts of the tiles at these places of the line; where that is not the owner's, the other number. [n]."""
    if len(line.owners) == 0:
        return np.full(len(owners), otherwise_ms)
    inside = np.clip(places, 0, len(line.owners) - 1)
    is_own = (inside == places) & (line.owners[inside] == owners)
    return np.where(is_own, line.times_ms[inside], otherwise_ms)


def _first_distinct(instants_ms: Int64s, count: int) -> Int64s:
    """The `count` earliest instants of each row, each once, [n, count]; NEVER_MS where there are fewer."""
    instants_ms = np.sort(instants_ms, axis=1)
    instants_ms[:, 1:][instants_ms[:, 1:] == instants_ms[:, :-1]] = NEVER_MS
    return np.sort(instants_ms, axis=1)[:, :count]
