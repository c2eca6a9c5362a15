"""Bootstrap intervals of rows that are not independent: whole viewers are drawn, not rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
_CHUNK = 100  # resamples drawn at once: bounds memory to 100 x viewers


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the mean is above zero by more than noise."""
        return self.low > 0


def bootstrap_means(
    values: npt.NDArray[np.float64],
    viewers: npt.NDArray[np.generic],
    seed: int,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Percentile intervals of column means under the cluster bootstrap.

    A viewer's rows resemble each other, so viewers are drawn with replacement and bring all their rows
    (Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; percentile method:
    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Every column sees the same draws,
    so a column that holds a difference is a paired comparison.

    Args:
        values: [rows, columns].
        viewers: [rows], who each row belongs to.
        seed: of the draws.
        resamples: how many draws.

    Returns:
        One interval per column; NaN throughout where there is no row.
    """
    columns = values.shape[1]
    if len(values) == 0:
        return [Interval(float("nan"), float("nan"), float("nan"))] * columns
    _, viewer_of_row = np.unique(viewers, return_inverse=True)
    count = int(viewer_of_row.max()) + 1
    rows_of = np.bincount(viewer_of_row, minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(viewer_of_row, column, minlength=count) for column in values.T], axis=1)

    generator = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    for start in range(0, resamples, _CHUNK):
        stop = min(start + _CHUNK, resamples)
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=stop - start)
        means[start:stop] = (drawn @ sums) / (drawn @ rows_of)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return [
        Interval(float(mean), float(at_low), float(at_high))
        for mean, at_low, at_high in zip(values.mean(axis=0), low, high, strict=True)
    ]


def bootstrap(
    statistics: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    units: npt.NDArray[np.generic],
    seed: int,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Percentile intervals of statistics that are no means (AUC, calibration error), under the same cluster bootstrap.

    Args:
        statistics: [rows] how often each row counts, to the statistics, [columns].
        units: [rows], who each row belongs to.
        seed: of the draws.
        resamples: how many draws.

    Returns:
        One interval per column around the statistic of the rows as they are. Draws without a value (an AUC where one
        class was not drawn) are left out; NaN where none has one.
    """
    _, unit_of_row = np.unique(units, return_inverse=True)
    whole = statistics(np.ones(len(unit_of_row)))
    count = int(unit_of_row.max(initial=-1)) + 1
    if count == 0:
        return [Interval(float("nan"), float("nan"), float("nan"))] * len(whole)
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [
            statistics(generator.multinomial(count, np.full(count, 1 / count))[unit_of_row].astype(np.float64))
            for _ in range(resamples)
        ]
    )
    return [
        _percentiles(float(value), column[np.isfinite(column)]) for value, column in zip(whole, drawn.T, strict=True)
    ]


def _percentiles(value: float, drawn: npt.NDArray[np.float64]) -> Interval:
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))
