"""PSI and KL by hand and against NumPy; what drifts is found, and what does not is not."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chi2

from features.drift import Verdict, chi_squared, drift
from features.statistics import describe, summarize

MAP = pa.map_(pa.string(), pa.float64())


def described(values, entities=None):
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return describe(summarize(values, entities or len(values)), values.type)


def test_psi_and_kl_by_hand():
    """p = (0.8, 0.2), q = (0.5, 0.5): PSI = 0.3 ln 1.6 - 0.3 ln 0.4, KL = 0.8 ln 1.6 + 0.2 ln 0.4."""
    found = drift(described(["a"] * 500 + ["b"] * 500), described(["a"] * 800 + ["b"] * 200))
    assert found.aspect == "keys"
    assert found.psi == pytest.approx(0.415888, abs=1e-6)
    assert found.kl == pytest.approx(0.192745, abs=1e-6)
    # (1/1000 + 1/1000) times 10.83, the chi-squared with one degree of freedom that is exceeded once in a thousand
    assert found.chance == pytest.approx(0.02166, rel=0.04)
    assert found.verdict is Verdict.DRIFT


def test_nulls_are_a_bin_by_hand():
    """p = (0.5, 0.5) of values and nulls, q = (0.9, 0.1)."""
    found = drift(described([1.0] * 900 + [None] * 100), described([1.0] * 500 + [None] * 500))
    assert found.psi == pytest.approx(-0.4 * math.log(5 / 9) + 0.4 * math.log(5), abs=1e-9)
    assert found.aspect == "nulls"


def test_a_bin_that_is_empty_counts_as_one_in_ten_thousand_or_as_half_a_member_of_the_sample():
    large = drift(described(["a"] * 20_000), described(["b"] * 20_000))
    e = 1e-4
    assert large.psi == pytest.approx(2 * (1 - e) / (1 + e) * math.log(1 / e))
    e = 0.5 / 50
    small = drift(described(["a"] * 50), described(["b"] * 50))
    assert small.psi == pytest.approx(2 * (1 - e) / (1 + e) * math.log(1 / e))


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_cut_at_the_deciles_of_the_reference(seed):
    """Whole numbers under 128 have a bucket each, so the bins are NumPy's."""
    rng = np.random.default_rng(seed)
    reference = rng.binomial(100, 0.3, 4000)
    now = np.clip(rng.binomial(110, 0.3, 3000), reference.min(), reference.max())
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf"))
    q, p = (np.bincount(np.searchsorted(edges, one), minlength=len(edges) + 1) / len(one) for one in (reference, now))
    found = drift(described(reference), described(now))
    assert found.psi == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert found.kl == pytest.approx((p * np.log(p / q)).sum())


def test_what_is_beyond_all_of_the_reference_has_bins_of_its_own_by_hand():
    """p = (0.3, 0.6, 0.1), q = (0, 1, 0) with a floor of 1e-4 under both zeros."""
    found = drift(described([5.0] * 10_000), described([4.0] * 3000 + [5.0] * 6000 + [6.0] * 1000))
    q = np.array([1e-4, 1, 1e-4]) / 1.0002
    p = np.array([0.3, 0.6, 0.1])
    assert found.psi == pytest.approx(((p - q) * np.log(p / q)).sum())


def test_nothing_is_compared_with_nothing():
    assert drift(described(pa.array([], pa.float64())), described([1.0])) is None
    assert drift(described([1.0]), described(pa.array([], pa.float64()))) is None


@pytest.mark.parametrize(
    ("reference", "now"),
    [
        ([1.0] * 3000, [None] * 3000),
        ([None] * 3000, [1.0] * 3000),
        ([[]] * 3000, [["a"]] * 3000),
        ([["a"]] * 3000, [[]] * 3000),
        ([0.0] * 3000, [1.0] * 3000),
    ],
    ids=["all null", "none null", "lists filled", "lists emptied", "another constant"],
)
def test_all_that_turned_into_something_else_drifts(reference, now):
    kind = pa.list_(pa.string()) if isinstance(reference[0], list) else pa.float64()
    found = drift(described(pa.array(reference, kind)), described(pa.array(now, kind)))
    assert found.verdict is Verdict.DRIFT
    assert math.isfinite(found.psi)


