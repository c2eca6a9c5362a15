"""A sorted log gives what any log gives; whole tiles give the exact value as of their last boundary, and no more."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from features.columns import encode
from features.errors import LogError
from features.groups import GROUPS
from features.sorted_log import SortedLog, columns_read, sort_log
from features.tiles import tiles, timeline_of_whole_tiles
from features.values import values_at
from features.windows import Cadence, hop_ms
from tests.features.random_log import random_log, random_questions, times_of

EVENT_GROUPS = [group for group in GROUPS if group.cadence is Cadence.EVENT]
each_entity = pytest.mark.parametrize(
    ("group", "entity"),
    [pytest.param(group, entity, id=f"{group.name}-{entity}") for group in EVENT_GROUPS for entity in group.entities],
)


def a_log(group, seed, rows=900):
    return random_log(np.random.default_rng(seed), group.source.schema, group.entities, rows)


@each_entity
def test_groups_valued_together_are_what_each_is_alone(group, entity):
    log = a_log(group, 1)
    names, instants = random_questions(np.random.default_rng(2), log, entity, 700)
    halves = [
        replace(group, features=group.features[::2]),
        replace(group, features=group.features[1::2] or group.features[:1], ttl_ms=3 * 86_400_000),
        replace(group, features=group.features[-1:], delay_ms=group.delay + 60_000),
    ]
    ordered = sort_log(group.source, entity, log)
    encoded = ordered.set_column(
        ordered.column_names.index(entity), entity, ordered[entity].combine_chunks().dictionary_encode()
    ).select(columns_read(halves, entity))
    together = SortedLog.of(halves, entity, encoded).values_at(halves, names, instants)
    for half, values in zip(halves, together, strict=True):
        assert values.equals(values_at(half, entity, log, names, instants))


@each_entity
def test_a_log_in_another_order_is_refused(group, entity):
    ordered = sort_log(group.source, entity, a_log(group, 3))
    backwards = ordered.take(pa.array(np.arange(ordered.num_rows)[::-1]))
    with pytest.raises(LogError, match="is not in the order of"):
        SortedLog.of([group], entity, backwards)


@each_entity
def test_whole_tiles_are_exact_as_of_their_last_boundary(group, entity):
    log = a_log(group, 4)
    names, instants = random_questions(np.random.default_rng(5), log, entity, 600)
    shortest = min(group.states_of_tile)
    stored = tiles(group, entity, log)
    for feature in group.features:
        alone = replace(group, features=(feature,))
        entities, owners = encode(stored[entity])
        timeline = timeline_of_whole_tiles(alone, entities, owners, stored, shortest)
        read = timeline.values_at(names, instants)
        step = hop_ms(feature.window_ms)
        assert feature.window_ms % step == 0, "else the boundary's window would begin elsewhere"
        # The exact value of a service without delay at the boundary before; the age is of the shortest tile's.
        boundary = (instants - group.delay) // step * step
        exact = values_at(replace(alone, delay_ms=0, ttl_ms=1 << 60), entity, log, names, boundary)
        last = values_at(replace(alone, delay_ms=0, ttl_ms=1 << 60), entity, log, names,
                         (instants - group.delay) // shortest * shortest)[group.age_column]  # fmt: skip
        ages = [
            None if age is None else int(t - ((t - group.delay) // shortest * shortest - age))
            for t, age in zip(instants, last.to_pylist(), strict=True)
        ]
        assert read[group.age_column].to_pylist() == ages
        fresh = [value if age is not None and age <= group.ttl_ms else None
                 for value, age in zip(exact[feature.name].to_pylist(), ages, strict=True)]  # fmt: skip
        assert read[feature.name].to_pylist() == fresh


@each_entity
def test_no_later_event_moves_what_whole_tiles_say(group, entity):
    log = a_log(group, 6)
    names, instants = random_questions(np.random.default_rng(7), log, entity, 30)
    everything = a_log(group, 8)
    shortest = min(group.states_of_tile)
    for name, t in zip(names, instants, strict=True):
        asked = (pa.array([name.as_py()], pa.string()), np.array([t]))
        known = log.filter(pa.array(times_of(log) < t - group.delay))
        later = everything.filter(pa.array(times_of(everything) >= t - group.delay))
        seen = []
        for world in (known, pa.concat_tables([known, later])):
            stored = tiles(group, entity, world)
            timeline = timeline_of_whole_tiles(group, *encode(stored[entity]), stored, shortest)
            seen.append(timeline.values_at(*asked))
        assert seen[0].equals(seen[1])
