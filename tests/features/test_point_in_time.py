import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.aggregates import Count
from features.columns import codes_in
from features.declarations import Feature, FeatureGroup, Source
from features.errors import LogError
from features.point_in_time import BoundaryRows, as_of_join
from features.purposes import Purpose
from features.windows import Cadence

TIME = pa.timestamp("ms", tz="UTC")
HOUR, DAY = 3_600_000, 86_400_000
HOURLY = {"cadence": Cadence.HOURLY, "delay_ms": 900_000, "ttl_ms": 8 * DAY}


def left_of(rows):
    return pa.table(
        {
            "row": pa.array(range(len(rows))),
            "k": pa.array([key for key, _ in rows], pa.string()),
            "t": pa.array([t for _, t in rows], pa.int64()).cast(TIME),
        }
    )


def right_of(rows):
    """(key, event, created, last event, value)"""
    names = ["k", "event_timestamp", "created_timestamp", "last_event_timestamp", "v"]
    types = [pa.string(), TIME, TIME, TIME, pa.int64()]
    arrays = [
        pa.array([row[place] for row in rows], pa.int64() if kind == TIME else kind).cast(kind)
        for place, kind in enumerate(types)
    ]
    return pa.table(arrays, names=names)


def join(left, right, columns=("v",), **changes):
    return as_of_join(left, right, key="k", left_time="t", columns=list(columns), **(HOURLY | changes))


def values(left_rows, right_rows, **changes):
    return join(left_of(left_rows), right_of(right_rows), **changes)["v"].to_pylist()


def test_known_answers():
    hour = 10 * HOUR
    published = hour + 900_000
    row = ("a", hour, published, hour - 1, 1)
    assert values([("a", published), ("a", published - 1), ("b", published), (None, published)], [row]) == [
        1,
        None,
        None,
        None,
    ]
    # A correction is invisible until it was written; the earlier version stands until then.
    correction = ("a", hour, published + 5, hour - 1, 2)
    assert values([("a", published + 4), ("a", published + 5)], [correction, row]) == [1, 2]
    # A correction that took back what an older row said does not reach back before its own writing.
    late = [("a", hour, hour + DAY, hour - 1, 3), ("a", hour - HOUR, hour - HOUR + 900_000, hour - HOUR - 1, 4)]
    assert values([("a", published)], late) == [4]
    # Too old is null, and does not give way to an older row.
    assert values([("a", hour - 1 + 8 * DAY), ("a", hour + 8 * DAY)], [row]) == [1, None]
    # A row of another key just before is no answer.
    assert values([("b", published)], [row, ("b", hour + HOUR, hour + 2 * HOUR, hour, 5)]) == [None]


def test_an_event_cadence_is_not_floored():
    event = {"cadence": Cadence.EVENT, "delay_ms": 2_000}
    rows = [("a", 12_345, 12_345, 12_345, 1)]
    assert values([("a", 14_345), ("a", 14_344)], rows, **event) == [1, None]


def test_left_rows_are_kept_as_they_are():
    left = left_of([("a", 5 * DAY), (None, 5 * DAY), ("a", 5 * DAY), ("z", None), ("a", None), ("a", DAY)])
    joined = join(left, right_of([("a", 4 * DAY, 4 * DAY, 4 * DAY, 7), (None, DAY, DAY, DAY, 8)]))
    assert joined.select(left.column_names).equals(left)
    assert joined["v"].to_pylist() == [7, None, 7, None, None, None]
    assert join(left.slice(0, 0), right_of([])).num_rows == 0
    assert join(left, right_of([]))["v"].null_count == 6


def test_wrong_tables_are_refused():
    with pytest.raises(LogError, match=r"the right table lacks the column\(s\) w"):
        join(left_of([]), right_of([]), columns=["w"])
    with pytest.raises(LogError, match=r"left table has column\(s\) v already"):
        join(left_of([]).append_column("v", pa.array([], pa.int64())), right_of([]))


def brute_force(left_rows, right_rows, ttl, step, delay):
    answers = []
    for key, t in left_rows:
        best = None
        for row in right_rows:
            visible = row[0] == key and row[1] <= (t - delay) // step * step and row[2] <= t
            if visible and (best is None or (row[1], row[2]) >= (best[1], best[2])):
                best = row
        answers.append(best[4] if best and t - best[3] <= ttl else None)
    return answers


