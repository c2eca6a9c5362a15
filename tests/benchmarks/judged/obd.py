"""Off-policy estimates, on the Open Bandit Dataset: the click rate of one policy from the log of the other.

Two policies chose the items of a fashion shop's page in the same week: `random` evenly, `bts` by Bernoulli Thompson
sampling (Saito et al., "Open Bandit Dataset and Pipeline", NeurIPS 2021, arXiv 2008.07146). Each log estimates the
other's click rate by IPS, SNIPS and DR (`models.cdn.off_policy`), which the other's own log answers directly. Of an
estimator that is right, 95 % of the intervals cover the truth.

Folder: `{random,bts}/CAMPAIGN/CAMPAIGN.csv`; every campaign that both policies have a log of.

- `random` chooses each item with 1 / items. What `bts` would have done is its choices' share by position and item over
  the week: its propensities changed with each of its updates and are logged for the chosen item only.
- The reward model of DR is the click rate by position and item, shrunk to the log's mean, each half of the rows judged
  by the other half's.
- The unit of the bootstrap is the instant: what one visitor saw at once is one draw.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models.cdn.off_policy import ChoiceLog, Estimate, Floats, estimate
from models.intervals import Interval, bootstrap_means

POLICIES = ("random", "bts")
SEED = 20260417
SHRINK_ROWS = 100
"""A cell's click rate counts as much as this many rows of the mean; not tuned."""


def judge(folder: Path) -> dict[str, Any]:
    """By campaign and direction: the estimates with their intervals, the truth, whether they cover it."""
    campaigns = sorted({path.stem for path in folder.glob("random/*/*.csv") if path.stem == path.parent.name})
    campaigns = [name for name in campaigns if all(_file(folder, policy, name).is_file() for policy in POLICIES)]
    if not campaigns:
        raise FileNotFoundError(f"{folder}: no campaign has a log of both {' and '.join(POLICIES)}")
    found: dict[str, Any] = {}
    covered = []
    for campaign in campaigns:
        logs = {policy: pl.read_csv(_file(folder, policy, campaign)) for policy in POLICIES}
        items = 1 + max(int(log["item_id"].max()) for log in logs.values())  # type: ignore[arg-type]
        for logged, other in (POLICIES, POLICIES[::-1]):
            value, truth = cross_estimate(logs[logged], logs[other], other, items)
            report = {name: _judged(getattr(value, name), truth) for name in ("ips", "snips", "dr")}
            covered += [estimator["covers"] for estimator in report.values()]
            found[f"{campaign}/{other}_from_{logged}"] = {
                "true_click_rate": _numbers(truth),
                **report,
                "mean_weight": _numbers(value.mean_weight),
                "effective_rows": round(value.effective_rows),
            }
    return {"covered_share": float(np.mean(covered)), "intervals": len(covered), "estimates": found}


def cross_estimate(log: pl.DataFrame, other_log: pl.DataFrame, other: str, items: int) -> tuple[Estimate, Interval]:
    """The other policy's click rate from `log`, and from its own log."""
    choices = ChoiceLog(
        log["item_id"].to_numpy(),
        log["propensity_score"].to_numpy(),
        log["click"].to_numpy().astype(np.float64),
        log["timestamp"].to_numpy(),
    )
    position = log["position"].to_numpy()
    policy = policy_by_position(other_log, other, items)[position]
    clicks = other_log["click"].to_numpy().astype(np.float64)
    (truth,) = bootstrap_means(clicks[:, None], other_log["timestamp"].to_numpy(), SEED)
    return estimate(choices, policy, _expected(choices, position, items), SEED), truth


def policy_by_position(log: pl.DataFrame, name: str, items: int) -> Floats:
    """[positions + 1, items] probabilities of a policy, by the position as the log counts it; unseen ones are 0."""
    cells = np.zeros((int(log["position"].max()) + 1, items))  # type: ignore[arg-type]
    np.add.at(cells, (log["position"].to_numpy(), log["item_id"].to_numpy()), 1)
    if name == "random":
        cells[cells.sum(axis=1) > 0] = 1
    return np.divide(cells, cells.sum(axis=1, keepdims=True), out=np.zeros_like(cells), where=cells > 0)


def _expected(log: ChoiceLog, position: np.ndarray, items: int) -> Floats:
    """[rows, items] click rates, of each half of the units from the other half."""
    _, unit = np.unique(log.unit, return_inverse=True)
    half = np.random.default_rng(SEED).permutation(int(unit.max()) + 1)[unit] % 2
    expected = np.empty((len(position), items))
    for judged in (0, 1):
        learnt = half != judged
        shape = (int(position.max()) + 1, items)
        shown, clicked = np.zeros(shape), np.zeros(shape)
        np.add.at(shown, (position[learnt], log.arm[learnt]), 1)
        np.add.at(clicked, (position[learnt], log.arm[learnt]), log.reward[learnt])
        rates = (clicked + SHRINK_ROWS * log.reward[learnt].mean()) / (shown + SHRINK_ROWS)
        expected[~learnt] = rates[position[~learnt]]
    return expected


def _file(folder: Path, policy: str, campaign: str) -> Path:
    return folder / policy / campaign / f"{campaign}.csv"


def _numbers(interval: Interval) -> list[float]:
    return [round(interval.mean, 6), round(interval.low, 6), round(interval.high, 6)]


def _judged(interval: Interval, truth: Interval) -> dict[str, Any]:
    return {"value": _numbers(interval), "covers": interval.low <= truth.mean <= interval.high}
