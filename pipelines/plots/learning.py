"""What training came to by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipelines.plots.style import OURS, THEIRS, bare, blank


def learning_curve(
    curve: Sequence[Mapping[str, float]],
    watched: str,
    baseline: str,
    best_epoch: int,
    *,
    loss: str = "training loss (nats per label)",
    baseline_name: str = "popularity",
) -> Figure:
    """Training loss above, the watched validation metric and its baseline below, by epoch."""
    epochs = np.arange(1, len(curve) + 1)
    figure = blank(6)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(epochs, [epoch["train_loss"] for epoch in curve], color=OURS)
    above.set_ylabel(loss)
    below.plot(epochs, [epoch[watched] for epoch in curve], color=OURS, label="model")
    below.plot(epochs, [epoch[baseline] for epoch in curve], color=THEIRS, label=baseline_name)
    below.axvline(best_epoch, color="black", linewidth=0.8, linestyle=":", label=f"best: epoch {best_epoch}")
    below.set_ylabel(watched.replace("_", " "))
    below.set_xlabel("epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    below.set_ylim(bottom=0)
    below.legend(frameon=False)
    bare(above, below)
    return figure
