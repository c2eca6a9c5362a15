"""NAB's score: what a detector's alarms are worth, early ones more, where the true windows are known.

Lavin & Ahmad, "Evaluating Real-Time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark", ICMLA 2015:

- A window's earliest alarm counts, by a scaled sigmoid of its place in the window: nearly 1 at the left edge, 0 at the
  right one. An alarm outside costs, nearly nothing just after a window and the whole weight 3 window widths later.
- The first 15 % of a series (of its first 5,000 values) are for learning: nothing in them counts.
- One threshold for all series of a corpus, the best one there is for the detector: so it is chosen with the labels, for
  every detector alike.
- 0 is a detector that never alarms, 100 one that alarms at once in each window and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Window = tuple[int, int]
"""First and last row of a true anomaly, both in it."""

_PROBATION_SHARE, _PROBATION_ROWS = 0.15, 5_000
_STEEPNESS = 5.0
_FAR = 3.0  # window widths behind a window from which on an alarm has nothing to do with it
RESAMPLES = 2_000


@dataclass(frozen=True)
class Profile:
    """What an alarm outside and a window without one cost; a window that is found at once is worth 1."""

    name: str
    false_alarm: float
    missed: float


STANDARD = Profile("standard", 0.11, 1.0)
LOW_FP = Profile("reward_low_FP_rate", 0.22, 1.0)
LOW_FN = Profile("reward_low_FN_rate", 0.11, 2.0)
PROFILES = (STANDARD, LOW_FP, LOW_FN)


@dataclass(frozen=True)
class Scored:
    """A detector's scores of one series, [rows], the higher the stranger; its true windows, ascending."""

    scores: Floats
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Steps:
    """How a series' worth changes as the threshold goes down: `gains[i]` comes when it reaches `thresholds[i]`."""

    thresholds: Floats
    gains: Floats
    nothing: float
    """What it is worth without an alarm."""

    def worth(self, threshold: float) -> float:
        """With an alarm at each row whose score is at least `threshold`."""
        return self.nothing + float(self.gains[self.thresholds >= threshold].sum())


def probation(rows: int) -> int:
    """How many rows at the start of a series count for nothing."""
    return int(_PROBATION_SHARE * min(rows, _PROBATION_ROWS))


def scaled_sigmoid(place: Floats) -> Floats:
    """What an alarm is worth at `place`: -1 a window's left edge, 0 its right edge, 1 a width behind it."""
    worth: Floats = np.where(place >= _FAR, -1.0, 2 / (1 + np.exp(_STEEPNESS * np.minimum(place, _FAR))) - 1)
    return worth


def counted(windows: Sequence[Window], rows: int) -> list[Window]:
    """The windows that an alarm can still find after probation."""
    return [window for window in windows if window[1] >= probation(rows)]


def worth_of_alarms(rows: int, windows: Sequence[Window], profile: Profile) -> Floats:
    """[rows] what an alarm is worth at each row; of a window's only the earliest one's counts."""
    row = np.arange(rows, dtype=np.float64)
    place = np.full(rows, _FAR)
    for first, last in windows:
        place[last + 1 :] = (row[last + 1 :] - last) / max(last - first, 1)
    worth = profile.false_alarm * scaled_sigmoid(place)
    at_once = scaled_sigmoid(np.array(-1.0))
    for first, last in windows:
        inside = slice(first, last + 1)
        worth[inside] = scaled_sigmoid(-(last - row[inside] + 1) / (last - first + 1)) / at_once
    return worth


def steps(scored: Scored, profile: Profile) -> Steps:
    """The series under every threshold at once."""
    rows = len(scored.scores)
    worth, outside = worth_of_alarms(rows, scored.windows, profile), np.ones(rows, bool)
    windows = counted(scored.windows, rows)
    thresholds, gains = [], []
    for first, last in scored.windows:
        outside[first : last + 1] = False
    for first, last in windows:
        inside = np.arange(max(first, probation(rows)), last + 1)
        loudest = inside[np.argsort(-scored.scores[inside], kind="stable")]
        best = np.maximum.accumulate(np.append(-profile.missed, worth[loudest]))
        thresholds.append(scored.scores[loudest])
        gains.append(np.diff(best))
    outside[: probation(rows)] = False
    thresholds.append(scored.scores[outside])
    gains.append(worth[outside])
    return Steps(np.concatenate(thresholds), np.concatenate(gains), -profile.missed * len(windows))


def best_threshold(corpus: Sequence[Steps]) -> float:
    """The threshold at which all series together are worth most; infinite where silence is."""
    thresholds = np.concatenate([series.thresholds for series in corpus])
    gains = np.concatenate([series.gains for series in corpus])
    order = np.argsort(-thresholds, kind="stable")
    thresholds, total = thresholds[order], np.cumsum(gains[order])
    is_last_of_equals = np.append(thresholds[1:] != thresholds[:-1], True)
    thresholds, total = thresholds[is_last_of_equals], total[is_last_of_equals]
    best = int(np.argmax(total))
    return float(thresholds[best]) if total[best] > 0 else float("inf")


def normalised(worths: Floats, windows: Floats, profile: Profile) -> Floats:
    """The score: 0 is silence, 100 perfection. `worths` and `windows` are sums over series, of any shape.

    NaN where there is no window: then there is nothing to be scaled between.
    """
    missed = -profile.missed * windows
    with np.errstate(invalid="ignore", divide="ignore"):
        score: Floats = 100 * (worths - missed) / (windows - missed)
    return score


@dataclass(frozen=True)
class Result:
    """A detector on a corpus at one threshold, series by series."""

    worths: Floats
    windows: Floats
    profile: Profile

    @property
    def score(self) -> float:
        """NAB's score of the corpus."""
        return float(normalised(self.worths.sum(), self.windows.sum(), self.profile))

    def resampled(self, seed: int) -> Floats:
        """[RESAMPLES] the score of as many series drawn with replacement, the same ones for every detector."""
        series = len(self.worths)
        drawn = np.random.default_rng(seed).multinomial(series, np.full(series, 1 / series), size=RESAMPLES)
        return normalised(drawn @ self.worths, drawn @ self.windows, self.profile)


def result_at(corpus: Sequence[Scored], profile: Profile, thresholds: float | Sequence[float] | None = None) -> Result:
    """The corpus at a threshold, or each series at its own; without one at the best there is, as NAB does it."""
    under = [steps(series, profile) for series in corpus]
    if thresholds is None:
        thresholds = best_threshold(under)
    each = [thresholds] * len(corpus) if isinstance(thresholds, float) else thresholds
    worths = [series.worth(threshold) for series, threshold in zip(under, each, strict=True)]
    windows = [float(len(counted(series.windows, len(series.scores)))) for series in corpus]
    return Result(np.array(worths), np.array(windows), profile)


def thresholds_of_others(corpus: Sequence[Scored], profile: Profile) -> list[float]:
    """For each series the best threshold of all the others: what it gets without its own labels."""
    under = [steps(series, profile) for series in corpus]
    return [best_threshold([*under[:index], *under[index + 1 :]]) for index in range(len(under))]
