"""Reading features off a timeline: the arithmetic that every path shares.

A *line* is a row of elements (events, or tiles of one length) in (entity, time) order, each with its states.
Whatever the elements are, the value of a feature at an instant is read in the same way: two binary searches
find the elements in its window, the readers merge their states, the aggregate finishes them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.aggregates import Reading, Span
from features.columns import as_declared, codes_in, encode, flat, milliseconds, rows_at, take
from features.declarations import Feature, FeatureGroup
from features.errors import LogError
from features.runs import SortedRows, bounds, concatenate, order_by, run_ends, run_of_row, run_starts
from features.sketches import Sketches
from features.source import EVENT_ID, EVENT_TIME
from features.states import Bundle, State
from features.windows import Int64s, edge_ms, floor_ms, hop_ms, valued_at_ms

# Work done at once: enough that NumPy's cost per call vanishes, little enough that what is read of it fits in memory.
# Counted in entries of sketches, which are read one by one; any row is worth some.
_CHUNK_WORK = 1 << 21
_WORK_PER_ROW = 1 << 5

Flags = npt.NDArray[np.bool_]
Reader = Callable[[Int64s, Int64s], Bundle]


class Line:
    """Elements in (entity, time) order. Owners are places in the timeline's entities; [n] each."""

    def __init__(self, owners: Int64s, times_ms: Int64s, last_events_ms: Int64s, bundles: dict[State, Bundle]) -> None:
        self.owners, self.times_ms, self.last_events_ms, self.bundles = owners, times_ms, last_events_ms, bundles
        self.rows = SortedRows(owners, times_ms)
        self._readers: dict[State, Reader] = {}

    def reader(self, state: State) -> Reader:
        """Reader of the state, prepared at first use."""
        if state not in self._readers:
            self._readers[state] = self.bundles[state].reader(self.owners)
        return self._readers[state]

    @cached_property
    def entries(self) -> Int64s:
        """[n + 1] how many entries the sketches before each element hold, all its states together."""
        counts = np.zeros(len(self.owners) + 1, dtype=np.int64)
        for bundle in self.bundles.values():
            if isinstance(bundle, Sketches):
                counts += bounds(bundle.rows, bundle.size)
        return counts

    def last_event_before(self, owners: Int64s, at_ms: Int64s) -> tuple[Int64s, Flags]:
        """(time of the owner's last event before the instant, whether there is one); [n] each."""
        before = self.rows.first_at_or_after(owners, at_ms) - 1
        seen = np.flatnonzero(before >= 0)
        seen = seen[self.owners[before[seen]] == owners[seen]]
        last_events_ms, is_seen = np.zeros(len(owners), dtype=np.int64), np.zeros(len(owners), dtype=np.bool_)
        last_events_ms[seen], is_seen[seen] = self.last_events_ms[before[seen]], True
        return last_events_ms, is_seen

    def tiled(self, tile_ms: int, states: Sequence[State]) -> "Line":
        """The same line with its elements merged into tiles of this length."""
        tile_starts = floor_ms(self.times_ms, tile_ms)
        starts = run_starts(self.owners, tile_starts)
        bundles = {state: self.bundles[state].merge(starts) for state in states}
        return Line(
            self.owners[starts], tile_starts[starts], self.last_events_ms[run_ends(self.owners, tile_starts)], bundles
        )


def log_schema(groups: Sequence[FeatureGroup], entity: str) -> pa.Schema:
    """The columns of their source's log that groups are made of, for one entity."""
    inputs = {column for group in groups for state in group.states for column, _ in state.inputs}
    return pa.schema([one for one in groups[0].source.schema if one.name in {entity, EVENT_TIME, EVENT_ID, *inputs}])


