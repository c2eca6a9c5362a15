"""Counts in narrow buckets against NumPy's sorted values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.number_counts import NumberCounts, bucket_of

SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-300, 300).map(float)
SAMPLES = {
    "both signs": lambda rng, n: rng.normal(size=n),
    "over many scales": lambda rng, n: np.exp(10 * rng.normal(size=n)),
    "shares, many of them 0 or 1": lambda rng, n: np.clip(rng.normal(0.5, 0.5, n), 0, 1),
    "counts": lambda rng, n: rng.poisson(3, n).astype(float),
    "trends": lambda rng, n: rng.standard_cauchy(n),
}


def same(one: NumberCounts, other: NumberCounts) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("size", [1, 2, 3, 10, 999, 20_000])
def test_quantiles_are_those_of_the_sorted_values(sample, size):
    values = SAMPLES[sample](np.random.default_rng(3), size)
    counted = NumberCounts.of(values)
    assert counted.size == size
    for share in SHARES:
        exact = np.quantile(values, share, method="inverted_cdf")
        assert counted.quantile(share) == pytest.approx(exact, rel=1 / 128, abs=0)


def test_values_that_are_alone_in_their_bucket_are_answered_exactly():
    values = np.array([0.0] * 70 + [1.0] * 20 + [0.1] * 9 + [-7.0])
    counted = NumberCounts.of(values)
    assert [counted.quantile(share) for share in (0.001, 0.01, 0.02, 0.7, 0.72, 0.8, 0.81, 1.0)] == [
        -7.0, -7.0, 0.0, 0.0, 0.1, 0.1, 1.0, 1.0,
    ]  # fmt: skip


@given(st.lists(st.lists(NUMBERS, max_size=12), max_size=6))
def test_merged_parts_are_the_whole_to_the_bit(parts):
    whole = NumberCounts.of(np.array([number for part in parts for number in part]) + 0.0)
    merged = NumberCounts.merged([NumberCounts.of(np.array(part, dtype=float) + 0.0) for part in parts])
    assert same(merged, whole)
    assert same(NumberCounts.merged([whole, NumberCounts.of(np.empty(0))]), whole)


@given(st.lists(NUMBERS, min_size=2))
def test_buckets_are_in_the_order_of_their_numbers_and_narrow(numbers):
    ascending = np.sort(np.array(numbers))
    buckets = bucket_of(ascending)
    assert (np.diff(buckets) >= 0).all()
    together = np.flatnonzero((np.diff(buckets) == 0) & (np.abs(ascending[1:]) > 1e-300))
    width = ascending[together + 1] - ascending[together]
    assert (width <= np.abs(ascending[together + 1]) / 128 * 1.008 + 1e-300).all()
