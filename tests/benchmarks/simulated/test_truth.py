"""The truth that models are measured by is what the simulated people do."""

import numpy as np
import pytest

from pipelines.simulator import SimulationConfig
from pipelines.simulator.config import DAY_MS
from tests.benchmarks.simulated.observed import Observed, times_ms
from tests.benchmarks.simulated.truth import FINISHED_LATELY, appeal, finished_lately, past_half
from tests.benchmarks.simulated.world import World

_FINDS_SOMETHING, _POSITION_PENALTY, _TILES = 0.88, 0.15, 10  # as `pipelines.simulator.choice` says


@pytest.mark.slow
def test_tiles_are_watched_as_often_as_the_truth_says() -> None:
    """Pages of ten: a tile is clicked by its appeal and its place among the ten, then watched past the half."""
    world = World.of(SimulationConfig(households=60, days=12, heartbeat_s=600, seed=11))
    observed, tiles = Observed(world), world.tiles
    at_ms, contents = times_ms(tiles), tiles["content_id"].to_pylist()
    viewers = tiles["profile_id"].to_pylist()
    watched = np.array(observed.finished(viewers, contents, at_ms).to_pylist(), float)

    viewer = np.array([observed.numbers[0][name] for name in viewers])
    content = np.array([observed.numbers[1][name] for name in contents])
    day = (at_ms - world.config.start_ms) // DAY_MS
    weight, watches = np.empty(len(tiles)), np.empty(len(tiles))
    for one in range(world.config.days):
        rows = day == one
        weight[rows] = appeal(world, one, viewer[rows], content[rows][:, None])[:, 0]
        watches[rows] = past_half(world, one, viewer[rows], content[rows][:, None])[:, 0]
    weight[finished_lately(world, viewers, contents, at_ms)] *= FINISHED_LATELY
    sessions = tiles["session_id"].to_pylist()
    begins = [
        place for place in range(len(tiles))
        if place == 0 or sessions[place] != sessions[place - 1] or at_ms[place] - at_ms[place - 1] > 30_000
    ]  # fmt: skip
    pages = [(first, first + _TILES) for first in begins if first + _TILES in {*begins, len(tiles)}]
    assert len(pages) > 800
    expected, happened = [], []
    for first, after in pages:
        chances = weight[first:after] * np.exp(-_POSITION_PENALTY * np.arange(_TILES))
        shown = np.array(contents[first:after])
        # A title that stands on the page twice counts as watched at both places.
        chosen = (shown[:, None] == shown) @ chances / chances.sum()
        expected.append(_FINDS_SOMETHING * chosen * watches[first:after])
        happened.append(watched[first:after])
    said, seen = np.concatenate(expected), np.concatenate(happened)
    # A title watched again within six hours, by whatever way, counts as well: some 2 % more.
    assert seen.mean() == pytest.approx(said.mean(), rel=0.08)
    for chosen in np.array_split(np.argsort(said), 5)[2:]:
        noise = 3 * np.sqrt(said[chosen].mean() / len(chosen))
        assert seen[chosen].mean() == pytest.approx(said[chosen].mean(), rel=0.08, abs=noise)