@pytest.mark.parametrize("seed", range(30))
def test_corrections_ties_and_age_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    right_rows = []
    for number in range(int(rng.integers(0, 120))):
        event = int(rng.integers(0, 30)) * HOUR
        created = event + int(rng.choice([0, 900_000, HOUR, DAY, 3 * DAY])) * int(rng.integers(0, 3))
        right_rows.append((f"k{rng.integers(3)}", event, created, event - int(rng.integers(0, DAY)), number))
    left_rows = [
        ([None, "k0", "k1", "k2", "k3"][int(rng.integers(5))], int(rng.integers(0, 6 * DAY)) + int(rng.integers(-1, 2)))
        for _ in range(150)
    ]
    left_rows += [(row[0], row[2] + int(rng.integers(-1, 2))) for row in right_rows]
    for cadence, step, delay in ((Cadence.HOURLY, HOUR, 900_000), (Cadence.EVENT, 1, 2_000), (Cadence.DAILY, DAY, 0)):
        got = values(left_rows, right_rows, cadence=cadence, delay_ms=delay, ttl_ms=DAY)
        assert got == brute_force(left_rows, right_rows, DAY, step, delay)


def test_equals_duckdb_where_nothing_was_corrected():
    rng = np.random.default_rng(8)
    slots = rng.choice(200 * 400, 30_000, replace=False)
    right_rows = [(f"k{slot // 400}", int(slot % 400) * HOUR, int(slot % 400) * HOUR, int(slot % 400) * HOUR, row)
                  for row, slot in enumerate(slots)]  # fmt: skip
    left = left_of([(f"k{rng.integers(220)}", int(rng.integers(0, 500 * HOUR))) for _ in range(50_000)])
    right = right_of(right_rows)
    ours = join(left, right, cadence=Cadence.EVENT, delay_ms=0, ttl_ms=400 * DAY)
    with duckdb.connect() as connection:
        connection.register("l", left)
        connection.register("r", right)
        theirs = connection.execute(
            "select l.row, r.v from l asof left join r on l.k = r.k and l.t >= r.event_timestamp order by l.row"
        ).fetchall()
    assert ours["v"].to_pylist() == [value for _, value in theirs]
    assert 0 < ours["v"].null_count < 25_000


LOG = Source("log", pa.schema([("event_id", pa.string()), ("event_timestamp", TIME), ("k", pa.string())]))
DECLARED = FeatureGroup(
    name="things",
    entities=("k",),
    source=LOG,
    cadence=Cadence.HOURLY,
    ttl_ms=DAY,
    purpose=Purpose.ANALYTICS,
    owner="us",
    description="Things.",
    features=(Feature("v", Count(), DAY, "One.", "1", (0, 9)),),
    delay_ms=900_000,
)
a_key = st.sampled_from(["a", "b", "", "é", None])
near = st.builds(
    lambda hour, off: hour * HOUR + off, st.integers(-3, 40), st.sampled_from([-1, 0, 1, 900_000, 900_001])
)
a_version = st.tuples(a_key, st.integers(0, 30).map(lambda hour: hour * HOUR), near, st.integers(0, 2 * DAY))


@given(st.lists(a_version, max_size=25), st.lists(st.tuples(a_key, near), max_size=25))
def test_stored_rows_are_what_a_reader_of_all_versions_would_say(versions, asked):
    """Ties, corrections, TTL, null keys and duplicates: value and age against a loop over every version."""
    # Two versions of a key, boundary and creation are one too many: nobody could say which holds.
    versions = list({(key, event, created): (key, event, created, event - back, number)
                     for number, (key, event, created, back) in enumerate(versions)}.values())  # fmt: skip
    rows = BoundaryRows.of(DECLARED, "k", right_of(versions))
    keys = pa.array([key for key, _ in asked], pa.string())
    table = rows.values_of(codes_in(keys, rows.entities), np.array([t for _, t in asked], dtype=np.int64))
    for (key, t), said in zip(asked, table.to_pylist(), strict=True):
        seen = [row for row in versions if key is not None and row[0] == key
                and row[1] <= (t - 900_000) // HOUR * HOUR and row[2] <= t]  # fmt: skip
        if not seen:
            assert said == {"v": None, "things__age_ms": None}
            continue
        latest = max(seen, key=lambda row: (row[1], row[2]))
        age = t - latest[3]
        assert said == {"v": latest[4] if age <= DAY else None, "things__age_ms": age}
