"""Windowed Gaussian, NAB's own simple detector: how far up in the tail of a normal distribution a value is."""

import math

import numpy as np
import numpy.typing as npt

WINDOW, STEP = 6_400, 100
_SMALLEST_DEVIATION = 1e-6
_ROUGH_ROOT_OF_2 = 1.4142  # as NAB has it: at 7 deviations the fifth digit decides what rounds to 1
_DIGITS = 12  # of the scores that NAB publishes; threshold 1.0 is reached by what rounds to it


def windowed_gaussian(values: npt.NDArray[np.float64], *, both_tails: bool = False) -> npt.NDArray[np.float64]:
    """[values] 1 - Q((x - mean) / deviation), mean and deviation of the values before.

    The window grows to 6,400 values and then moves by 100 at a time. NAB's has one tail: low values are never strange.
    `both_tails` is what a fair description of it would do.
    """
    scores = np.zeros(len(values))
    mean, deviation = 0.0, 1.0
    for row, value in enumerate(values):
        if row:
            z = (float(value) - mean) / deviation
            scores[row] = 1 - 0.5 * math.erfc((abs(z) if both_tails else z) / _ROUGH_ROOT_OF_2)
        is_full = row >= WINDOW
        if not is_full or (row - WINDOW + 1) % STEP == 0:
            window = values[max(0, row + 1 - WINDOW) : row + 1]
            mean, deviation = float(np.mean(window)), float(np.std(window)) or _SMALLEST_DEVIATION
    return np.round(scores, _DIGITS)