def genres(rng, size, weights=(4, 2, 1)):
    shares = rng.dirichlet(weights, size)
    return pa.array([list(zip(("drama", "news", "comedy"), row, strict=True)) for row in shares.tolist()], MAP)


SAMPLES = {
    "both signs": lambda rng, n: rng.normal(size=n),
    "counts, mostly 0": lambda rng, n: rng.poisson(0.3, n),
    "shares": lambda rng, n: rng.beta(0.5, 0.7, n),
    "durations": lambda rng, n: np.exp(rng.normal(size=n)) * 1e5,
    "texts": lambda rng, n: pa.array(
        [str(word) for word in rng.choice(["tv", "phone", "web"], n, p=[0.7, 0.25, 0.05])]
    ),
    "maps": genres,
}
DRIFTED = {
    "both signs": lambda rng, n: rng.normal(0.6, 1, n),
    "counts, mostly 0": lambda rng, n: rng.poisson(0.8, n),
    "shares": lambda rng, n: rng.beta(1.2, 0.7, n),
    "durations": lambda rng, n: np.exp(rng.normal(size=n)) * 2e5,
    "texts": lambda rng, n: pa.array([str(word) for word in rng.choice(["tv", "phone", "web"], n, p=[0.4, 0.3, 0.3])]),
    "maps": lambda rng, n: genres(rng, n, (1, 2, 4)),
}


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize(("then", "now"), [(40, 40), (400, 90), (3000, 3000)])
def test_what_does_not_drift_is_not_found(sample, then, now):
    rng = np.random.default_rng(17)
    pairs = [drift(described(SAMPLES[sample](rng, then)), described(SAMPLES[sample](rng, now))) for _ in range(60)]
    alarms = sum(found.verdict in (Verdict.SHIFT, Verdict.DRIFT) for found in pairs)
    assert alarms <= 1, "once in a thousand is promised"
    assert all(found.psi >= 0 and found.kl >= 0 for found in pairs)


@pytest.mark.parametrize("sample", DRIFTED)
def test_a_planted_drift_is_found(sample):
    rng = np.random.default_rng(18)
    for _ in range(10):
        found = drift(described(SAMPLES[sample](rng, 3000)), described(DRIFTED[sample](rng, 2000)))
        assert found.verdict is Verdict.DRIFT, found


def test_rows_of_the_same_entities_are_no_more_witnesses_than_these():
    rng = np.random.default_rng(19)
    then = rng.normal(size=30)
    now = np.clip(rng.normal(size=30), then.min(), then.max())
    many = drift(described(np.repeat(then, 24), 30), described(np.repeat(now, 24), 30))
    assert many.verdict is Verdict.UNSURE
    assert many.chance == pytest.approx(2 / 30 * chi2.ppf(0.999, 9), rel=0.04)


def test_few_weights_among_many_rows_are_few_witnesses():
    """Of 3,000 rates all but two are 0 on either day, and those two are of other networks."""

    def rates(key):
        return described(pa.array([[(key, 0.5), ("other", 0.0)]] * 2 + [[("a", 0.0), ("b", 0.0)]] * 2998, MAP))

    found = drift(rates("a"), rates("b"))
    assert found.verdict is Verdict.UNSURE
    assert found.chance == pytest.approx((1 / 2 + 1 / 2) * chi2.ppf(0.999, 1), rel=0.04)
    assert rates("a").keys_size == 2.0


def test_the_quantile_of_chi_squared():
    for degrees in (1, 2, 3, 5, 9, 10, 21, 40):
        assert chi_squared(0.999, degrees) == pytest.approx(chi2.ppf(0.999, degrees), rel=0.04)
