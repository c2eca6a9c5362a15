"""Expected round trips in a planted world: of low rank, changing now and then; and the benchmark's protocol."""

from pathlib import Path

import numpy as np
import pytest

from models.cdn.round_trips import RoundTrips, Settings, complete
from tests.benchmarks.judged.netlatency import judge, play_ours, read


def test_completes_a_matrix_of_low_rank_from_half_of_its_cells() -> None:
    random = np.random.default_rng(1)
    rows, columns = random.normal(0, 1, (60, 1)), random.normal(0, 1, (12, 1))
    truth = 0.5 + random.normal(0, 0.5, (60, 1)) + random.normal(0, 0.5, (1, 12)) + rows @ columns.T
    seen = random.random(truth.shape) < 1 / 2
    counts = np.where(seen, 4.0, 0.0)
    found = complete(truth * counts, counts, rank=1, ridge=2.0)
    unseen_error = ((found - truth)[~seen] ** 2).mean()
    assert unseen_error < 0.2 * truth[~seen].var()
    levels_only = complete(truth * counts, counts, rank=0, ridge=2.0)
    assert unseen_error < 0.5 * ((levels_only - truth)[~seen] ** 2).mean()


def test_levels_alone_are_the_ridge_regression() -> None:
    """Rank 0 and hardly a ridge: rows and columns that add up are found exactly."""
    truth = np.array([[1.0], [2.0], [4.0]]) + np.array([[0.0, 0.5, 1.5]])
    counts = np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    assert complete(truth * counts, counts, rank=0, ridge=1e-9) == pytest.approx(truth, abs=0.35)


def test_before_anything_was_measured_all_hosts_are_alike() -> None:
    expected = RoundTrips(3, 4).expected(0)
    assert expected.shape == (3, 4)
    assert (expected == expected[0, 0]).all()


def test_what_was_just_measured_is_expected_again_and_less_so_when_a_change_is_due() -> None:
    """Every client's round trips change every fifth round: learnt from clients that ask the same host again."""
    belief, random = RoundTrips(40, 2, Settings(optimism=0.0)), np.random.default_rng(3)
    costs = np.full(40, 0.1)
    for now in range(41):
        if now % 5 == 0:
            costs = random.uniform(0.05, 0.5, 40)
        belief.observe(now, np.zeros(40, np.int64), costs)
    fresh, due = belief.expected(41)[:, 0], belief.expected(45)[:, 0]
    assert np.abs(fresh - costs).mean() < 0.01
    assert np.abs(due - np.median(due)).mean() < 0.5 * np.abs(costs - np.median(costs)).mean()


def test_does_better_than_the_mean_host_and_nearly_as_the_best_where_nothing_changes() -> None:
    random = np.random.default_rng(5)
    places, servers = random.normal(0, 1, (40, 1)), random.normal(0, 1, (8, 1))
    trips = np.broadcast_to(0.2 * np.exp(0.6 * places @ servers.T + random.normal(0, 0.2, (40, 8))), (60, 40, 8))
    played = play_ours(trips, np.ones((40, 8), bool), np.random.default_rng(1), None, 1e4)
    best, mean = trips.min(axis=2).mean(), trips.mean()
    assert played[30:].mean() < best + 0.05 * (mean - best)


def test_choices_do_not_depend_on_what_was_not_chosen_or_comes_later(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    trips, offered = random.uniform(0.1, 1.0, (12, 10, 4)), np.ones((10, 4), bool)
    first = play_ours(trips, offered, np.random.default_rng(1), None, 1e4)
    changed = np.where(np.isin(trips, first), trips, 9.9)  # only what was chosen stays as it was
    assert (play_ours(changed, offered, np.random.default_rng(1), None, 1e4) == first).all()


def test_folders_of_the_format_are_read_by_slice_and_others_named(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        np.savetxt(tmp_path / f"Net_{number}", np.full((3, 3), float(number)))
    np.savetxt(tmp_path / "Single_1", np.ones((3, 3)))
    assert {name: slices[:, 0, 0].tolist() for name, slices in read(tmp_path).items()} == {"Net": [1.0, 2.0, 10.0]}
    with pytest.raises(FileNotFoundError, match="NAME_T"):
        judge(tmp_path / "nothing")


@pytest.mark.realdata
def test_seattle_is_60_slices_of_99_hosts(shared_data: Path) -> None:
    assert {name: slices.shape for name, slices in read(shared_data / "netlatency").items()} == {
        "SeattleData": (60, 99, 99)
    }
