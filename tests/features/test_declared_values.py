"""Every aggregate over every hop at every cadence, and every group, against the oracle that reads declarations."""

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from features.groups import GROUPS
from features.values import values_at
from tests.features import oracle
from tests.features.random_log import random_log, times_of
from tests.features.vocabulary import EVERYTHING

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
CASES = [
    pytest.param(group, entity, id=f"{group.name}-{entity}")
    for group in (*EVERYTHING, *GROUPS)
    for entity in group.entities
]


def agree(got, expected) -> bool:
    """Equal; real numbers within 1e-9, sketches within what they promise."""
    if isinstance(expected, oracle.Near):
        return got is not None and abs(got - expected.exact) <= 0.01 * abs(expected.exact) + 1e-9
    if isinstance(expected, dict) and got is not None:
        return [key for key, _ in got] == list(expected) and all(agree(value, expected[key]) for key, value in got)
    if isinstance(expected, list) and got is not None:
        return len(got) == len(expected) and all(map(agree, got, expected))
    if isinstance(expected, Fraction) and got is not None:
        return isinstance(got, float) and math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-9)
    return type(got) is type(expected) and got == expected


def instants(rng, times, rows):
    """Around events, and where the edge of a window, of a block or of the TTL passes over one."""
    back = [0, 15 * MINUTE, 20 * MINUTE, HOUR, 11 * HOUR, DAY, 2 * DAY, 3 * DAY, 7 * DAY, 8 * DAY, 14 * DAY, 28 * DAY,
            30 * DAY, 40 * DAY, 50 * DAY]  # fmt: skip
    edge = rng.choice([1, 5 * MINUTE, HOUR, DAY], rows)
    asked = -(-(rng.choice(times, rows) + rng.choice(back, rows)) // edge) * edge
    return asked + rng.choice([0, 2_000, 900_000, 3 * HOUR], rows) + rng.integers(-1, 3, rows)


@pytest.mark.parametrize(("group", "entity"), CASES)
def test_values_equal_the_oracle(group, entity):
    rng = np.random.default_rng(20240229)
    seen = dict.fromkeys(feature.name for feature in group.features)
    # Twenty minutes before a midnight hold too little to tell whether the oracle sees anything.
    short = {feature.name for feature in group.features if feature.window_ms * 12 < group.cadence.step_ms}
    for size, keys in ((1, 1), (10, 2), (60, 6), (160, 3), (300, 1), (600, 1), (600, 4), (900, 2), (2500, 1)):
        log = random_log(rng, group.source, group.entities, size, keys)
        rows = [row | {"time": int(row["event_timestamp"].timestamp() * 1000)} for row in log.to_pylist()]
        known = sorted({row[entity] for row in rows} - {None})
        names = [[*known, None, "nobody"][int(rng.integers(len(known) + 2))] for _ in range(60)]
        asked = instants(rng, times_of(log), 60)
        table = values_at(group, entity, log, pa.array(names, pa.string()), asked).to_pylist()
        for got, name, t in zip(table, names, asked.tolist(), strict=True):
            expected, age = oracle.declared(group, entity, rows, name, t)
            assert got.pop(group.age_column) == age, (name, t)
            for feature, value in expected.items():
                assert agree(got[feature], value), (feature, name, t, got[feature], value)
                seen[feature] = seen[feature] or value
    assert {name for name, value in seen.items() if value is None} <= short, (
        "never there: the test sees nothing of them"
    )
