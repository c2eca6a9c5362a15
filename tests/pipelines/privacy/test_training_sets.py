"""Training sets without people: rows, manifests, and an erasure that was interrupted between two steps."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.training_set import read_manifest
from pipelines.privacy import training_sets
from pipelines.privacy.person import Person
from pipelines.privacy.requests import Request, Requests
from pipelines.privacy.training_sets import Names
from tests.models.recommendation.planted import write_training_set

SPLITS = ("train", "validation", "test")


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        split: pl.read_parquet(folder / f"split={split}", hive_partitioning=False).sort("row_id").to_dicts()
        for split in SPLITS
    }


@pytest.fixture
def folder(tmp_path: Path, ray_session: None) -> Path:
    folder = tmp_path / "training_sets" / "recommendation-1"
    write_training_set(folder, viewers=20, titles=30, length=12)
    return folder


def requests_of(folder: Path, *places: int) -> Requests:
    """A request for each of some viewers of the set, the first in alphabetical order being 0."""
    viewers = sorted({row["profile_id"] for row in rows_of(folder)["train"]})
    return Requests(
        {
            f"mark-{place}": Request(
                f"mark-{place}", datetime.now(UTC), "a test", Person(profile_ids=frozenset([viewers[place]]))
            )
            for place in places
        }
    )


def gone(requests: Requests) -> set[str]:
    return set().union(*(one.person.profile_ids for one in requests.by_mark.values()))


def test_rows_go_and_the_manifest_counts_what_is_left(folder):
    before, digest = rows_of(folder), read_manifest(folder).digest
    requests = requests_of(folder, 3, 7)
    expected = {
        split: [row for row in rows if row["profile_id"] not in gone(requests)] for split, rows in before.items()
    }
    count = sum(len(before[split]) - len(expected[split]) for split in SPLITS)
    assert training_sets.erase(folder.parent.parent, Names.of(requests)) == count > 0
    assert rows_of(folder) == expected
    assert read_manifest(folder).rows == {split: len(rows) for split, rows in expected.items()}
    (told,) = training_sets.told(folder.parent.parent)
    assert sum(told.rows.values()) == count
    assert set(told.rows) == {"mark-3", "mark-7"}
    assert told.digests == {digest}
    assert training_sets.erase(folder.parent.parent, Names.of(requests)) == 0


def die(*_: object) -> None:
    raise RuntimeError("killed")


@pytest.mark.parametrize("step", ["_rewrite", "_count_anew"])
def test_interrupted_before_a_step_it_comes_to_the_same(folder, monkeypatch, step):
    requests = requests_of(folder, 0)
    count = sum(row["profile_id"] in gone(requests) for rows in rows_of(folder).values() for row in rows)
    with monkeypatch.context() as patch:
        patch.setattr(training_sets, step, die)
        with pytest.raises(RuntimeError, match="killed"):
            training_sets.erase(folder.parent.parent, Names.of(requests))
    training_sets.erase(folder.parent.parent, Names.of(requests))
    left = rows_of(folder)
    assert all(row["profile_id"] not in gone(requests) for rows in left.values() for row in rows)
    assert read_manifest(folder).rows == {split: len(rows) for split, rows in left.items()}
    (told,) = training_sets.told(folder.parent.parent)
    assert told.rows == {"mark-0": count}
    assert json.loads((folder / "manifest.json").read_text())["erasures"]["is_done"] is True


def test_a_second_erasure_is_told_beside_the_first(folder):
    first, second = requests_of(folder, 1), requests_of(folder, 2)
    training_sets.erase(folder.parent.parent, Names.of(first))
    between = read_manifest(folder).digest
    training_sets.erase(folder.parent.parent, Names.of(second))
    (told,) = training_sets.told(folder.parent.parent)
    assert set(told.rows) == {"mark-1", "mark-2"}
    assert between in told.digests
    assert len(told.digests) == 2


def test_where_there_is_no_training_set_nothing_is_done(tmp_path, ray_session):
    assert training_sets.erase(tmp_path, Names.of(Requests({}))) == 0
    assert training_sets.told(tmp_path) == []
