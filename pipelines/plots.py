"""Pictures of a training and of an evaluation, for people who compare runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from models.recommendation.evaluation import Compared

OURS, THEIRS = "#1f5fa8", "#b8b8b8"


def learning_curve(curve: Sequence[Mapping[str, float]], watched: str, baseline: str, best_epoch: int) -> Figure:
    """Training loss above, the watched validation metric and its baseline below, by epoch."""
    epochs = np.arange(1, len(curve) + 1)
    figure = Figure(figsize=(8, 6), layout="constrained")
    loss, metric = figure.subplots(2, 1, sharex=True)
    loss.plot(epochs, [epoch["train_loss"] for epoch in curve], color=OURS)
    loss.set_ylabel("training loss (nats per label)")
    metric.plot(epochs, [epoch[watched] for epoch in curve], color=OURS, label="model")
    metric.plot(epochs, [epoch[baseline] for epoch in curve], color=THEIRS, label="popularity")
    metric.axvline(best_epoch, color="black", linewidth=0.8, linestyle=":", label=f"best: epoch {best_epoch}")
    metric.set_ylabel(watched.replace("_", " "))
    metric.set_xlabel("epoch")
    metric.set_ylim(bottom=0)
    metric.legend(frameon=False)
    for axes in (loss, metric):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def slice_bars(slices: Mapping[str, Compared], title: str) -> Figure:
    """NDCG@10 of the model and of popularity in every slice, with 95 % intervals."""
    names = list(slices)
    places = np.arange(len(names))
    figure = Figure(figsize=(8, 1.5 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    for offset, colour, label, intervals in (
        (-0.2, OURS, "model", [slices[name].ndcg for name in names]),
        (0.2, THEIRS, "popularity", [slices[name].other_ndcg for name in names]),
    ):
        means = np.array([interval.mean for interval in intervals])
        ends = np.array([[interval.low, interval.high] for interval in intervals]).T
        errors = np.abs(ends - means)
        axes.barh(
            places + offset, means, height=0.38, color=colour, xerr=errors, label=label, error_kw={"linewidth": 1}
        )
    axes.set_yticks(places, [f"{name}\n{slices[name].rows:,} rows" for name in names])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("NDCG@10, with 95 % interval")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
