"""Manifests that are not what they should be are named."""

from pathlib import Path

import pytest

from models.errors import TrainingSetError
from models.training_set import read_manifest
from tests.models.recommendation.planted import edit_manifest, write_training_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_training_set(tmp_path / "set", viewers=3, titles=20, length=10).folder


def test_reads_what_was_written(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest.catalogue[:2] == ("title000", "title001")
    assert manifest.label_horizon_ms == 1_700_000_000_000 + 9 * 86_400_000
    assert manifest.excluded == {"kids' profile": 3, "no consent": 2}


def test_the_digest_is_of_the_content_not_of_its_layout(folder: Path) -> None:
    before = read_manifest(folder).digest
    edit_manifest(folder)
    assert read_manifest(folder).digest == before
    edit_manifest(folder, seed=99)
    assert read_manifest(folder).digest != before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"catalogue": None}, "lacks catalogue"),
        ({"popularity": None, "rows": None}, "lacks popularity, rows"),
        ({"catalogue": "all"}, "`catalogue` is str"),
        ({"catalogue": ["a", "a"]}, "names a title twice"),
        ({"rows": {"train": 1, "test": 1}}, "validation split"),
        ({"split_ms": {"train_end": 1}}, "lacks validation_end"),
    ],
)
def test_refuses_an_unknown_format(folder: Path, changes: dict[str, object], named: str) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(TrainingSetError, match=named):
        read_manifest(folder, needs=("catalogue", "popularity"))


def test_what_only_some_sets_hold_is_empty_where_nobody_needs_it(folder: Path) -> None:
    edit_manifest(folder, catalogue=None, popularity=None, horizon_ms=86_400_000)
    manifest = read_manifest(folder)
    assert (manifest.catalogue, manifest.popularity) == ((), {})
    assert manifest.label_horizon_ms == 1_700_000_000_000 + 10 * 86_400_000


def test_refuses_what_is_no_manifest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingSetError, match="no training set at"):
        read_manifest(tmp_path)
    for content, named in (("{", "not JSON"), ("[]", "expected an object")):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(TrainingSetError, match=named):
            read_manifest(folder)
