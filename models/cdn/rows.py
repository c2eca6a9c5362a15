"""Rows of a routing training set: a playback that started over a network, what was known then, how well it went."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.cdn.features import FEATURE_COLUMNS, NETWORK, NETWORK_COLUMNS, REGION
from models.cdn.off_policy import ChoiceLog, Floats
from models.cdn.quality import ELSEWHERE, HIGHEST_SCORE, Running
from models.errors import EmptyTrainingSetError, TrainingSetError
from models.task import instants_ms

LABEL, ACCOUNT, NETWORK_REGION = "score", "user_id", "cdn_region"
PROPENSITY = "propensity"
"""The probability that the route had, where it was logged."""
READ = (ACCOUNT, NETWORK, NETWORK_REGION, "event_timestamp", *FEATURE_COLUMNS, LABEL)
"""Columns of the training set that training reads."""


def prepared(rows: pa.Table, split: str) -> pa.Table:
    """The rows that a score is known of, with their region.

    A playback of which nothing was watched has no score, and says nothing.

    Raises:
        EmptyTrainingSetError: there is none.
        TrainingSetError: a column is missing.
    """
    missing = [name for name in READ if name not in rows.column_names]
    if missing:
        raise TrainingSetError(
            f"the {split} rows lack the columns {', '.join(missing)}; received {', '.join(rows.column_names)}"
        )
    rows = rows.filter(pc.and_(is_judged(rows), rows[NETWORK].is_valid()))
    if len(rows) == 0:
        raise EmptyTrainingSetError(split)
    return with_region(rows)


def is_judged(rows: pa.Table) -> pa.ChunkedArray:
    """[rows] whether there is a score, 0 to 100."""
    return pc.fill_null(pc.is_finite(rows[LABEL].cast(pa.float64())), False)


def with_region(rows: pa.Table) -> pa.Table:
    """The rows with the column `region`, which their key of network and region ends with (`akamai/GB`)."""
    if REGION in rows.column_names:
        return rows
    parts = pc.split_pattern(rows[NETWORK_REGION].cast(pa.string()), "/", max_splits=1)
    region = [None if one is None or len(one) < 2 else one[1] for one in parts.to_pylist()]
    return rows.append_column(REGION, pa.array(region, pa.string()))


def scores_of(rows: pa.Table) -> Floats:
    """[rows] how well each went, 0 to 100."""
    return np.asarray(rows[LABEL].cast(pa.float64()).to_numpy(), np.float64)


def running_policy(rows: pa.Table) -> Running:
    """What the policy that made these rows did, by region."""
    networks, arm = np.unique(rows[NETWORK].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    regions = regions_of(rows)
    shares = {ELSEWHERE: _shares(arm, len(networks))}
    for region in sorted(set(regions)):
        # One choice of each network is added: what was not seen in a region may still have been possible there.
        shares[region] = _shares(np.append(arm[np.array(regions) == region], range(len(networks))), len(networks))
    return Running(tuple(map(str, networks)), shares)


def regions_of(rows: pa.Table) -> list[str]:
    """[rows] regions as keys of the running policy's shares; `ELSEWHERE` where none is known."""
    return [ELSEWHERE if one is None else one for one in rows[REGION].to_pylist()]


def over_each_network(rows: pa.Table, networks: Sequence[str]) -> list[pa.Table]:
    """For every network the rows as they would have been over it.

    What is known of a network in a region at a row's instant is what the latest row over it there, at the instant or
    before, had as its features; null before the first.
    """
    own = np.array([str(one) for one in rows[NETWORK].to_pylist()])
    _, region = np.unique(np.array(regions_of(rows)), return_inverse=True)
    times_ms = instants_ms(rows)
    found = []
    for network in networks:
        latest = _latest(own == network, region, times_ms)
        changed = rows.set_column(rows.column_names.index(NETWORK), NETWORK, pa.array([network] * len(rows)))
        taken = pa.array(latest, mask=latest < 0)
        for name in NETWORK_COLUMNS:
            column = rows[name].combine_chunks().take(taken)
            changed = changed.set_column(changed.column_names.index(name), name, column)
        found.append(changed)
    return found


def choices(rows: pa.Table, running: Running) -> ChoiceLog:
    """The rows as choices whose reward is the score as a share of the highest one.

    Propensities are the logged ones, else the running policy's shares in the region.

    Raises:
        TrainingSetError: a row is over a network that no training row was.
    """
    index = {network: at for at, network in enumerate(running.networks)}
    names = [str(one) for one in rows[NETWORK].to_pylist()]
    unknown = sorted(set(names) - set(index))
    if unknown:
        raise TrainingSetError(
            f"rows went over {', '.join(unknown)}, of which no train row is; known are {', '.join(running.networks)}: "
            "train on a period that has it"
        )
    arm = np.array([index[name] for name in names], np.int64)
    propensity = running.probabilities(regions_of(rows))[np.arange(len(arm)), arm]
    if PROPENSITY in rows.column_names:
        logged = rows[PROPENSITY].cast(pa.float64()).to_numpy(zero_copy_only=False)
        propensity = np.where(np.isnan(logged), propensity, logged)
    accounts = np.unique(rows[ACCOUNT].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
    return ChoiceLog(arm, propensity, scores_of(rows) / HIGHEST_SCORE, accounts)


def _latest(
    chosen: npt.NDArray[np.bool_], region: npt.NDArray[np.int64], times_ms: npt.NDArray[np.int64]
) -> np.ndarray:
    """[rows] the latest chosen row of the same region at the row's instant or before; -1 where there is none."""
    candidates = np.flatnonzero(chosen)
    candidates = candidates[np.lexsort((times_ms[candidates], region[candidates]))]
    latest = np.full(len(region), -1)
    for one in np.unique(region):
        here, of_it = np.flatnonzero(region == one), candidates[region[candidates] == one]
        place = np.searchsorted(times_ms[of_it], times_ms[here], side="right") - 1
        known = place >= 0
        latest[here[known]] = of_it[place[known]]
    return latest


def _shares(arm: npt.NDArray[np.int64], count: int) -> tuple[float, ...]:
    counts = np.bincount(arm, minlength=count)
    return tuple(map(float, counts / counts.sum()))
