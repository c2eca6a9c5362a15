"""NAB: anomalies of 34 series (artificial, AWS CloudWatch, ad exchanges), strictly forward, by NAB's own scoring.

    python -m tests.benchmarks.quality --task nab

What a score means is said in `models/anomaly/nab.py`. NAB takes for every detector the one threshold that is best on
the labelled series themselves, and so do we, for all detectors alike. Because that threshold has seen the labels, two
more figures stand beside: `at_fixed_threshold`, one alarm a day at five minutes by the score's own meaning, and
`at_others_threshold`, each series at the threshold that is best for the other 33.

Published per-series scores of NAB's repository (`results/DETECTOR/DETECTOR_standard_scores.csv`), summed over these 34
and scaled by their 50 windows: ARTime 71.1, CAD OSE 70.9, Numenta HTM 63.0, KNN-CAD 61.0, Windowed Gaussian 29.4.
Their thresholds are the best on all 58 series. Our Windowed Gaussian gives the published figure of each of the 34
series at its published threshold (`tests/models/anomaly/test_published.py`).

A folder holds `data/**/*.csv` (timestamp, value) and `labels/combined_windows.json` (file to windows).
"""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from models.anomaly.debounce import debounced
from models.anomaly.gaussian import windowed_gaussian
from models.anomaly.incidents import Alarm, Detection, Incident, detection
from models.anomaly.nab import (
    LOW_FN,
    LOW_FP,
    STANDARD,
    Floats,
    Scored,
    Window,
    best_threshold,
    probation,
    result_at,
    steps,
    thresholds_of_others,
)
from models.anomaly.novelty import novelty_scores

DEBOUNCE_ROWS = 100
FIXED_THRESHOLD = math.log10(86_400 / 300)
SEED = 7
OURS, GAUSSIAN, BEST_GAUSSIAN = "novelty", "windowed_gaussian", "windowed_gaussian_best"
Detector = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Series:
    """One file: instants in ms (as if UTC), values, and the true windows as rows."""

    name: str
    at_ms: np.ndarray
    values: Floats
    windows: tuple[Window, ...]


def read(folder: Path) -> list[Series]:
    """All labelled series of a folder of NAB's format."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [_series(folder / "data" / name, name, windows) for name, windows in sorted(labels.items())]


def _series(path: Path, name: str, windows: list[list[str]]) -> Series:
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    instants = [_ms(row["timestamp"]) for row in rows]
    row_at = {at_ms: row for row, at_ms in reversed(list(enumerate(instants)))}
    ends = tuple((row_at[_ms(first)], row_at[_ms(last)]) for first, last in windows)
    return Series(name, np.array(instants), np.array([float(row["value"]) for row in rows]), ends)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def ours(values: Floats) -> Floats:
    """The novelty of each value, told once."""
    return debounced(novelty_scores(values), DEBOUNCE_ROWS)


def silence(values: Floats) -> Floats:
    """The same score for every value."""
    return np.full(len(values), 0.5)


def detectors() -> dict[str, Detector]:
    """All that are judged: ours, NAB's Windowed Gaussian as it is and as it does best here, chance and silence."""
    chance = np.random.default_rng(SEED)
    return {
        OURS: ours,
        GAUSSIAN: windowed_gaussian,
        BEST_GAUSSIAN: lambda values: windowed_gaussian(values, window=1_000, step=1, both_tails=True),
        "random": lambda values: chance.random(len(values)),
        "null": silence,
    }


def scored(detector: Detector, corpus: list[Series]) -> list[Scored]:
    """A detector's scores of all series."""
    return [Scored(detector(series.values), series.windows) for series in corpus]


def told(corpus: list[Series], scores: list[Scored], threshold: float) -> Detection:
    """Delays and false alarms at a threshold, after probation, over all series."""
    found = []
    for series, one in zip(corpus, scores, strict=True):
        step_ms = int(np.median(np.diff(series.at_ms)))
        incidents = [Incident(int(series.at_ms[a]), int(series.at_ms[b]) + step_ms) for a, b in series.windows]
        alarms = [Alarm(int(series.at_ms[row])) for row in np.flatnonzero(one.scores >= threshold)]
        watched = (int(series.at_ms[probation(len(series.values))]), int(series.at_ms[-1]) + step_ms)
        found.append(detection(incidents, alarms, watched_ms=watched))
    return Detection(
        sum(one.incidents for one in found),
        tuple(delay for one in found for delay in one.delays_ms),
        sum(one.false_alarms for one in found),
        sum(one.days_watched for one in found),
    )


def judge(folder: Path) -> dict[str, Any]:
    """NAB's scores of our detector and the others, ours with its 95 % interval over series and how far it is ahead."""
    corpus = read(folder)
    of = {name: scored(detector, corpus) for name, detector in detectors().items()}
    answer: dict[str, Any] = {"series": len(corpus), "windows": sum(len(series.windows) for series in corpus)}
    for name, scores in of.items():
        for profile in (STANDARD, LOW_FP, LOW_FN):
            answer[f"{name}_{profile.name}"] = _rounded(result_at(scores, profile).score)
    best = {name: result_at(scores, STANDARD) for name, scores in of.items()}
    drawn = {name: result.resampled(SEED) for name, result in best.items()}
    answer["novelty_interval"] = _interval(drawn[OURS])
    for name in (GAUSSIAN, BEST_GAUSSIAN):
        answer[f"novelty_less_{name}_interval"] = _interval(drawn[OURS] - drawn[name])
    answer["novelty_at_fixed_threshold"] = _rounded(result_at(of[OURS], STANDARD, FIXED_THRESHOLD).score)
    for name in (OURS, GAUSSIAN, BEST_GAUSSIAN):
        others = thresholds_of_others(of[name], STANDARD)
        threshold = best_threshold([steps(one, STANDARD) for one in of[name]])
        found = told(corpus, of[name], threshold)
        answer |= {
            f"{name}_at_others_threshold": _rounded(result_at(of[name], STANDARD, others).score),
            f"{name}_threshold": threshold,
            f"{name}_windows_found": found.found,
            f"{name}_median_delay_hours": _rounded(found.median_delay_ms / 3_600_000),
            f"{name}_false_alarms_a_day": _rounded(found.false_alarms_a_day),
        }
    return answer


def _interval(drawn: Floats) -> list[float]:
    return [_rounded(float(end)) for end in np.percentile(drawn, [2.5, 97.5])]


def _rounded(value: float) -> float:
    return round(value, 2)
