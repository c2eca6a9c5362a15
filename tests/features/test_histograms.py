from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from features.histograms import Histogram, bucket_of, value_of

LARGEST = 2**63 - 1
GAMMA = Fraction(101, 99)


def test_every_value_is_answered_within_one_per_cent():
    rng = np.random.default_rng(3)
    spread = 2.0 ** rng.uniform(0, 62.9, 20_000)
    values = np.concatenate([np.arange(5_000), spread.astype(np.int64), [LARGEST - 1, LARGEST]])
    answers = value_of(bucket_of(values))
    assert (np.abs(answers - values) <= 0.01 * values * (1 + 1e-12)).all()
    assert np.array_equal(value_of(bucket_of(-values)), -answers), "a value below 0 is the mirror image"
    assert value_of(bucket_of(np.array([0, -(2**63)]))).tolist() == [0.0, -answers[-1]]


@pytest.mark.parametrize("value", [1, 2, 3, 99, 100, 101, 12_345, 10**6, 10**12, LARGEST])
def test_a_bucket_is_the_papers(value):
    """The least i with gamma**i >= value, in exact fractions; its edges and its answer follow."""
    i = 0
    while GAMMA**i < value:
        i += 1
    assert bucket_of(np.array([value])).tolist() == [i + 1]
    assert value_of(np.array([i + 1]))[0] == float(2 * GAMMA**i / (GAMMA + 1))


def test_known_counts():
    """Histograms are stored for years: this must never change."""
    log = pa.table({"ms": pa.array([0, 1, None, 100, -100, 12_345], pa.int64())})
    assert Histogram("ms").lift(log).merge(np.array([0])).to_arrow().to_pylist() == [
        [("-232", 1), ("0", 1), ("1", 1), ("232", 1), ("473", 1)]
    ]
