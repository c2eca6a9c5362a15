"""The routing model as the road judges and publishes it: what its policy would have earned, from the log of another.

The gate's number of a row is its part of the doubly robust estimate, so that the mean over rows is the policy's value
and two policies are compared row by row; what the running policy earned is in the log.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from models.cdn.features import NETWORK, REGION
from models.cdn.gate import cannot_tell, judge
from models.cdn.off_policy import ChoiceLog, Floats, doubly_robust, estimate
from models.cdn.quality import HIGHEST_SCORE, QualityModel
from models.cdn.rows import (
    ACCOUNT,
    choices,
    is_judged,
    over_each_network,
    prepared,
    regions_of,
    scores_of,
)
from models.errors import ChoiceLogError
from models.intervals import Interval, bootstrap_means
from models.judged import Chart, Figure, Judged, Line, Slice
from models.training_set import Manifest

_SEED = 0
_SHOWN = ("value", "running_value")
_CURVE_POINTS = 30


def evaluate(folder: Path, manifest: Manifest, rows: pa.Table, seed: int) -> Judged:
    """The value of a saved model's policy by IPS, SNIPS and DR, beside the running policy's; accounts are drawn.

    Values are scores as a share of the highest, `gain` is what the policy is ahead by, `squared_error` of the expected
    score in squared shares.

    Raises:
        EmptyTrainingSetError, TrainingSetError: the test rows cannot be judged.
        ModelFolderError: the saved model is broken.
    """
    model = QualityModel.load(folder)
    judged = prepared(rows, "test")
    log, policy, expected = _as_choices(model, judged)
    running = model.running.probabilities(regions_of(judged))
    verdict = judge(log, policy, running, expected, seed)
    value = verdict.candidate
    own = expected[np.arange(len(log.arm)), log.arm]
    parts = np.column_stack(
        [doubly_robust(log, policy, expected), log.reward, policy.max(axis=1), (own - log.reward) ** 2]
    )
    parts = np.column_stack([parts, parts[:, 0] - parts[:, 1]])
    figures: dict[str, Figure] = _figures(parts, log.unit, seed)
    figures |= {"value_ips": value.ips, "value_snips": value.snips, "value_dr": value.dr}
    figures |= {"mean_weight": value.mean_weight, "effective_rows": value.effective_rows}
    figures["objections"] = float(len(verdict.objections))
    whole = Slice(len(rows), len(np.unique(rows[ACCOUNT].to_numpy(zero_copy_only=False).astype(str))), figures)
    slices = {}
    regions = np.array(regions_of(judged))
    for region in sorted(set(regions)):
        mask = regions == region
        slices[f"{REGION} {region}"] = Slice(
            int(mask.sum()), len(np.unique(log.unit[mask])), _figures(parts[mask], log.unit[mask], seed)
        )
    return Judged(
        whole,
        slices,
        shown=_SHOWN,
        headline=("value", "running_value", "gain", "value_ips", "value_snips", "effective_rows"),
        unit="accounts",
        charts={"gain": _gain_over_time(judged, parts[:, 4])},
    )


def row_values(folder: Path, manifest: Manifest, rows: pa.Table) -> Floats:
    """[rows] each row's part of the value of a saved model's policy by DR; of rows without a score what all earned.

    Raises:
        ChoiceLogError: the log says too little of the policy (`models.cdn.gate`), so that nobody can let it pass.
        EmptyTrainingSetError, TrainingSetError, ModelFolderError: as `evaluate`.
    """
    model = QualityModel.load(folder)
    judged = prepared(rows, "test")
    log, policy, expected = _as_choices(model, judged)
    objections = cannot_tell(estimate(log, policy, expected, _SEED))
    if objections:
        raise ChoiceLogError(f"the policy cannot be judged by it: {'; '.join(objections)}")
    return _with_unscored(rows, judged, doubly_robust(log, policy, expected))


def running_values(folder: Path, manifest: Manifest, rows: pa.Table) -> Floats:
    """[rows] what the running policy earned, score as a share of the highest; of rows without one the others' mean."""
    judged = prepared(rows, "test")
    return _with_unscored(rows, judged, scores_of(judged) / HIGHEST_SCORE)


def _as_choices(model: QualityModel, judged: pa.Table) -> tuple[ChoiceLog, Floats, Floats]:
    """(the log, the model's policy, its expected rewards), the latter two [rows, networks]."""
    networks = model.running.networks
    scores = np.column_stack([model.scores(one) for one in over_each_network(judged, networks)])
    return choices(judged, model.running), model.policy(scores), scores / HIGHEST_SCORE


def _with_unscored(rows: pa.Table, judged: pa.Table, values: Floats) -> Floats:
    """Rows that nobody can judge are the same for every policy, so that they favour none."""
    scored = np.asarray(is_judged(rows).to_numpy(), bool) & rows[NETWORK].is_valid().to_numpy()
    all_rows = np.full(len(rows), scores_of(judged).mean() / HIGHEST_SCORE)
    all_rows[scored] = values
    return all_rows


def _figures(parts: Floats, units: np.ndarray, seed: int) -> dict[str, Figure]:
    names = (*_SHOWN, "share_of_best", "squared_error", "gain")
    found: dict[str, Interval] = dict(zip(names, bootstrap_means(parts, units, seed), strict=True))
    return dict(found)


def _gain_over_time(judged: pa.Table, gain: Floats) -> Chart:
    """What the policy is ahead by, summed over the test period."""
    order = np.argsort(judged["event_timestamp"].to_numpy(), kind="stable")
    summed = np.cumsum(gain[order])
    at = np.unique(np.linspace(0, len(summed) - 1, _CURVE_POINTS).astype(int))
    line = Line(tuple((at + 1).astype(float).tolist()), tuple(summed[at].tolist()))
    ends = (1.0, float(len(summed)))
    return Chart(
        "playbacks of the test period, in their order", "gain so far (playbacks at the highest score)",
        {"policy": line, "running policy": Line(ends, (0.0, 0.0))},
    )  # fmt: skip
