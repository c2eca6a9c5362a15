"""NAB's score, against arithmetic by hand, a loop as slow as its description, and the figures NAB has published."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.anomaly.gaussian import windowed_gaussian
from models.anomaly.nab import (
    LOW_FN,
    LOW_FP,
    PROFILES,
    STANDARD,
    Profile,
    Scored,
    best_threshold,
    probation,
    result_at,
    scaled_sigmoid,
    steps,
    thresholds_of_others,
)


def alarms_at(rows: int, *at: int) -> np.ndarray:
    scores = np.zeros(rows)
    scores[list(at)] = 1.0
    return scores


def at_one(scores: np.ndarray, windows: tuple[tuple[int, int], ...], profile: Profile = STANDARD) -> float:
    return steps(Scored(scores, windows), profile).worth(1.0)


def test_the_sigmoid_is_that_of_the_paper() -> None:
    """Lavin & Ahmad 2015: about 1 at the left edge, 0.848 in the middle, 0 at the right one, -1 far behind."""
    worth = scaled_sigmoid(np.array([-1.0, -0.5, 0.0, 1.0, 3.0, 50.0]))
    assert worth == pytest.approx([0.98661, 0.84828, 0.0, -0.98661, -1.0, -1.0], abs=1e-5)


def test_alarms_by_hand() -> None:
    """20 rows, a window of the rows 10 to 14."""
    windows = ((10, 14),)
    at_once = 2 / (1 + math.exp(-5)) - 1
    assert at_one(alarms_at(20), windows) == -1
    assert at_one(alarms_at(20, 10), windows) == pytest.approx(1.0)
    third = (2 / (1 + math.exp(-5 * 3 / 5)) - 1) / at_once
    assert at_one(alarms_at(20, 12), windows) == pytest.approx(third)
    assert at_one(alarms_at(20, 12, 13, 14), windows) == pytest.approx(third), "only the earliest counts"
    assert at_one(alarms_at(20, 5), windows) == pytest.approx(-1 - 0.11), "far before"
    just_behind = 2 / (1 + math.exp(5 * 2 / 4)) - 1
    assert at_one(alarms_at(20, 16), windows) == pytest.approx(-1 + 0.11 * just_behind)
    assert at_one(alarms_at(20, 2), windows) == -1, "probation: 15 % of 20 rows are 3"
    assert at_one(alarms_at(20, 5), windows, LOW_FP) == pytest.approx(-1 - 0.22)
    assert at_one(alarms_at(20, 5), windows, LOW_FN) == pytest.approx(-2 - 0.11)


def test_probation_ends_at_750_rows() -> None:
    assert [probation(rows) for rows in (100, 4032, 5000, 22_695)] == [15, 604, 750, 750]


@pytest.mark.parametrize("profile", PROFILES)
def test_silence_is_0_and_perfection_100(profile: Profile) -> None:
    windows = ((30, 39), (60, 69))
    constant = [Scored(np.full(100, 0.5), windows)]
    assert result_at(constant, profile, 0.6).score == 0
    assert result_at([Scored(alarms_at(100, 30, 60), windows)], profile).score == pytest.approx(100)
    many = [Scored(np.full(1000, 0.5), ((900, 909),))]
    assert result_at(many, profile).score == 0, "to alarm always costs more than it finds: the best is silence"


def brute_force(series: Scored, profile: Profile, threshold: float) -> float:
    """One alarm after the other, as the paper tells it."""
    rows = len(series.scores)
    best = {w: -profile.missed for w in series.windows if w[1] >= math.floor(0.15 * min(rows, 5000))}
    false = 0.0
    for row in range(math.floor(0.15 * min(rows, 5000)), rows):
        if series.scores[row] < threshold:
            continue
        around = [w for w in series.windows if w[0] <= row <= w[1]]
        before = [w for w in series.windows if w[1] < row]
        if around:
            first, last = around[0]
            place = -(last - row + 1) / (last - first + 1)
            worth = (2 / (1 + math.exp(5 * place)) - 1) / (2 / (1 + math.exp(-5)) - 1)
            best[around[0]] = max(best[around[0]], worth)
        elif before:
            first, last = before[-1]
            place = (row - last) / (last - first)
            false += profile.false_alarm * (-1 if place >= 3 else 2 / (1 + math.exp(5 * place)) - 1)
        else:
            false -= profile.false_alarm
    return sum(best.values()) + false


@st.composite
def corpora(draw: st.DrawFn) -> list[Scored]:
    corpus = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(20, 60))
        edges = sorted(draw(st.sets(st.integers(0, rows - 1), min_size=0, max_size=6)))
        windows = tuple((a, b) for a, b in list(pairwise(edges))[::2] if b > a)
        scores = draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))
        corpus.append(Scored(np.array(scores, float), windows))
    return corpus


@given(corpora(), st.sampled_from(PROFILES))
@settings(max_examples=50, deadline=None)
def test_every_threshold_at_once_is_the_loop_over_alarms(corpus: list[Scored], profile: Profile) -> None:
    under = [steps(series, profile) for series in corpus]
    worths = {}
    for threshold in (*range(6), math.inf):
        each = [brute_force(series, profile, threshold) for series in corpus]
        assert [one.worth(threshold) for one in under] == pytest.approx(each)
        worths[threshold] = sum(each)
    assert sum(one.worth(best_threshold(under)) for one in under) == pytest.approx(max(worths.values()))


def test_a_series_is_judged_at_the_threshold_of_the_others() -> None:
    windows = ((50, 59),)
    corpus = [Scored(alarms_at(100, 50) * loud, windows) for loud in (1.0, 2.0, 3.0)]
    assert thresholds_of_others(corpus, STANDARD) == [2.0, 1.0, 1.0]
    assert result_at(corpus, STANDARD, [2.0, 1.0, 1.0]).worths == pytest.approx([-1, 1, 1])


def test_intervals_draw_whole_series_the_same_for_all() -> None:
    windows = ((50, 59),)
    good = result_at([Scored(alarms_at(100, 50), windows)] * 20, STANDARD, 1.0)
    half = result_at([Scored(alarms_at(100, *([50] * (n % 2))), windows) for n in range(20)], STANDARD, 1.0)
    assert good.resampled(3) == pytest.approx(100)
    low, high = np.percentile(half.resampled(3), [2.5, 97.5])
    # A share of 20 draws of a coin: 50 +- 1.96 x 100 x sqrt(.25 / 20) = 28 to 72.
    assert low == pytest.approx(28, abs=5)
    assert high == pytest.approx(72, abs=5)
    assert half.resampled(3).tolist() == half.resampled(3).tolist()


def test_windowed_gaussian_by_hand() -> None:
    """Of 0, 2, 4, 0: means 0, 1, 2 and deviations 1e-6, 1, sqrt(8 / 3) before each."""
    scores = windowed_gaussian(np.array([0.0, 2.0, 4.0, 0.0]))
    z = 3 / 1.4142
    assert scores == pytest.approx([0, 1, 1 - 0.5 * math.erfc(z), 0.5 * math.erfc(2 / math.sqrt(8 / 3) / 1.4142)])
    both = windowed_gaussian(np.array([0.0, 2.0, 4.0, 0.0]), both_tails=True)
    assert both[3] == pytest.approx(1 - scores[3])
