"""What differs between two runs, and only that."""

from pathlib import Path

import pytest

from models.intervals import Interval
from pipelines.champions import CHAMPION
from pipelines.compare import UnknownRunError, differences, facts_of, figures_of, same_sections
from tests.pipelines.registry import Registered

FIGURES = {"test_ndcg": 0.3, "test_ndcg_low": 0.28, "test_ndcg_high": 0.32, "test_rows": 90.0}


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    return Registered(tmp_path)


def test_all_that_differs_is_told_and_nothing_else(registered: Registered) -> None:
    one = registered.run({"dim": 32, "lr": 0.1}, FIGURES)
    better = {"test_ndcg": 0.4, "test_ndcg_low": 0.33, "test_ndcg_high": 0.47, "test_rows": 90.0, "test_mrr": 0.5}
    changed = {
        "digest": "b" * 64,
        "snapshots": {"silver.playback": 8},
        "rows": {"train": 1200, "validation": 100, "test": 90},
        "excluded": {"no consent": 5, "kids' profile": 2},
    }
    other = registered.run({"dim": 64, "lr": 0.1}, better, changed, code="0.1.0-def")
    left, right = facts_of(registered.tracking, one), facts_of(registered.tracking, other)
    found = differences(left, right)
    assert [(each.section, each.name, each.left, each.right) for each in found] == [
        ("data", "digest", "a" * 64, "b" * 64),
        ("data", "excluded.kids_ profile", None, "2"),
        ("data", "excluded.no consent", "3", "5"),
        ("data", "snapshot.silver.playback", "7", "8"),
        ("data", "train rows", "1,000", "1,200"),
        ("configuration", "dim", "32", "64"),
        ("code", "of the model", "0.1.0-abc", "0.1.0-def"),
        ("result", "test_mrr", None, "0.5000"),
        ("result", "test_ndcg", "0.3000 (0.2800 to 0.3200)", "0.4000 (0.3300 to 0.4700)"),
    ]
    assert found[-1].remark == "+0.1, intervals apart"
    assert same_sections(found) == ["environment"]
    assert left.digest != right.digest
    assert differences(left, left) == []


def test_intervals_that_touch_overlap(registered: Registered) -> None:
    one = registered.run({}, FIGURES)
    other = registered.run({}, {**FIGURES, "test_ndcg": 0.34, "test_ndcg_low": 0.32, "test_ndcg_high": 0.36})
    (only,) = differences(facts_of(registered.tracking, one), facts_of(registered.tracking, other))
    assert only.remark == "+0.04, intervals overlap"


def test_of_what_is_logged_by_epoch_only_the_best_counts() -> None:
    figures = figures_of({"epoch": 9, "best_epoch": 4, "loss": 1.5, "best_loss": 1.2, "x": 0, "x_low": -1, "x_high": 1})
    assert figures == {"best_epoch": 4, "best_loss": 1.2, "x": Interval(0, -1, 1)}
    assert figures_of({"water_low": 3.0, "y_low": 0.0}) == {"water_low": 3.0, "y_low": 0.0}


def test_versions_and_aliases_stand_for_their_runs(registered: Registered) -> None:
    run_id = registered.run({"dim": 32}, FIGURES)
    version = registered.version(run_id)
    registered.tracking.set_alias(version, CHAMPION)
    for named in (run_id, "recommendation/1", "recommendation@champion"):
        assert facts_of(registered.tracking, named).run_id == run_id


@pytest.mark.parametrize(
    "named",
    ["0" * 32, "recommendation/9", "recommendation/x", "recommendation@challenger", "churn@champion", "", "a/b/c"],
)
def test_what_is_not_there_is_one_clear_line(registered: Registered, named: str) -> None:
    registered.version()
    with pytest.raises(UnknownRunError, match="name a run by its id, or a version as recommendation/3") as told:
        facts_of(registered.tracking, named)
    assert repr(named.partition("@")[0]) in str(told.value)
    assert "\n" not in str(told.value)
    assert told.value.exit_code == 2
