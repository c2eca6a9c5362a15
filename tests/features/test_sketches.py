import hashlib

import numpy as np
import pyarrow as pa
import pytest

from features.errors import PackedValueError
from features.sketches import Sketches, cells_of, merge_stored


def sketch_of(values: list[str]) -> bytes:
    cells = cells_of(pa.array(values, pa.string()))
    return Sketches.of_entries(1, np.zeros(len(cells), dtype=np.int64), cells).to_arrow()[0].as_py()


def estimate(*stored: bytes) -> float:
    return float(Sketches.from_arrow(pa.array([merge_stored(stored)], pa.binary())).estimates()[0])


def test_a_cell_is_fourteen_bits_and_the_zeros_after_them():
    for text in ("", "a", "é", "viewer-17"):
        digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"reel.sketch.1").digest()
        bits = f"{int.from_bytes(digest, 'little'):064b}"
        rank = len(bits[14:]) - len(bits[14:].lstrip("0")) + 1
        assert cells_of(pa.array([text])).tolist() == [int(bits[:14], 2) << 6 | rank]


def test_known_bytes():
    """Sketches are stored for years: this must never change."""
    assert sketch_of(["alice", "bob"]).hex() == "041a020041080f00"


def test_estimates_stay_within_the_published_error():
    """Standard error 1.04 / sqrt(2**14) = 0.81 %: of 120 draws none may lie beyond 4 of them."""
    rng = np.random.default_rng(5)
    for size in (1, 2, 10, 100, 1_000, 10_000, 40_000, 100_000):
        errors = []
        for _ in range(15 if size < 40_000 else 5):
            cells = rng.integers(0, 1 << 14, size) << 6 | np.minimum(rng.geometric(0.5, size), 51)
            sketch = Sketches.of_entries(1, np.zeros(size, dtype=np.int64), cells)
            errors.append(sketch.estimates()[0] / size - 1)
        assert np.abs(errors).max() < max(4 * 0.0081, 1.1 / size if size < 100 else 0)
        assert abs(np.mean(errors)) < 0.02 or size < 100
    assert estimate() == 0


def test_real_hashes_too():
    values = [f"viewer-{number}" for number in range(60_000)]
    assert estimate(sketch_of(values)) == pytest.approx(60_000, rel=0.0325)
    assert round(estimate(sketch_of(values[:50]))) == 50


def test_merging_is_the_sketch_of_the_union_in_any_order_and_form():
    rng = np.random.default_rng(6)
    parts = [[f"v{number}" for number in rng.integers(0, 30_000, size)] for size in (0, 1, 300, 2_000, 20_000)]
    whole = sketch_of([value for part in parts for value in part])
    stored = [sketch_of(part) for part in parts]
    assert len(stored[2]) < 300 * 4 + 1
    assert len(stored[4]) == 16_384
    for _ in range(5):
        assert merge_stored([stored[place] for place in rng.permutation(5)]) == whole
    assert merge_stored([merge_stored(stored[:3]), merge_stored(stored[2:])]) == whole


def test_ranges_equal_merging_one_by_one():
    rng = np.random.default_rng(7)
    rows = np.sort(rng.integers(0, 40, 300))
    sketches = Sketches.of_entries(40, rows, cells_of(pa.array([f"v{number}" for number in rng.integers(0, 90, 300)])))
    stored = sketches.to_arrow().to_pylist()
    lower = rng.integers(0, 41, 100)
    upper = np.minimum(lower + rng.integers(0, 12, 100), 40)
    merged = sketches.reader(np.zeros(40, dtype=np.int64))(lower, upper).to_arrow().to_pylist()
    assert merged == [merge_stored(stored[low:up]) for low, up in zip(lower, upper, strict=True)]


def test_saturated_registers_count():
    """Ranks of 51 (all 50 bits zero) are handled apart by the estimator; the estimate grows and is finite."""
    grown = [
        Sketches.of_entries(1, np.zeros(1 << 14, dtype=np.int64), np.arange(1 << 14) << 6 | rank).estimates()[0]
        for rank in (1, 20, 40, 51)
    ]
    assert grown == sorted(set(grown))
    assert grown[2] == pytest.approx((1 << 54) / (2 * np.log(2)))
    assert grown[3] == 2**62, "as many as a 64-bit hash can tell apart, and a whole number still"
    few = np.arange(1 << 14) << 6 | np.where(np.arange(1 << 14) < 3, 51, 40)
    assert grown[2] < Sketches.of_entries(1, np.zeros(1 << 14, dtype=np.int64), few).estimates()[0] < grown[2] * 1.001


@pytest.mark.parametrize("wrong", [b"abc", b"x" * 16_385, b"x" * 16_388, b"x" * 16_384, b"x" * 8, b"\x7f" * 4])
def test_other_bytes_are_no_sketch(wrong):
    with pytest.raises(PackedValueError, match=r"a stored sketch (has|of)"):
        Sketches.from_arrow(pa.array([wrong], pa.binary()))
