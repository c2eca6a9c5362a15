"""Are probabilities kept: of those who were given 20 %, is it one in five?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipelines.plots.style import OURS, THEIRS, Numbers, PlotError, bare, blank, require_alike

_Z = 1.959964  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Reliability:
    """Rows with like predictions, taken together; one value a bin, the lowest predictions first."""

    predicted: Numbers
    """[bins] mean prediction."""
    happened: Numbers
    """[bins] share of rows where it happened."""
    low: Numbers
    """[bins] lower end of the share's 95 % interval."""
    high: Numbers
    rows: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of prediction and share, weighted by rows.

        Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
        """
        return float(np.average(np.abs(self.predicted - self.happened), weights=self.rows))


def reliability(predicted: Numbers, happened: npt.NDArray[np.generic], bins: int = 10) -> Reliability:
    """Bins of as many rows each, as far as equal predictions stay together; intervals are Wilson's (1927).

    Args:
        predicted: [rows] probabilities.
        happened: [rows] 0 or 1.
        bins: at most so many.

    Raises:
        PlotError: a prediction is no probability, or an outcome neither 0 nor 1.
    """
    require_alike("calibration", predicted=predicted, happened=happened)
    outcomes = happened.astype(np.float64)
    if predicted.min() < 0 or predicted.max() > 1:
        raise PlotError(
            f"calibration needs probabilities: received {predicted.min():g} to {predicted.max():g}, outside 0 to 1"
        )
    if not np.isin(outcomes, (0, 1)).all():
        raise PlotError("calibration needs outcomes that are 0 or 1; received others")
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    bin_of = np.unique(np.searchsorted(edges, predicted, side="right"), return_inverse=True)[1]
    rows = np.bincount(bin_of)
    share = np.bincount(bin_of, outcomes) / rows
    middle = (share + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    half = _Z / (1 + _Z**2 / rows) * np.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    return Reliability(np.bincount(bin_of, predicted) / rows, share, middle - half, middle + half, rows)


def calibration(predicted: Numbers, happened: npt.NDArray[np.generic], what: str, bins: int = 10) -> Figure:
    """Predicted against observed probability of `what` (such as "cancels within 30 days"), and where the rows are."""
    found = reliability(predicted, happened, bins)
    top = 100 * min(1.0, 1.08 * max(found.high.max(), found.predicted.max()))
    figure = blank(7)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, top], [0, top], color=THEIRS, linestyle="--", linewidth=1, label="perfectly calibrated")
    errors = 100 * np.stack([found.happened - found.low, found.high - found.happened])
    above.errorbar(
        100 * found.predicted,
        100 * found.happened,
        yerr=np.maximum(errors, 0),
        fmt="o-",
        color=OURS,
        linewidth=1.2,
        markersize=4,
        elinewidth=1,
        label=f"model, {len(found.rows)} bins of about {int(np.median(found.rows)):,} rows, 95 % interval",
    )
    above.set_xlim(0, top)
    above.set_ylim(0, top)
    above.set_ylabel("observed (% of rows)")
    above.set_title(f"{what}: calibration error {100 * found.error:.2f} points, {len(predicted):,} rows", loc="left")
    above.legend(frameon=False, loc="upper left")
    below.hist(100 * predicted, bins=np.linspace(0, top, 41).tolist(), color=OURS)
    below.set_yscale("log")
    below.set_ylabel("rows (log scale)")
    below.set_xlabel("predicted (%)")
    bare(above, below)
    return figure
