"""Publish: the gate between a candidate and the alias that serving follows.

Input     an evaluated version, the version that bears `champion` now (popularity if none does)
Does      scores both on the candidate's test rows that start after what either has learnt from
Output    the alias `champion` if the candidate is better by more than noise, and the reasons as the version's tags
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mlflow.entities.model_registry import ModelVersion

from models.intervals import Interval
from models.recommendation.evaluation import Scorer, Translated, compare
from models.recommendation.recommender import Recommender
from pipelines.errors import ReelError
from pipelines.evaluate import EVALUATED_TAG, SEED, TestPeriod, read_test_period
from pipelines.report import StationReport, timed
from pipelines.tracking import Tracking

CHAMPION, CHALLENGER = "champion", "challenger"
POPULARITY = "popularity"


class NotEvaluatedError(ReelError):
    """A version was to be published whose quality nobody has measured."""


@dataclass(frozen=True)
class Decision:
    """Whether the candidate takes over, and why."""

    published: bool
    reason: str
    gain: Interval | None = None
    """NDCG@10 of the candidate less its opponent's; None where they could not be compared."""


def publish(model: str, *, tracking_uri: str, version: str | None = None) -> StationReport:
    """Make a version the champion if it beats the champion by more than noise; a refusal is an answer, no failure.

    1. Compare both on one period.
    2. Write the reasons on the version.
    3. Move the aliases: the winner is `champion`, the loser `challenger`.
    Cut short anywhere and run again, it decides the same and goes on.

    Args:
        model: the registered model's name.
        tracking_uri: MLflow's address.
        version: None means the newest.

    Raises:
        ModelNotRegisteredError: no such version.
        NotEvaluatedError: it was not evaluated.
        TrainingSetChangedError: its training set is not what it was trained on.
    """
    tracking = Tracking(tracking_uri)
    with timed("publish") as report:
        candidate, champion = tracking.version(model, version), tracking.alias(model, CHAMPION)
        opponent = f"version {champion.version}" if champion else POPULARITY
        report.read = {"candidate": f"version {candidate.version}", "opponent": opponent}
        if champion is not None and champion.version == candidate.version:
            report.did = {"decision": "kept", "reason": "it is the champion already"}
            return report
        if EVALUATED_TAG not in candidate.tags:
            raise NotEvaluatedError(
                f"{model} {candidate.version} was never evaluated; run `reel evaluate {model}` before publishing it"
            )
        decision = _decide(tracking, candidate, champion, opponent)
        tracking.tag_version(candidate, _tags(decision, opponent))
        _move_aliases(tracking, candidate, champion, decision)
        report.did = {"decision": "published" if decision.published else "refused", "reason": decision.reason}
        if decision.gain is not None:
            gain = decision.gain
            report.did |= {"ndcg_gain": gain.mean, "ndcg_gain_low": gain.low, "ndcg_gain_high": gain.high}
        report.wrote = {CHAMPION: str((candidate if decision.published else champion or candidate).version)}
        if not decision.published and champion is None:
            report.wrote = {CHALLENGER: str(candidate.version)}
    return report


def _decide(tracking: Tracking, candidate: ModelVersion, champion: ModelVersion | None, opponent: str) -> Decision:
    period = read_test_period(candidate)
    rows = _after_both(period, champion)
    if len(rows) == 0:
        return Decision(False, f"no test row of the candidate is later than what {opponent} has learnt from")
    with tracking.fetched(candidate) as folder:
        ranks = period.ranked(Recommender.load(folder), rows).ranks
    others = period.ranked(_opponent(tracking, champion, period), rows).ranks
    compared = compare(ranks, others, period.viewers[rows], SEED)
    gain = compared.ndcg_gain
    figures = (
        f"NDCG@10 {compared.ndcg.mean:.4f} against {compared.other_ndcg.mean:.4f} of {opponent}, "
        f"gain {gain.mean:+.4f} (95 % {gain.low:+.4f} to {gain.high:+.4f}) "
        f"on {compared.rows} rows of {compared.viewers} viewers"
    )
    if gain.above_zero:
        return Decision(True, f"better by more than noise: {figures}", gain)
    return Decision(False, f"not better by more than noise: {figures}", gain)


def _after_both(period: TestPeriod, champion: ModelVersion | None) -> npt.NDArray[np.int64]:
    """Test rows whose label is later than every label that the candidate or the champion was trained or chosen by."""
    horizon_ms = period.manifest.validation_end_ms
    if champion is not None:
        horizon_ms = max(horizon_ms, int(champion.tags["label_horizon_ms"]))
    return np.flatnonzero(period.label_times_ms >= horizon_ms)


def _opponent(tracking: Tracking, champion: ModelVersion | None, period: TestPeriod) -> Scorer:
    if champion is None:
        return period.popularity
    with tracking.fetched(champion) as folder:
        recommender = Recommender.load(folder)
    return Translated(recommender, recommender.vocabulary, period.vocabulary)


def _tags(decision: Decision, opponent: str) -> dict[str, str]:
    tags = {
        "gate.decision": "published" if decision.published else "refused",
        "gate.reason": decision.reason,
        "gate.opponent": opponent,
    }
    if decision.gain is not None:
        tags["gate.ndcg_gain_low"] = f"{decision.gain.low:.6f}"
    return tags


def _move_aliases(
    tracking: Tracking, candidate: ModelVersion, champion: ModelVersion | None, decision: Decision
) -> None:
    if not decision.published:
        tracking.set_alias(candidate, CHALLENGER)
        return
    tracking.set_alias(candidate, CHAMPION)
    if champion is not None:
        tracking.set_alias(champion, CHALLENGER)
        return
    former = tracking.alias(candidate.name, CHALLENGER)
    if former is not None and former.version == candidate.version:
        tracking.remove_alias(candidate.name, CHALLENGER)
