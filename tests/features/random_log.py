"""Random rows of any source's log, so that a new group is checked without new test code."""

import numpy as np
import pyarrow as pa

from features.source import Source

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
FIRST_MS = 1_709_164_800_000  # 29 February 2024
WORDS = ["alpha", "beta", "gamma", "delta", "épsilon", ""]


def random_log(
    rng: np.random.Generator, source: Source, entities: tuple[str, ...], rows: int, keys: int = 12
) -> pa.Table:
    """Rows over 100 days, most of them on a few busy ones, many at the same millisecond, in random order."""
    days = np.where(rng.random(rows) < 0.6, rng.integers(0, 100, rows) ** 2 % 100, 40 + rng.integers(0, 9, rows))
    times = FIRST_MS + days * DAY_MS + rng.integers(0, 48, rows) * HOUR_MS // 2
    times += rng.choice([0, 0, 0, 1, -1, 1234, 15 * MINUTE_MS, 20 * MINUTE_MS], rows)
    columns = {}
    for field in source.schema:
        if field.name == "event_id":
            columns[field.name] = pa.array([f"evt_{number:06d}" for number in rng.permutation(rows)])
        elif field.name == "event_timestamp":
            columns[field.name] = pa.array(times, pa.int64()).cast(field.type)
        elif field.name in entities:
            columns[field.name] = pa.array(
                [None if rng.random() < 0.05 else f"{field.name}-{rng.integers(keys)}" for _ in range(rows)], field.type
            )
        elif field.name == "event_name":
            columns[field.name] = pa.array([str(name) for name in rng.choice(source.events, rows)], field.type)
        else:
            columns[field.name] = pa.array([_value(rng, field.type) for _ in range(rows)], field.type)
    return pa.table(columns).select(source.schema.names)


def _value(rng: np.random.Generator, arrow_type: pa.DataType):
    if rng.random() < 0.1:
        return None
    if pa.types.is_boolean(arrow_type):
        return bool(rng.integers(2))
    if pa.types.is_integer(arrow_type):
        return int(rng.integers(0, 7))
    if pa.types.is_list(arrow_type):
        return [str(word) for word in rng.choice(WORDS, int(rng.integers(0, 4)))]
    return str(rng.choice(WORDS))


def random_questions(rng: np.random.Generator, log: pa.Table, entity: str, rows: int) -> tuple[pa.Array, np.ndarray]:
    """Entities (some null, some unknown) and instants at and around events and window edges."""
    known = [name for name in set(log[entity].to_pylist()) if name is not None]
    names = [[*sorted(known), None, "nobody"][int(rng.integers(len(known) + 2))] for _ in range(rows)]
    times = np.asarray(log["event_timestamp"].cast(pa.int64()))
    offsets = np.array([0, 1, 2000, 2001, 900_000, 3 * HOUR_MS, DAY_MS, 8 * DAY_MS, 30 * DAY_MS, 90 * DAY_MS])
    return pa.array(names, pa.string()), rng.choice(times, rows) + rng.choice(offsets, rows)


def times_of(log: pa.Table) -> np.ndarray:
    return np.asarray(log["event_timestamp"].cast(pa.int64()))
