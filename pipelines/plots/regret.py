"""What choosing cost, as it went on: the sum of what the best choice would have brought more."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from pipelines.plots.style import LINES, Numbers, PlotError, bare, blank, require_alike

_POINTS = 1_000  # drawn of each line: more cannot be seen


def regret_over_time(
    policies: Mapping[str, Numbers], unit: str, bands: Mapping[str, tuple[Numbers, Numbers]] | None = None
) -> Figure:
    """Cumulated regret of every policy by decision, each line named at its end with its mean per decision.

    Args:
        policies: [decisions] the best choice's reward less the chosen one's, by name; the first is drawn strongest.
        unit: of one regret, such as "quality points".
        bands: ends of the cumulated regret's 95 % interval, each [decisions], of the policies where they are known.

    Raises:
        PlotError: there is no policy, no decision, or policies differ in how many they took.
    """
    if not policies:
        raise PlotError("regret over time needs at least one policy: received none")
    require_alike("regret over time", **dict(policies))
    count = len(next(iter(policies.values())))
    shown = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(np.int64))
    figure = blank(5)
    axes = figure.subplots()
    ends: dict[str, float] = {}
    for place, (name, each) in enumerate(policies.items()):
        colour, total = LINES[place % len(LINES)], np.cumsum(each)
        ends[name] = float(total[-1])
        axes.plot(shown + 1, total[shown], color=colour, linewidth=2.0 if place == 0 else 1.2)
        if bands and name in bands:
            low, high = bands[name]
            axes.fill_between(shown + 1, low[shown], high[shown], color=colour, alpha=0.15, linewidth=0)
    spread = max([*ends.values(), 0.0]) - min([*ends.values(), 0.0]) or 1.0
    colours = {name: LINES[place % len(LINES)] for place, name in enumerate(policies)}
    for name, height in _apart(ends, 0.055 * spread).items():
        said = f" {name}: {ends[name] / count:.3g} a decision"
        axes.text(count, height, said, color=colours[name], va="center", clip_on=False)
    axes.set_xlim(1, max(count, 2))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("decisions")
    axes.set_ylabel(f"cumulated regret ({unit})")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    bare(axes)
    return figure


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """The heights, lowest first, each moved up as far as it takes for labels not to lie on each other."""
    placed: dict[str, float] = {}
    last = -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = max(height, last + gap)
        placed[name] = last
    return placed
