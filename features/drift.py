"""Whether values are spread as they were: PSI and KL of two descriptions, and how much of that is chance.

Bins. Numbers: those that the deciles of the reference cut, each at the end of a bucket; a decile that many values share
is one bin; what is below or above all of the reference is one each. Keys: the 20 of the reference that weigh most, and
all others. Nulls are a bin of either: a feature that went missing has changed.

Shares. A bin's share p (now) or q (reference) is at least epsilon, and they are scaled to sum to 1 again. Epsilon is
1e-4, or half a member of the sample if that is more, so that a bin which is empty by chance says little.

    PSI = sum (p - q) ln(p / q)     KL = sum p ln(p / q)     in nats

PSI, which is KL in both directions added up (H. Jeffreys, 1946), with its marks 0.1 and 0.25: N. Siddiqi, "Credit Risk
Scorecards", Wiley, 2006. Those marks suit large samples. B. Yurdakul, J. Naranjo, "Statistical properties of the
population stability index", Journal of Risk Model Validation 14(4), 2020: without drift PSI is (1/n + 1/m) times a
chi-squared with bins - 1 degrees of freedom, n and m the sizes of the samples. A PSI counts once it is above the mark
and above what chance exceeds once in a thousand. A sample's size is its number of entities, since the rows of an entity
are no independent witnesses; of keys that weigh differently, Kish's effective size if that is less.
"""

from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from features.number_counts import Numbers
from features.statistics import Description

EPSILON = 1e-4
NUMBER_BINS = 10
KEY_BINS = 20
SHIFT_PSI, DRIFT_PSI = 0.1, 0.25
_CHANCE = 1e-3


class Verdict(StrEnum):
    """What is made of a PSI, the calmest first."""

    STABLE = "stable"
    UNSURE = "unsure"
    """Below what chance may do in samples this small, which is more than a drift's mark."""
    SHIFT = "shift"
    DRIFT = "drift"


@dataclass(frozen=True)
class Drift:
    """How far some values are from a reference; `chance`: what PSI chance may reach.

    `aspect`: "numbers" or "keys", or "nulls" where more than half of the PSI is theirs.
    """

    aspect: str
    psi: float
    kl: float
    chance: float

    @property
    def verdict(self) -> Verdict:
        """Above which mark it is, if above chance."""
        if self.psi > max(DRIFT_PSI, self.chance):
            return Verdict.DRIFT
        if self.psi > max(SHIFT_PSI, self.chance):
            return Verdict.SHIFT
        return Verdict.UNSURE if self.chance > DRIFT_PSI else Verdict.STABLE


def drift(reference: Description, now: Description) -> Drift | None:
    """The aspect in which `now` differs most from the reference, beyond chance; None where one of them has no value."""
    if not reference.count or not now.count:
        return None
    found = []
    for aspect, bins in (("numbers", number_bins(reference, now)), ("keys", key_bins(reference, now))):
        if bins is not None:
            found.append(_compared(aspect, *bins, _sample(reference, aspect), _sample(now, aspect)))
    return max(found, key=lambda one: (list(Verdict).index(one.verdict), one.psi - one.chance))


def _sample(one: Description, aspect: str) -> float:
    size = float(min(one.entities, one.count))
    return min(size, one.keys_size) if aspect == "keys" and one.keys_size else size


def number_bins(reference: Description, now: Description) -> tuple[Numbers, Numbers]:
    """Shares of the bins of the reference's numbers, of what has no number, of nulls: (reference, now), [bins] each."""
    until = np.cumsum(reference.bucket_counts)
    size = int(until[-1]) if len(until) else 0
    deciles = np.ceil(np.arange(1, NUMBER_BINS) * size / NUMBER_BINS)
    edges = np.empty(0, dtype=np.int64)  # a bin holds the buckets up to and with its edge
    if size:
        inner = reference.buckets[np.searchsorted(until, deciles)]
        edges = np.unique([reference.buckets[0] - 1, *inner, reference.buckets[-1]])
    return _with_nulls(reference, _binned(reference, edges)), _with_nulls(now, _binned(now, edges))


def key_bins(reference: Description, now: Description) -> tuple[Numbers, Numbers] | None:
    """Shares of the reference's heaviest keys, of others, of what has no key, of nulls: (reference, now), [bins] each.

    None where neither has a key.
    """
    if not reference.keys and not now.keys:
        return None
    keys = list(reference.keys)[:KEY_BINS]
    return _with_nulls(reference, _weighed(reference, keys)), _with_nulls(now, _weighed(now, keys))


def _binned(one: Description, edges: npt.NDArray[np.int64]) -> Numbers:
    counts = np.bincount(np.searchsorted(edges, one.buckets), weights=one.bucket_counts, minlength=len(edges) + 1)
    return counts.astype(np.float64)


def _weighed(one: Description, keys: list[str]) -> Numbers:
    named = [one.keys.get(key, 0.0) for key in keys]
    return np.array([*named, max(0.0, one.keys_weight - sum(named))])


def _with_nulls(one: Description, weights: Numbers) -> Numbers:
    """Shares: of the values that are there, as they weigh; of those that are there and weigh nothing; of the nulls."""
    there, total = one.present / one.count, weights.sum()
    weighed = weights / total * there if total else weights
    return np.append(weighed, [0.0 if total else there, one.nulls / one.count])


def _compared(aspect: str, reference: Numbers, now: Numbers, reference_size: float, now_size: float) -> Drift:
    is_used = (reference > 0) | (now > 0)  # a bin that both lack says nothing
    q, p = _floored(reference[is_used], reference_size), _floored(now[is_used], now_size)
    parts = (p - q) * np.log(p / q)
    psi, degrees = float(parts.sum()), len(parts) - 1
    if is_used[-1] and parts[-1] > psi / 2:
        aspect = "nulls"
    chance = (1 / reference_size + 1 / now_size) * chi_squared(1 - _CHANCE, degrees) if degrees else 0.0
    return Drift(aspect, psi, float((p * np.log(p / q)).sum()), chance)


def _floored(shares: Numbers, size: float) -> Numbers:
    floored = np.maximum(shares, max(EPSILON, 0.5 / size))
    scaled: Numbers = floored / floored.sum()
    return scaled


def chi_squared(share: float, degrees: int) -> float:
    """Quantile of the chi-squared distribution by E. B. Wilson, M. M. Hilferty, PNAS 17(12), 1931; within 4 % at 0.999.

    `degrees` is 1 or more.
    """
    width = 2 / (9 * degrees)
    root: float = 1 - width + NormalDist().inv_cdf(share) * width**0.5
    return float(degrees * root**3)
