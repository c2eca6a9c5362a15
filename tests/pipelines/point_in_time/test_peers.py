"""The join beside DuckDB's ASOF JOIN and Feast's own stores, on the same rows.

Equal where they mean the same; where they do not, each difference is a small case with both answers, and the table in
`pipelines/point_in_time/README.md` says who is right.
"""

import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Int64
from feast.value_type import ValueType

from features.aggregates import Count
from features.columns import codes_in, milliseconds
from features.declarations import Feature, FeatureGroup, Source
from features.point_in_time import BoundaryRows
from features.purposes import Purpose
from features.windows import Cadence

TIME = pa.timestamp("us", tz="UTC")
HOUR, DAY = 3_600_000, 86_400_000
T = 1_767_600_000_000  # a full hour
LOST = "lost"
LOG = Source("log", pa.schema([("event_id", pa.string()), ("event_timestamp", pa.timestamp("ms", tz="UTC")),
                               ("k", pa.string())]))  # fmt: skip
PLAIN = FeatureGroup(
    name="things",
    entities=("k",),
    source=LOG,
    cadence=Cadence.HOURLY,
    ttl_ms=3 * DAY,
    purpose=Purpose.ANALYTICS,
    owner="us",
    description="Things.",
    features=(Feature("v", Count(), DAY, "One.", "1", (0, 1e9)),),
    delay_ms=0,
)
"""An hourly group without delay, which is the nearest to what others mean by a feature."""


def stored(*rows: tuple) -> pa.Table:
    """(key, boundary, created, last event, value), times in ms after T."""
    names = ["k", "event_timestamp", "created_timestamp", "last_event_timestamp"]
    columns = list(zip(*rows, strict=True))
    times = [pa.array([(T + at) * 1000 for at in column]).cast(TIME) for column in columns[1:4]]
    return pa.table([pa.array(columns[0], pa.string()), *times, pa.array(columns[4], pa.int64())], names=[*names, "v"])


def asking(*rows: tuple) -> pa.Table:
    """(key, instant in ms after T)."""
    keys, times = zip(*rows, strict=True)
    instants = pa.array([None if at is None else (T + at) * 1000 for at in times], pa.int64()).cast(TIME)
    return pa.table({"k": pa.array(keys, pa.string()), "event_timestamp": instants, "row": np.arange(len(rows))})


def reel(left: pa.Table, right: pa.Table, group: FeatureGroup = PLAIN) -> list:
    rows = BoundaryRows.of(group, "k", right)
    known = np.flatnonzero(np.asarray(left["event_timestamp"].combine_chunks().is_valid()))
    taken = left.take(pa.array(known))
    said = rows.values_of(codes_in(taken["k"], rows.entities), milliseconds(taken["event_timestamp"]))
    answers = [None] * left.num_rows
    for place, value in zip(known.tolist(), said["v"].to_pylist(), strict=True):
        answers[place] = value
    return answers


def asof(left: pa.Table, right: pa.Table) -> list:
    with duckdb.connect() as connection:
        connection.register("l", left)
        connection.register("r", right)
        found = connection.execute(
            "select l.row, r.v from l asof left join r on l.k = r.k and l.event_timestamp >= r.event_timestamp"
        ).fetchall()
    by_row = dict(found)
    return [by_row[row] for row in range(left.num_rows)]


