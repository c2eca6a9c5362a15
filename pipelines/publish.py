"""Publish: the gate between a candidate and the alias that serving follows.

Input     an evaluated version, the version that bears `champion` now (the model's baseline if none does)
Does      compares both on the candidate's test rows that start after what either has learnt from
Output    the alias `champion` if the candidate is better by more than noise, and the reasons as the version's tags
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mlflow.entities.model_registry import ModelVersion

from models.intervals import Interval, bootstrap_means
from models.task import Task, load_task
from models.training_set import Manifest
from pipelines.errors import ReelError
from pipelines.judging import EVALUATED_TAG, SEED, read_test_period
from pipelines.report import StationReport, timed
from pipelines.tracking import Tracking

CHAMPION, CHALLENGER = "champion", "challenger"


class NotEvaluatedError(ReelError):
    """A version was to be published whose quality nobody has measured."""


@dataclass(frozen=True)
class Decision:
    """Whether the candidate takes over, and why."""

    published: bool
    reason: str
    gain: Interval | None = None
    """By how much the candidate's mean is better than its opponent's; None where they could not be compared."""


def publish(model: str, *, tracking_uri: str, version: str | None = None) -> StationReport:
    """Make a version the champion if it beats the champion by more than noise; a refusal is an answer, no failure.

    1. Compare both on one period, by the model's gate.
    2. Write the reasons on the version.
    3. Move the aliases: the winner is `champion`, the loser `challenger`.
    Cut short anywhere and run again, it decides the same and goes on.

    Args:
        model: the registered model's name.
        tracking_uri: MLflow's address.
        version: None means the newest.

    Raises:
        UnknownModelError: there is no such model.
        ModelNotRegisteredError: no such version.
        NotEvaluatedError: it was not evaluated.
        TrainingSetChangedError: its training set is not what it was trained on.
    """
    task, tracking = load_task(model), Tracking(tracking_uri)
    with timed("publish") as report:
        candidate, champion = tracking.version(model, version), tracking.alias(model, CHAMPION)
        opponent = f"version {champion.version}" if champion else task.gate.baseline
        report.read = {"candidate": f"version {candidate.version}", "opponent": opponent}
        if champion is not None and champion.version == candidate.version:
            report.did = {"decision": "kept", "reason": "it is the champion already"}
            return report
        if EVALUATED_TAG not in candidate.tags:
            raise NotEvaluatedError(
                f"{model} {candidate.version} was never evaluated; run `reel evaluate {model}` before publishing it"
            )
        decision = _decide(task, tracking, candidate, champion, opponent)
        tracking.tag_version(candidate, _tags(task, decision, opponent))
        _move_aliases(tracking, candidate, champion, decision)
        report.did = {"decision": "published" if decision.published else "refused", "reason": decision.reason}
        if decision.gain is not None:
            gain = decision.gain
            report.did |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        report.wrote = {CHAMPION: str((candidate if decision.published else champion or candidate).version)}
        if not decision.published and champion is None:
            report.wrote = {CHALLENGER: str(candidate.version)}
    return report


def _decide(
    task: Task, tracking: Tracking, candidate: ModelVersion, champion: ModelVersion | None, opponent: str
) -> Decision:
    period, gate = read_test_period(task, candidate), task.gate
    late = gate.label_ms(period.rows) >= _horizon_ms(period.manifest, champion)
    rows = period.rows.filter(late)
    if len(rows) == 0:
        return Decision(False, f"no test row of the candidate is later than what {opponent} has learnt from")
    with tracking.fetched(candidate) as folder:
        ours = gate.values(folder, period.manifest, rows)
        theirs = gate.baseline_values(folder, period.manifest, rows) if champion is None else None
    if champion is not None:
        with tracking.fetched(champion) as folder:
            theirs = gate.values(folder, period.manifest, rows)
    assert theirs is not None
    return _compared(task, ours, theirs, rows[gate.unit].to_numpy(), opponent)


def _compared(
    task: Task,
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    units: npt.NDArray[np.generic],
    opponent: str,
) -> Decision:
    """The decision from two numbers a row, paired; whole units are drawn."""
    gate = task.gate
    ahead = ours - theirs if gate.higher_is_better else theirs - ours
    (gain,) = bootstrap_means(ahead[:, None], units, SEED)
    figures = (
        f"{gate.metric} {ours.mean():.4f} against {theirs.mean():.4f} of {opponent}, "
        f"better by {gain.mean:+.4f} (95 % {gain.low:+.4f} to {gain.high:+.4f}) "
        f"on {len(ours)} rows of {len(np.unique(units))} {gate.unit.removesuffix('_id')}s"
    )
    if gain.above_zero:
        return Decision(True, f"better by more than noise: {figures}", gain)
    return Decision(False, f"not better by more than noise: {figures}", gain)


def _horizon_ms(manifest: Manifest, champion: ModelVersion | None) -> int:
    """Nothing from here on was learnt or chosen by, neither by the candidate nor by the champion."""
    if champion is None:
        return manifest.label_horizon_ms
    return max(manifest.label_horizon_ms, int(champion.tags["label_horizon_ms"]))


def _tags(task: Task, decision: Decision, opponent: str) -> dict[str, str]:
    tags = {
        "gate.decision": "published" if decision.published else "refused",
        "gate.reason": decision.reason,
        "gate.opponent": opponent,
        "gate.metric": task.gate.metric,
    }
    if decision.gain is not None:
        tags |= {"gate.gain": f"{decision.gain.mean:.6f}", "gate.gain_low": f"{decision.gain.low:.6f}"}
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
