"""Churn 90 days ahead, on CDNOW: customers of a shop that nobody has to cancel; against BG/NBD.

Purchases of the 23,570 people who first bought in the first quarter of 1997, until June 1998 (Fader & Hardie,
"Forecasting Repeat Sales at CDNOW", Interfaces 31(3), 2001).

- Judged instant `t`: the last one whose 90 days are all in the data. A customer is whoever has bought before `t`,
  however long ago; churn is no purchase in `[t, t + 90 days)`. Who bought within 180 days before `t` is a slice.
- The model reads `models.churn.event_log`, events strictly before the instant. It learns from earlier instants, 15 days
  apart, whose 90 days end by `t`. Settings were chosen at instants 90 days and more before `t` (README.md here).
- BG/NBD is fitted to every purchase before `t`, so that both know the same; `tests/benchmarks/peers/bg_nbd.py`.
- Intervals: bootstrap over customers. `gain` is the model less the peer on the same draws; of losses and calibration
  errors below 0 is better.

Folder: `CDNOW_master.txt`, a header line and then customer, date (YYYYMMDD), number of CDs, dollars.
"""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from models.churn.calibration import Calibration
from models.churn.event_log import NAMES, EventLog, rhythm
from models.churn.model import ChurnConfig, ChurnModel, booster_parameters, take_rounds
from models.classification import Bins, Ranking
from models.intervals import Interval, bootstrap
from tests.benchmarks.peers.bg_nbd import Histories, fit

HORIZON_DAYS = 90
STEP_DAYS = 15
FIRST_INSTANT_DAYS = 100
"""After the first purchase of all; before it most customers are new."""
ACTIVE_DAYS = 180
ROUNDS = 300
SETTINGS = ChurnConfig(depth=3, lr=0.05, leaf_weight=4.0)
SEED = 20260417
RESAMPLES = 1_000
WEEK_DAYS = 7


def judge(folder: Path) -> dict[str, Any]:
    """AUC, Brier score and calibration error of the model and of BG/NBD, and the differences."""
    log, first_day = read(folder)
    instant = float(log.day.max()) + 1 - HORIZON_DAYS
    owners, values = rhythm(log, instant)
    ours = train(log, instant).probabilities(values.astype(np.float32))
    histories = customers(log, instant)
    peer = fit(histories)
    theirs = peer.buys_nothing(histories, HORIZON_DAYS / WEEK_DAYS)
    truth = leaves(log, owners, instant)
    is_active = values[:, NAMES.index("recency_days")] <= ACTIVE_DAYS
    everyone = np.ones(len(owners), bool)
    return {
        "judged_at": str(first_day + datetime.timedelta(days=int(instant))),
        "bg_nbd": {name: round(value, 4) for name, value in vars(peer).items()},
        "all_customers": compare(truth, ours, theirs, owners, everyone),
        f"bought_within_{ACTIVE_DAYS}_days": compare(truth, ours, theirs, owners, is_active),
    }


def read(folder: Path) -> tuple[EventLog, datetime.date]:
    """The purchases, one a customer and day, and the day that day 0 is."""
    lines = (folder / "CDNOW_master.txt").read_text().splitlines()[1:]
    cells = [line.split() for line in lines if line.strip()]
    _, owner = np.unique([one[0] for one in cells], return_inverse=True)
    days = np.array([datetime.datetime.strptime(one[1], "%Y%m%d").date().toordinal() for one in cells], np.float64)
    count, value = (np.array([float(one[place]) for one in cells]) for place in (2, 3))
    first = int(days.min())
    return EventLog.of(owner, days - first, value, count), datetime.date.fromordinal(first)


def train(log: EventLog, instant: float) -> ChurnModel:
    """The model of earlier instants whose labels are known at `instant`."""
    instants = np.arange(instant - HORIZON_DAYS, FIRST_INSTANT_DAYS, -STEP_DAYS)
    values, truth = [], []
    for earlier in instants:
        owners, known = rhythm(log, float(earlier))
        values.append(known.astype(np.float32))
        truth.append(leaves(log, owners, float(earlier)))
    labels = np.concatenate(truth)
    rows = xgboost.QuantileDMatrix(np.concatenate(values), labels, nthread=1)
    booster = take_rounds(booster_parameters(SETTINGS, labels.mean(), threads=1), rows, None, ROUNDS, SEED)
    return ChurnModel(booster, NAMES, Calibration())


def leaves(log: EventLog, owners: np.ndarray, instant: float) -> np.ndarray:
    """[owners] 1 for who buys nothing in the days after the instant, else 0."""
    after = (log.day >= instant) & (log.day < instant + HORIZON_DAYS)
    return (~np.isin(owners, log.owner[after])).astype(np.float64)


def customers(log: EventLog, instant: float) -> Histories:
    """What BG/NBD knows of everyone who bought before the instant, in weeks, until the end of the day before it."""
    known = log.before(instant)
    _, first, purchases = np.unique(known.owner, return_index=True, return_counts=True)
    last = first + purchases - 1
    return Histories(
        (purchases - 1).astype(np.float64),
        (known.day[last] - known.day[first]) / WEEK_DAYS,
        (instant - 1 - known.day[first]) / WEEK_DAYS,
    )


def compare(
    truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray, owners: np.ndarray, chosen: np.ndarray
) -> dict[str, Any]:
    """Figures of both on the chosen customers, and the differences, with 95 % intervals."""
    truth, owners = truth[chosen], owners[chosen]
    given = (ours[chosen], theirs[chosen])
    rankings = [Ranking(truth, one) for one in given]
    bins = [Bins(truth, one) for one in given]
    squares = [(one - truth) ** 2 for one in given]

    def measured(times: np.ndarray) -> np.ndarray:
        figures = [
            (ranking.auc(times), float(times @ square / times.sum()), one.reliability(times).error)
            for ranking, square, one in zip(rankings, squares, bins, strict=True)
        ]
        model, peer = np.array(figures)
        return np.concatenate([model, peer, model - peer])

    found = [_numbers(one) for one in bootstrap(measured, owners, SEED, RESAMPLES)]
    names = ("auc", "brier", "calibration_error")
    return {
        "customers": int(chosen.sum()),
        "churn_rate": round(float(truth.mean()), 4),
        "mean_probability": {"model": round(float(given[0].mean()), 4), "bg_nbd": round(float(given[1].mean()), 4)},
        "model": dict(zip(names, found[:3], strict=True)),
        "bg_nbd": dict(zip(names, found[3:6], strict=True)),
        "gain": dict(zip(names, found[6:], strict=True)),
    }


def _numbers(interval: Interval) -> list[float]:
    return [round(interval.mean, 5), round(interval.low, 5), round(interval.high, 5)]
