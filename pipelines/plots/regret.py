"""What choosing cost, as it went on: the sum of what the best choice would have brought more."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from pipelines.plots.style import LINES, Numbers, PlotError, bare, blank, require_alike

_POINTS = 1_000  # drawn of each line: more cannot be seen


@dataclass(frozen=True)
class Regret:
    """A policy's regret, decision by decision."""

    each: Numbers
    """[decisions] the best choice's reward less the chosen one's."""
    low: Numbers | None = None
    """[decisions] lower end of the cumulated regret's 95 % interval, if it is known."""
    high: Numbers | None = None


def regret_over_time(policies: Mapping[str, Regret], unit: str, title: str) -> Figure:
    """Cumulated regret of every policy by decision, each line named at its end with its mean per decision.

    Args:
        policies: by name; the first is drawn strongest.
        unit: of the regret, such as "quality points".
        title: what was decided, and on what.

    Raises:
        PlotError: there is no policy, no decision, or policies differ in how many they took.
    """
    if not policies:
        raise PlotError("regret over time needs at least one policy: received none")
    require_alike("regret over time", **{name: policy.each for name, policy in policies.items()})
    count = len(next(iter(policies.values())).each)
    shown = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(np.int64))
    figure = blank(5)
    axes = figure.subplots()
    ends: dict[str, float] = {}
    for place, (name, policy) in enumerate(policies.items()):
        colour, total = LINES[place % len(LINES)], np.cumsum(policy.each)
        ends[name] = float(total[-1])
        axes.plot(shown + 1, total[shown], color=colour, linewidth=2.0 if place == 0 else 1.2)
        if policy.low is not None and policy.high is not None:
            axes.fill_between(shown + 1, policy.low[shown], policy.high[shown], color=colour, alpha=0.15, linewidth=0)
    spread = max([*ends.values(), 0.0]) - min([*ends.values(), 0.0]) or 1.0
    colours = {name: LINES[place % len(LINES)] for place, name in enumerate(policies)}
    for name, height in _apart(ends, 0.055 * spread).items():
        said = f" {name}: {ends[name] / count:.3g} a decision"
        axes.text(count, height, said, color=colours[name], va="center", clip_on=False)
    axes.set_xlim(1, max(count, 2))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("decisions")
    axes.set_ylabel(f"cumulated regret ({unit})")
    axes.set_title(title, loc="left")
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
