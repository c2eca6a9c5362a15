"""What training came to by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipelines.plots.style import OURS, THEIRS, bare, blank, words


def learning_curve(
    curve: Sequence[Mapping[str, float]], watched: str, baseline: str, best_epoch: int, loss_label: str
) -> Figure:
    """Training loss above, the watched validation metric and its baseline below, by epoch."""
    epochs = np.arange(1, len(curve) + 1)
    figure = blank(6)
    loss, metric = figure.subplots(2, 1, sharex=True)
    loss.plot(epochs, [epoch["train_loss"] for epoch in curve], color=OURS)
    loss.set_ylabel(loss_label)
    metric.plot(epochs, [epoch[watched] for epoch in curve], color=OURS, label="model")
    metric.plot(epochs, [epoch[baseline] for epoch in curve], color=THEIRS, label=words(baseline))
    metric.axvline(best_epoch, color="black", linewidth=0.8, linestyle=":", label=f"best: epoch {best_epoch}")
    metric.set_ylabel(words(watched))
    metric.set_xlabel("epoch")
    metric.xaxis.get_major_locator().set_params(integer=True)
    lowest = min(min(epoch[watched], epoch[baseline]) for epoch in curve)
    metric.set_ylim(bottom=min(0, lowest))
    metric.legend(frameon=False)
    bare(loss, metric)
    return figure
