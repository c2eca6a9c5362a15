"""Pictures of a training and of an evaluation, for people who compare runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from models.intervals import Interval
from models.judged import Chart, Judged

OURS, THEIRS = "#1f5fa8", "#b8b8b8"
_COLOURS = (OURS, "#d98032", "#4f9d69", "#8a63a8", THEIRS)


def learning_curve(
    curve: Sequence[Mapping[str, float]], watched: str, baseline: str, best_epoch: int, loss_label: str
) -> Figure:
    """Training loss above, the watched validation metric and its baseline below, by epoch."""
    epochs = np.arange(1, len(curve) + 1)
    figure = Figure(figsize=(8, 6), layout="constrained")
    loss, metric = figure.subplots(2, 1, sharex=True)
    loss.plot(epochs, [epoch["train_loss"] for epoch in curve], color=OURS)
    loss.set_ylabel(loss_label)
    metric.plot(epochs, [epoch[watched] for epoch in curve], color=OURS, label="model")
    metric.plot(epochs, [epoch[baseline] for epoch in curve], color=THEIRS, label=_words(baseline))
    metric.axvline(best_epoch, color="black", linewidth=0.8, linestyle=":", label=f"best: epoch {best_epoch}")
    metric.set_ylabel(_words(watched))
    metric.set_xlabel("epoch")
    lowest = min(min(epoch[watched], epoch[baseline]) for epoch in curve)
    metric.set_ylim(bottom=min(0, lowest))
    metric.legend(frameon=False)
    for axes in (loss, metric):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def slice_bars(judged: Judged, title: str) -> Figure:
    """The figure that the judgement shows, the baseline's beside it, on all rows and in every slice; 95 % intervals."""
    sliced = {"all": judged.whole, **judged.slices}
    places = np.arange(len(sliced))
    figure = Figure(figsize=(8, 1.5 + 0.5 * len(sliced)), layout="constrained")
    axes = figure.subplots()
    for offset, colour, name in zip((-0.2, 0.2), (OURS, THEIRS), judged.shown, strict=True):
        intervals = [_interval(one.figures[name]) for one in sliced.values()]
        means = np.array([interval.mean for interval in intervals])
        ends = np.array([[interval.low, interval.high] for interval in intervals]).T
        errors = np.abs(ends - means)
        thin = {"linewidth": 1}
        axes.barh(places + offset, means, 0.38, color=colour, xerr=errors, label=_words(name), error_kw=thin)
    axes.set_yticks(places, [f"{name}\n{one.rows:,} rows" for name, one in sliced.items()])
    axes.invert_yaxis()
    axes.set_xlabel(f"{_words(judged.shown[0])}, with 95 % interval")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def chart(drawn: Chart, title: str) -> Figure:
    """A picture of the judgement's own."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for place, (name, line) in enumerate(drawn.lines.items()):
        axes.plot(line.x, line.y, color=_COLOURS[min(place, len(_COLOURS) - 1)], label=name, marker=".", linewidth=1)
    axes.set_xlabel(drawn.x_label)
    axes.set_ylabel(drawn.y_label)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _interval(figure: Interval | float) -> Interval:
    return figure if isinstance(figure, Interval) else Interval(figure, figure, figure)


def _words(name: str) -> str:
    return name.replace("_", " ")
