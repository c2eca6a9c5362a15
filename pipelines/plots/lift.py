"""How much a short list holds: who is called first, if only so many can be called."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipelines.plots.style import OURS, THEIRS, Numbers, PlotError, bare, blank, require_alike

MARKED = 0.05  # the share of rows whose lift is written beside the curve


def lift_at(scores: Numbers, happened: npt.NDArray[np.generic], share: float) -> float:
    """The rate among the `share` of rows with the highest scores, over the rate among all.

    Rows of equal score come in any order, so each counts with their mean: the order of the input decides nothing.

    Raises:
        PlotError: it happened in no row, so that there is nothing to find.
    """
    return float(_lift(scores, happened, np.array([share]))[0])


def lift_curve(
    scores: Numbers, happened: npt.NDArray[np.generic], what: str, baselines: Mapping[str, Numbers] | None = None
) -> Figure:
    """Lift by the share of rows looked at, of the model and of `baselines`, which score the same rows.

    Args:
        scores: [rows], higher is likelier.
        happened: [rows] 0 or 1.
        what: what happened, such as "cancels within 30 days".
        baselines: [rows] scores of others, by name.

    Raises:
        PlotError: it happened in no row, or lengths differ.
    """
    count, rate = len(scores), float(happened.astype(np.float64).mean()) if len(scores) else 0.0
    first = max(0.01, 1 / max(count, 1))  # below one row in a hundred there is only noise
    shares = np.geomspace(first, 1, 200)
    figure = blank(5)
    axes = figure.subplots()
    best = np.minimum(1 / shares, 1 / rate if rate > 0 else np.inf)
    axes.plot(100 * shares, best, color="black", linewidth=0.8, linestyle=":", label="best possible")
    for name, theirs in (baselines or {}).items():
        axes.plot(100 * shares, _lift(theirs, happened, shares), color=THEIRS, label=name)
    axes.plot(100 * shares, _lift(scores, happened, shares), color=OURS, linewidth=1.8, label="model")
    axes.axhline(1, color=THEIRS, linewidth=0.8, linestyle="--")
    axes.text(100 * first, 1, " chance", va="top", color=THEIRS)
    at_marked = lift_at(scores, happened, MARKED)
    axes.plot([100 * MARKED], [at_marked], "o", color=OURS)
    axes.annotate(
        f"{at_marked:.2f} at {100 * MARKED:.0f} %",
        (100 * MARKED, at_marked),
        xytext=(8, 8),
        textcoords="offset points",
        color=OURS,
    )
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(100 * first, 100)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows looked at, highest scores first (% of rows, log scale)")
    axes.set_ylabel("lift (times the rate of all rows)")
    axes.set_title(f"{what}: {100 * rate:.2f} % of {count:,} rows", loc="left")
    axes.legend(frameon=False)
    bare(axes)
    return figure


def _lift(scores: Numbers, happened: npt.NDArray[np.generic], shares: Numbers) -> Numbers:
    require_alike("lift", scores=scores, happened=happened)
    outcomes = happened.astype(np.float64)
    if outcomes.sum() == 0:
        raise PlotError(f"lift needs a row where it happened: received {len(outcomes)} rows and none")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    found = np.concatenate([[0.0], np.cumsum(np.bincount(group, outcomes))])
    looked_at = np.concatenate([[0.0], np.cumsum(sizes)])
    wanted = shares * len(scores)
    lift: Numbers = np.interp(wanted, looked_at, found) / wanted / outcomes.mean()
    return lift
