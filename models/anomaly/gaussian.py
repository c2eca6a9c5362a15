"""Windowed Gaussian, NAB's own simple detector: how far up in the tail of a normal distribution a value is."""

import math

import numpy as np
import numpy.typing as npt

WINDOW, STEP = 6_400, 100
_SMALLEST_DEVIATION = 1e-6
_ROUGH_ROOT_OF_2 = 1.4142  # as NAB has it: at 7 deviations the fifth digit counts


def windowed_gaussian(
    values: npt.NDArray[np.float64], *, window: int = WINDOW, step: int = STEP, both_tails: bool = False
) -> npt.NDArray[np.float64]:
    """[values] 1 - Q((x - mean) / deviation), mean and deviation of the values before.

    The window grows to its size and then moves by `step` at a time. NAB's has one tail: low values are never strange.
    `both_tails` is what its description promises.
    """
    scores = np.zeros(len(values))
    mean, deviation = 0.0, 1.0
    for row, value in enumerate(values):
        if row:
            z = (float(value) - mean) / deviation
            scores[row] = 1 - 0.5 * math.erfc((abs(z) if both_tails else z) / _ROUGH_ROOT_OF_2)
        if row < window or (row - window + 1) % step == 0:
            known = values[max(0, row + 1 - window) : row + 1]
            mean, deviation = float(np.mean(known)), float(np.std(known)) or _SMALLEST_DEVIATION
    return scores
