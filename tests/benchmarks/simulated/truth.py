"""What is truly so of a viewer and a title in the simulated world, which no model is shown.

The simulator says how a tile is chosen (`pipelines.simulator.choice`) and whether a title is then watched past the half
(`pipelines.simulator.play`); here both are one formula.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import betainc

from pipelines.simulator.choice import affinity
from pipelines.simulator.config import HOUR_MS
from pipelines.simulator.network import ROUTING_SHARES
from pipelines.simulator.platform import CONNECTION_STALLS
from tests.benchmarks.simulated.world import World

FINISHED_LATELY = 0.02
"""What a title that was seen to the end lately is worth, against any other."""
_REMEMBERED = 16
_LEFT_EARLY_PAST_HALF = 1 - betainc(1.1, 2.5, 0.5)
_ERRORS_AN_HOUR = 1 / 60
Floats = npt.NDArray[np.float64]


def gains(world: World, day: int, viewer: npt.NDArray[np.int64], content: npt.NDArray[np.int64]) -> Floats:
    """[rows, titles] relative chance that a title not seen lately is watched past the half when it is shown.

    Args:
        world: the world.
        day: of which day the tastes are.
        viewer: [rows] numbers of viewers.
        content: [rows, titles] numbers of contents.
    """
    return appeal(world, day, viewer, content) * past_half(world, day, viewer, content)


def appeal(world: World, day: int, viewer: npt.NDArray[np.int64], content: npt.NDArray[np.int64]) -> Floats:
    """[rows, titles] in proportion to which tiles are clicked, wherever they stand: affinity ^ 1.5."""
    found: Floats = _affinity(world, day, viewer, content) ** 1.5
    return found


def past_half(world: World, day: int, viewer: npt.NDArray[np.int64], content: npt.NDArray[np.int64]) -> Floats:
    """[rows, titles] the chance that what was clicked is watched past the half.

    It is watched to the end with a chance that rises with affinity, else up to a point that is Beta(1.1, 2.5) of its
    length; half of that time must pass without a stall that makes the viewer leave, or an error.
    """
    platform = world.platform
    stays = 1 / (1 + np.exp(-(0.6 + 0.9 * np.log(12 * _affinity(world, day, viewer, content)))))
    quality = platform.network.quality(day).stalls_per_hour
    stalls = np.einsum("c,crh->r", ROUTING_SHARES, quality) / quality.shape[2]
    leaves = stalls[platform.viewer_market[viewer]] * CONNECTION_STALLS[platform.viewers.connection[viewer]]
    leaves = leaves * platform.viewers.impatience[viewer] + _ERRORS_AN_HOUR
    half_hours = platform.catalogue.runtime_ms[content] / HOUR_MS / 2
    found: Floats = (stays + (1 - stays) * _LEFT_EARLY_PAST_HALF) * np.exp(-leaves[:, None] * half_hours)
    return found


def _affinity(world: World, day: int, viewer: npt.NDArray[np.int64], content: npt.NDArray[np.int64]) -> Floats:
    return affinity(world.taste_shares[day][viewer], world.platform.catalogue.genre_shares[content])


def finished_lately(
    world: World, viewers: Sequence[str], contents: Sequence[str], at_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """[rows] whether the title is among the last sixteen that the viewer saw to the end before the instant."""
    rows = world.viewing.filter(world.viewing["is_complete"].fill_null(False))
    columns = (rows["profile_id"].to_pylist(), rows["content_id"].to_pylist())
    done: dict[str, tuple[list[int], list[str]]] = {}
    for viewer, title, at in zip(*columns, rows["event_timestamp"].cast(pa.int64()).to_pylist(), strict=True):
        times, titles = done.setdefault(viewer, ([], []))
        times.append(at)
        titles.append(title)
    found = np.zeros(len(viewers), bool)
    for row, (viewer, title, at) in enumerate(zip(viewers, contents, at_ms.tolist(), strict=True)):
        times, titles = done.get(viewer, ([], []))
        until = int(np.searchsorted(times, at))
        found[row] = title in titles[max(0, until - _REMEMBERED) : until]
    return found
