"""Which messages a table holds: what its files' bounds say must never hide one."""

import random
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.origins import ORIGIN, Origins
from pipelines.lakehouse.tables import ORIGIN as ORIGIN_COLUMNS
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.settings import Settings

SPEC = TableSpec(
    "bronze.sample", pa.schema([*ORIGIN_COLUMNS, pa.field("event_timestamp", TIMESTAMP)]), (("event_timestamp", "day"),)
)
HOUR_US = 3_600_000_000
# Bounds are cut to 16 characters: the last two are told apart only by what is in the files.
TOPICS = ("a", "client.playback", "client.recommendations.one", "client.recommendations.two")
Origin = tuple[str, str, int, int]


def at_us(origin: Origin) -> int:
    """When the event of an origin was received: the same whenever it is read."""
    return zlib.crc32(repr(origin).encode()) % 72 * HOUR_US


def rows(origins: list[Origin], *, encoded: bool = False) -> pa.Table:
    table = pa.Table.from_pylist(
        [
            {**dict(zip(ORIGIN, origin, strict=True)), "ingested_at": 0, "event_timestamp": at_us(origin)}
            for origin in origins
        ],
        schema=SPEC.schema,
    )
    if not encoded:
        return table
    for name in ("cluster_id", "topic"):
        table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
    return table


def some(chance: random.Random, count: int) -> list[Origin]:
    return [
        (chance.choice(["c1", "c2"]), chance.choice(TOPICS), chance.randrange(3), chance.randrange(500))
        for _ in range(count)
    ]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Lakehouse.open(Settings(work_dir=tmp_path)).table(SPEC)


@pytest.mark.parametrize("seed", range(4))
def test_exactly_those_that_are_there_are_held(table, seed):
    chance = random.Random(seed)
    present: set[Origin] = set()
    for _ in range(12):
        new = sorted(set(some(chance, 40)) - present, key=lambda origin: origin[3])
        present |= set(new)
        table = commit_files(table, write_files(TableFiles.of(table), rows(new)), {})
    for topics in (TOPICS, TOPICS[:2], TOPICS[3:]):
        asked = [one for one in [*some(chance, 300), *chance.sample(sorted(present), 50)] if one[1] in topics]
        held = Origins.of(table, topics).hold(rows(asked, encoded=seed % 2 == 0))
        assert held.tolist() == [one in present for one in asked]
        assert held.any()
        assert not held.all()


def test_only_files_that_may_hold_them_are_opened(table):
    for start in range(0, 500, 100):
        new = [("c1", "a", partition, offset) for partition in range(2) for offset in range(start, start + 100)]
        table = commit_files(table, write_files(TableFiles.of(table), rows(new)), {})
    origins = Origins.of(table, ["a"])
    near = origins._candidates(rows([("c1", "a", 1, 250)]))
    assert 1 <= len(near) < len(origins.paths) / 5
    assert origins._candidates(rows([("c1", "a", 2, 250)])) == []
    assert origins._candidates(rows([("c1", "a", 1, 500)])) == []
    assert Origins.of(table, ["b"]).paths == []


def test_a_table_without_rows_holds_nothing(table):
    asked = rows([("c1", "a", 0, 0)])
    assert Origins.of(table, ["a"]).hold(asked).tolist() == [False]
    assert Origins.of(table, []).hold(asked[:0]).tolist() == []
    assert np.array_equal(Origins.of(table, ["a"]).hold(asked[:0]), [])
