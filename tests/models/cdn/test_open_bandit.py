"""The judge of the Open Bandit Dataset: what it reads, and that its estimates cover what the other log says."""

from pathlib import Path

import polars as pl
import pytest

from tests.benchmarks.judged.obd import judge, policy_by_position


def test_a_policy_is_its_choices_shares_by_position() -> None:
    log = pl.DataFrame({"position": [1, 1, 1, 2], "item_id": [0, 0, 2, 1]})
    assert policy_by_position(log, "bts", 3)[1:].tolist() == [[2 / 3, 0, 1 / 3], [0, 1, 0]]
    assert policy_by_position(log, "random", 3)[1:].tolist() == [[1 / 3] * 3] * 2


def test_a_folder_without_both_policies_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no campaign has a log of both random and bts"):
        judge(tmp_path)


@pytest.mark.realdata
def test_intervals_cover_the_other_policys_click_rate_in_both_directions(shared_data: Path, tmp_path: Path) -> None:
    for policy in ("random", "bts"):
        (tmp_path / policy).mkdir()
        (tmp_path / policy / "men").symlink_to(shared_data / "obd" / policy / "men")
    found = judge(tmp_path)
    assert set(found["estimates"]) == {"men/bts_from_random", "men/random_from_bts"}
    assert found["intervals"] == 6
    assert found["covered_share"] == 1
