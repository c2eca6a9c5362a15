"""Logs kept in (entity, time, id) order: the sort that every exact value needs, done once.

A sorted log is read like any other, but for what sorting costs: ids are read only where a state keeps them, and several
groups of one log share its order, its running totals and the edges of their windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from features.columns import as_declared, codes_in, encode, flat, milliseconds
from features.declarations import EVENT_TIME, FeatureGroup, Source
from features.errors import LogError
from features.keyed import KeyedTotal
from features.recent import EVENT_ID
from features.runs import order_by, run_of_row, run_starts
from features.states import Distinct, Total
from features.timeline import Line, Timeline, answers
from features.windows import Cadence, Int64s, valued_at_ms

_STATES_WITHOUT_IDS = (Total, KeyedTotal, Distinct)


def sort_log(source: Source, entity: str, log: pa.Table) -> pa.Table:
    """The log of a source in (entity, event_timestamp, event_id) order; events of no entity are left out."""
    log = as_declared(log, source.schema, f"the log of {source.name}")
    log = log.filter(log[entity].is_valid())
    _, owners = encode(log[entity])
    order = order_by(owners, milliseconds(log[EVENT_TIME], EVENT_TIME), flat(log[EVENT_ID]))
    return log.take(pa.array(order)).combine_chunks()


def columns_read(groups: Sequence[FeatureGroup], entity: str) -> list[str]:
    """What must be read of a sorted log to value these groups of its source."""
    states = {state for group in groups for state in group.states}
    inputs = {column for state in states for column, _ in state.inputs}
    ids = {EVENT_ID} if any(not isinstance(state, _STATES_WITHOUT_IDS) for state in states) else set()
    return [entity, EVENT_TIME, *sorted((inputs | ids) - {entity, EVENT_TIME})]


@dataclass(frozen=True)
class SortedLog:
    """Events of one source as a line, from which event groups are valued together."""

    entities: pa.Array
    line: Line

    @classmethod
    def of(cls, groups: Sequence[FeatureGroup], entity: str, log: pa.Table) -> "SortedLog":
        """From a log in (entity, time, id) order that has at least the columns of `columns_read`.

        The entity may come as a dictionary column.

        Raises:
            LogError: the log is in another order, or a column is missing or of another type.
        """
        source = groups[0].source
        needed = pa.schema([source.schema.field(name) for name in columns_read(groups, entity)[1:]])
        events = as_declared(log, needed, f"the sorted log of {source.name}")
        entities, owners = encode(log[entity])
        times_ms = milliseconds(events[EVENT_TIME], EVENT_TIME)
        in_order = (owners[1:] > owners[:-1]) | ((owners[1:] == owners[:-1]) & (times_ms[1:] >= times_ms[:-1]))
        if len(owners) and (owners[0] < 0 or not in_order.all()):
            raise LogError(f"the log of {source.name} is not in the order of {entity} and time; sort it anew")
        if entity not in needed.names:
            events = events.append_column(entity, log[entity])
        bundles = {state: state.lift(events) for group in groups for state in group.states}
        return cls(entities, Line(owners, times_ms, times_ms, bundles))

    def values_at(
        self, groups: Sequence[FeatureGroup], entities: pa.Array | pa.ChunkedArray, asked_ms: Int64s
    ) -> list[pa.Table]:
        """Each group's features and age at the instants, as `values_at` gives them; [n] rows each."""
        return self.values_of(groups, codes_in(entities, self.entities), asked_ms)

    def values_of(self, groups: Sequence[FeatureGroup], owners: Int64s, asked_ms: Int64s) -> list[pa.Table]:
        """`values_at` of places in `self.entities`; -1 is an unknown entity."""
        if any(group.cadence is not Cadence.EVENT for group in groups):
            raise LogError("only event groups are valued at a row's own instant; read the others at their boundaries")
        found: dict[int, pa.Table] = {}
        for delay_ms in {group.delay for group in groups}:
            alike = [place for place, group in enumerate(groups) if group.delay == delay_ms]
            tables = self._values_alike([groups[place] for place in alike], owners, asked_ms)
            found |= dict(zip(alike, tables, strict=True))
        return [found[place] for place in range(len(groups))]

    def _values_alike(self, groups: Sequence[FeatureGroup], owners: Int64s, asked_ms: Int64s) -> list[pa.Table]:
        """Groups of the same delay, read in one pass: those with the same window share its edges."""
        fused = _fused(groups)
        timeline = Timeline(fused, self.entities, dict.fromkeys(fused.states_of_tile, self.line))
        known = np.flatnonzero(owners >= 0)
        at_ms = valued_at_ms(asked_ms[known], fused.cadence, fused.delay)
        order = np.lexsort((at_ms, owners[known]))
        known, at_ms = known[order], at_ms[order]
        firsts = run_starts(owners[known], at_ms)
        last_events_ms, is_seen, columns = timeline.read(owners[known][firsts], at_ms[firsts])
        place = np.full(len(owners), -1, dtype=np.int64)
        place[known] = run_of_row(firsts, len(known))
        place[known[~is_seen[place[known]]]] = -1
        tables, taken = [], 0
        for group in groups:
            own = columns[taken : taken + len(group.features)]
            tables.append(answers(group, place, asked_ms, last_events_ms, own))
            taken += len(group.features)
        return tables


def _fused(groups: Sequence[FeatureGroup]) -> FeatureGroup:
    """One group with the features of all, in their order."""
    features = [replace(feature, name=f"f{g}_{feature.name}") for g, group in enumerate(groups)
                for feature in group.features]  # fmt: skip
    return replace(groups[0], features=tuple(features))