def feast(left: pa.Table, right: pa.Table, folder: Path, engine: str = "duckdb", **changes) -> list:
    """Feast's answers in the order of the rows; LOST where the row is not in its result."""
    pq.write_table(right, folder / "right.parquet")
    registry = str(folder / f"{engine}.db")
    configuration = RepoConfig(project="p", registry=registry, offline_store={"type": engine}, online_store=None,
                               entity_key_serialization_version=3)  # fmt: skip
    key = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
    source = FileSource(path=str(folder / "right.parquet"), timestamp_field="event_timestamp",
                        created_timestamp_column="created_timestamp")  # fmt: skip
    view = FeatureView(name="things", entities=[key], ttl=timedelta(days=3), schema=[Field(name="v", dtype=Int64)],
                       source=source)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what these stores warn of is theirs
        store = FeatureStore(config=configuration)
        store.apply([key, view])
        frame = store.get_historical_features(left.to_pandas(), ["things:v"], **changes).to_df()
    by_row = {row: None if pd.isna(value) else int(value) for row, value in zip(frame["row"], frame["v"], strict=True)}
    return [by_row.get(row, LOST) for row in range(left.num_rows)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


def test_all_are_equal_where_they_mean_the_same(rng, tmp_path):
    """No delay, one version of each row, made when it says, as old as it says, every key known: one answer."""
    slots = rng.choice(40 * 300, 3_000, replace=False)
    times = slots // 40 * HOUR
    keys = [f"k{slot % 40}" for slot in slots]
    right = stored(*zip(keys, times, times, times, range(len(slots)), strict=True))
    left = asking(*((f"k{rng.integers(44)}", int(rng.integers(0, 320 * HOUR))) for _ in range(2_000)))
    mine = reel(left, right)
    assert 0 < sum(value is None for value in mine) < 1_000
    assert feast(left, right, tmp_path, "duckdb") == mine
    theirs = feast(left, right, tmp_path, "dask")
    lost = [row for row, value in enumerate(theirs) if value == LOST]
    assert [value for value in theirs if value != LOST] == [mine[row] for row in range(2_000) if row not in lost]
    assert {mine[row] for row in lost} == {None}, "its file store loses rows, of which the next test is about"
    # ASOF knows no TTL: without one it is the same again.
    assert asof(left, right) == reel(left, right, replace(PLAIN, ttl_ms=1 << 50))


def test_feasts_file_store_loses_a_row_that_comes_before_its_keys_first_value(tmp_path):
    right = stored(("a", 5 * HOUR, 5 * HOUR, 5 * HOUR, 1))
    left = asking(("a", HOUR), ("a", 6 * HOUR), ("b", HOUR))
    assert reel(left, right) == feast(left, right, tmp_path) == asof(left, right) == [None, 1, None]
    assert feast(left, right, tmp_path, "dask") == [LOST, 1, None]


def test_a_value_is_known_only_after_its_delay(tmp_path):
    right = stored(("a", 0, 0, 0, 1))
    left = asking(("a", 0), ("a", HOUR - 1), ("a", HOUR + 900_000))
    assert reel(left, right, replace(PLAIN, delay_ms=900_000)) == [None, 1, 1]
    assert asof(left, right) == feast(left, right, tmp_path) == [1, 1, 1]


def test_a_correction_is_not_known_before_it_was_made(tmp_path):
    right = stored(("a", 0, 0, 0, 1), ("a", 0, 5 * HOUR, 0, 2))
    left = asking(("a", HOUR), ("a", 6 * HOUR))
    assert reel(left, right) == [1, 2]
    assert feast(left, right, tmp_path) == [2, 2], "Feast tells the first row what came four hours later"
    assert feast(left, right, tmp_path, filter_by_created_timestamp=True) == [1, 2]


def test_of_two_versions_the_later_made_holds(tmp_path):
    right = stored(("a", 0, 2, 0, 2), ("a", 0, 1, 0, 1), ("a", 0, 3, 0, 3))
    left = asking(("a", HOUR))
    assert reel(left, right) == feast(left, right, tmp_path) == [3]
    assert len({asof(left, right.take(pa.array(order)))[0] for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])}) > 1, (
        "ASOF takes whichever comes"
    )


def test_age_counts_from_the_last_event_not_from_the_row(tmp_path):
    right = stored(("a", 0, 0, -2 * DAY, 1))
    left = asking(("a", DAY), ("a", DAY + 1), ("a", 3 * DAY))
    assert reel(left, right) == [1, None, None]
    assert feast(left, right, tmp_path) == [1, 1, 1]


def test_an_unknown_key_or_instant_gets_null_and_keeps_its_row(tmp_path):
    right = stored((None, 0, 0, 0, 1), ("a", 0, 0, 0, 2))
    left = asking((None, HOUR), ("a", HOUR), ("b", HOUR), ("a", HOUR))
    assert reel(left, right) == asof(left, right) == [None, 2, None, 2]
    assert feast(left, right, tmp_path) == [None, 2, None, 2]
    timeless = asking(("a", None), ("a", HOUR))
    assert reel(timeless, right) == asof(timeless, right) == [None, 2]
