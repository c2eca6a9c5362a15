"""Who is served how well: one metric in every slice of the rows, beside a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from models.intervals import Interval
from pipelines.plots.style import OURS, THEIRS, PlotError, bare, blank


@dataclass(frozen=True)
class SliceBar:
    """One slice of the rows that were judged."""

    name: str
    rows: int
    model: Interval
    baseline: Interval | None = None


def slice_bars(bars: Sequence[SliceBar], metric: str, title: str, baseline_name: str = "popularity") -> Figure:
    """`metric` (with its unit) of the model and of the baseline in every slice, the first on top, with 95 % intervals.

    Raises:
        PlotError: there is no slice.
    """
    if not bars:
        raise PlotError("slice bars need at least one slice: received none")
    places = np.arange(len(bars))
    figure = blank(1.5 + 0.5 * len(bars))
    axes = figure.subplots()
    for offset, colour, label, drawn in (
        (-0.2, OURS, "model", [(place, bar.model) for place, bar in enumerate(bars)]),
        (0.2, THEIRS, baseline_name, [(place, bar.baseline) for place, bar in enumerate(bars) if bar.baseline]),
    ):
        if not drawn:
            continue
        at = np.array([place for place, _ in drawn]) + offset
        means = np.array([interval.mean for _, interval in drawn])
        ends = np.array([[interval.low, interval.high] for _, interval in drawn]).T
        errors = np.abs(ends - means)
        axes.barh(at, means, height=0.38, color=colour, xerr=errors, label=label, error_kw={"linewidth": 1})
    axes.set_yticks(places, [f"{bar.name}\n{bar.rows:,} rows" for bar in bars])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"{metric}, with 95 % interval")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    bare(axes)
    return figure
