"""Who is served how well: one figure on all rows and in every slice of them, beside the baseline's."""

import numpy as np
from matplotlib.figure import Figure

from models.intervals import Interval
from models.judged import Judged
from pipelines.plots.style import OURS, THEIRS, bare, blank, words


def slice_bars(judged: Judged, title: str) -> Figure:
    """The figure that the judgement shows, the baseline's beside it, on all rows and in every slice; 95 % intervals."""
    sliced = {"all": judged.whole, **judged.slices}
    places = np.arange(len(sliced))
    ours, theirs = ([_interval(one.figures[name]) for one in sliced.values()] for name in judged.shown)
    figure = blank(1.5 + 0.5 * len(sliced))
    axes = figure.subplots()
    for offset, colour, name, intervals in (
        (-0.2, OURS, judged.shown[0], ours),
        (0.2, THEIRS, judged.shown[1], theirs),
    ):
        means = np.array([interval.mean for interval in intervals])
        ends = np.array([[interval.low, interval.high] for interval in intervals]).T
        errors = np.abs(ends - means)
        thin = {"linewidth": 1}
        axes.barh(places + offset, means, 0.38, color=colour, xerr=errors, label=words(name), error_kw=thin)
    axes.set_yticks(places, [f"{name}\n{one.rows:,} rows" for name, one in sliced.items()])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"{words(judged.shown[0])}, with 95 % interval")
    axes.set_title(title, loc="left")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    bare(axes)
    return figure


def _interval(figure: Interval | float) -> Interval:
    return figure if isinstance(figure, Interval) else Interval(figure, figure, figure)