def line_of_log(group: FeatureGroup, entity: str, log: pa.Table) -> tuple[pa.Array, Line]:
    """The entities of a log in ascending order, and its events as a line. Events of no entity are left out.

    The log needs the columns of `log_schema`, in any order; sorted by (entity, event_timestamp, event_id) is quickest.
    """
    group.check_entity(entity)
    log = as_declared(log, log_schema([group], entity), f"the log of {group.source.name}")
    log = log.filter(log[entity].is_valid()) if log[entity].null_count else log
    entities, owners = encode(log[entity])
    times_ms = milliseconds(log[EVENT_TIME], EVENT_TIME)
    order = order_by(owners, times_ms, flat(log[EVENT_ID]))
    log, owners, times_ms = rows_at(log, order), owners[order], times_ms[order]
    bundles = {state: state.lift(log) for state in group.states}
    return entities, Line(owners, times_ms, times_ms, bundles)


@dataclass(frozen=True)
class Timeline:
    """All that a group's values are read from: its entities, and the lines of its features by tile length."""

    group: FeatureGroup
    entities: pa.Array
    lines: dict[int, Line]

    @classmethod
    def of_events(cls, group: FeatureGroup, entity: str, log: pa.Table) -> "Timeline":
        """Timeline to value the group at any instant, straight from the log.

        Events stand for themselves where the head of a window is exact to the millisecond. Values at hourly or
        daily boundaries are read from tiles, which end there: a sketch of an hour is merged once, not per row.
        """
        entities, events = line_of_log(group, entity, log)
        if group.cadence.step_ms == 1:
            return cls(group, entities, dict.fromkeys(group.states_of_tile, events))
        return cls(group, entities, tiled_lines(group, events))

    def values_at(self, entities: pa.Array | pa.ChunkedArray, instants_ms: npt.ArrayLike) -> pa.Table:
        """Features and age as a service asked at these instants would have given them; [n] rows, same order.

        Null and unknown entities, and values past the group's TTL, are null.
        """
        asked_ms = np.asarray(instants_ms, dtype=np.int64)
        if asked_ms.shape != (len(entities),):
            raise LogError(f"{len(entities):,} entities came with instants of shape {asked_ms.shape}; give one each")
        return self.values_of(codes_in(entities, self.entities), asked_ms)

    def values_of(self, owners: Int64s, asked_ms: Int64s) -> pa.Table:
        """`values_at` of places in `self.entities`; -1 is an unknown entity."""
        known = np.flatnonzero(owners >= 0)
        at_ms = valued_at_ms(asked_ms[known], self.group.cadence, self.group.delay)
        known = known[np.lexsort((at_ms, owners[known]))]
        at_ms = valued_at_ms(asked_ms[known], self.group.cadence, self.group.delay)
        # Rows of the same entity and boundary share one value.
        firsts = run_starts(owners[known], at_ms)
        last_events_ms, is_seen, columns = self.read(owners[known][firsts], at_ms[firsts])
        place = np.full(len(owners), -1, dtype=np.int64)
        place[known] = run_of_row(firsts, len(known))
        place[known[~is_seen[place[known]]]] = -1
        return answers(self.group, place, asked_ms, last_events_ms, columns)

    def read(self, owners: Int64s, at_ms: Int64s) -> tuple[Int64s, Flags, list[pa.Array]]:
        """Values at the instants, whatever the TTL: (last contributing event, whether there is one, features).

        [n] each. Rows in (owner, instant) order are quickest; an owner is a place in the timeline's entities.
        """
        starts = run_starts(np.cumsum(self._work(owners, at_ms)) // _CHUNK_WORK)
        chunks = [
            self._read_chunk(owners[start:end], at_ms[start:end])
            for start, end in pairwise([*starts.tolist(), len(owners)])
        ]
        last_events_ms = concatenate([last for last, _, _ in chunks])
        is_seen = concatenate([seen for _, seen, _ in chunks]).astype(np.bool_)
        columns = [
            flat(pa.chunked_array([columns[place] for _, _, columns in chunks], type=feature.arrow_type))
            for place, feature in enumerate(self.group.features)
        ]
        return last_events_ms, is_seen, columns

    def _work(self, owners: Int64s, at_ms: Int64s) -> Int64s:
        """How much there is to read for each row, about; [n]."""
        work = np.full(len(owners), _WORK_PER_ROW, dtype=np.int64)
        for tile_ms, line in self.lines.items():
            spans = [
                span.since_ms - span.until_ms
                for feature in self.group.features
                if self.group.tile_ms(feature) == tile_ms
                and any(isinstance(line.bundles[state], Sketches) for state in feature.aggregate.states)
                for span in feature.spans
            ]
            if spans:
                lower, upper = (line.rows.first_at_or_after(owners, edge) for edge in (at_ms - max(spans), at_ms))
                work += line.entries[upper] - line.entries[lower]
        return work

    def _read_chunk(self, owners: Int64s, at_ms: Int64s) -> tuple[Int64s, Flags, list[pa.Array]]:
        last_events_ms, is_seen = self.lines[min(self.lines)].last_event_before(owners, at_ms)
        window = _WindowReader(self, owners, at_ms)
        columns = [feature.aggregate.finish(window.readings(feature)) for feature in self.group.features]
        return last_events_ms, is_seen, columns


def answers(
    group: FeatureGroup, place: Int64s, asked_ms: Int64s, last_events_ms: Int64s, columns: Sequence[pa.Array]
) -> pa.Table:
    """Values brought to the rows that asked for them (place -1: none); past the TTL only the age is left."""
    seen = place >= 0
    age_ms = np.zeros(len(place), dtype=np.int64)
    age_ms[seen] = asked_ms[seen] - last_events_ms[place[seen]]
    fresh = np.where(seen & (age_ms <= group.ttl_ms), place, -1)
    values = {feature.name: take(column, fresh) for feature, column in zip(group.features, columns, strict=True)}
    return pa.table(values | {group.age_column: pa.array(age_ms, mask=~seen)})


def tiled_lines(group: FeatureGroup, events: Line) -> dict[int, Line]:
    """The events as tiles of every length that the group is read from."""
    return {tile_ms: events.tiled(tile_ms, states) for tile_ms, states in group.states_of_tile.items()}


class _WindowReader:
    """Readings of the windows of one chunk of rows; features with the same window and state share them."""

    def __init__(self, timeline: Timeline, owners: Int64s, at_ms: Int64s) -> None:
        self._timeline, self._owners, self._at_ms = timeline, owners, at_ms
        self._edges: dict[tuple[int, int, int], Int64s] = {}
        self._bundles: dict[tuple[State, int, int, Span], Bundle] = {}

    def readings(self, feature: Feature) -> list[Reading]:
        """Readings of the feature's spans."""
        return [self._reading(feature, span) for span in feature.spans]

    def _reading(self, feature: Feature, span: Span) -> Reading:
        tile_ms = self._timeline.group.tile_ms(feature)
        line = self._timeline.lines[tile_ms]
        lower, upper = self._edge(feature, span.since_ms), self._edge(feature, span.until_ms)
        bundles = []
        for state in feature.aggregate.states:
            key = (state, tile_ms, hop_ms(feature.window_ms), span)
            if key not in self._bundles:
                self._bundles[key] = line.reader(state)(lower, upper)
            bundles.append(self._bundles[key])
        return Reading(tuple(bundles), upper > lower)

    def _edge(self, feature: Feature, back_ms: int) -> Int64s:
        """First element at or after an edge of each row's window."""
        tile_ms = self._timeline.group.tile_ms(feature)
        key = (tile_ms, hop_ms(feature.window_ms), back_ms)
        if key not in self._edges:
            rows = self._timeline.lines[tile_ms].rows
            self._edges[key] = rows.first_at_or_after(self._owners, edge_ms(self._at_ms, back_ms, feature.window_ms))
        return self._edges[key]
