"""What is said of values, against DuckDB, by hand, and against the whole that was cut into parts."""

from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from features.statistics import QUANTILES, Measure, describe, merge, summarize

MAP = pa.map_(pa.string(), pa.float64())
WORDS = ["drama", "news", "", "épsilon", "comedy"]


def described(values: pa.Array, bounds=None):
    return describe(summarize(values, len(values), bounds), values.type)


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_told_as_duckdb_tells_them(seed):
    rng = np.random.default_rng(seed)
    whole = rng.integers(-50, 100, 3000)
    real = np.round(np.exp(rng.normal(size=3000)), 2)
    null = rng.random(3000) < 0.2
    sample = pa.table({"whole": pa.array(whole, mask=null), "real": pa.array(real, mask=~null & (real > 3))})
    database = duckdb.connect()
    database.register("sample", sample)
    for name in sample.column_names:
        quantiles = ", ".join(f"quantile_disc({name}, {share})" for share in QUANTILES)
        expected = database.execute(
            f"SELECT count(*), count(*) - count({name}), avg({name}), min({name}), max({name}), "
            f"count(DISTINCT {name}), {quantiles} FROM sample"
        ).fetchone()
        one = described(sample[name])
        assert (one.count, one.nulls) == expected[:2]
        assert (one.mean, one.least, one.greatest) == pytest.approx(expected[2:5], rel=1e-12)
        assert one.distinct == pytest.approx(expected[5], rel=0.03)
        assert one.quantiles == pytest.approx([float(value) for value in expected[6:]], rel=1 / 128)
        assert (one.measure, dict(one.keys), one.mean_length) == (Measure.VALUE, {}, None)


def test_texts_are_told_by_their_lengths_and_themselves():
    one = described(pa.array(["ab", "", None, "ab", "é", ""]))
    assert one.measure is Measure.LENGTH
    assert (one.count, one.nulls, one.present, one.distinct) == (6, 1, 5, 3)
    assert list(one.keys.items()) == [("", 2.0), ("ab", 2.0), ("é", 1.0)]
    assert (one.keys_weight, one.keys_size) == (5, 5)
    assert (one.mean, one.mean_length, one.least, one.greatest) == (1.0, 1.0, 0.0, 2.0)
    assert one.quantile(0.5) == 1.0


def test_lists_of_texts_are_told_by_their_lengths_and_elements():
    one = described(pa.array([["b", "a"], [], None, ["b", "b"]], pa.list_(pa.string())))
    assert (one.measure, one.count, one.nulls, one.distinct) == (Measure.LENGTH, 4, 1, 2)
    assert list(one.keys.items()) == [("b", 3.0), ("a", 1.0)]
    assert (one.mean_length, one.least, one.greatest, one.quantile(0.5)) == (4 / 3, 0.0, 2.0, 2.0)


def test_lists_of_numbers_are_told_by_their_elements_and_what_lies_at_each_place():
    one = described(pa.array([[1.0, 0.0, 5.0], None, [3.0, None, -1.0]], pa.list_(pa.float64())), (0, 4))
    assert (one.measure, one.count, one.nulls, one.distinct) == (Measure.ELEMENT, 3, 1, 5)
    assert dict(one.keys) == {"2": 6.0, "0": 4.0, "1": 0.0}
    assert (one.mean, one.mean_length, one.least, one.greatest) == (8 / 5, 3.0, -1.0, 5.0)
    assert one.outside == 2


def test_maps_are_told_by_their_values_and_what_lies_under_each_key():
    values = pa.array([[("drama", 0.75), ("news", 0.25)], [], None, [("news", 1.0)]], MAP)
    one = described(values.slice(0), (0, 1))
    assert (one.measure, one.count, one.nulls, one.distinct) == (Measure.ELEMENT, 4, 1, 2)
    assert list(one.keys.items()) == [("news", 1.25), ("drama", 0.75)]
    assert (one.keys_weight, one.mean, one.mean_length, one.outside) == (2.0, 2 / 3, 1.0, 0)
    assert one.keys_size == 2.0**2 / (0.75**2 + 0.25**2 + 1)
    assert described(values.slice(3)).keys == {"news": 1.0}, "of a slice nothing else is read"


def test_what_lies_outside_of_the_range_or_is_no_number_is_counted():
    values = pa.array([0.0, -0.0, 1.0, 1 + 1e-12, 1.001, -0.5, float("nan"), float("inf"), None])
    one = described(values, (0.0, 1.0))
    assert (one.count, one.nulls, one.outside) == (9, 1, 4)
    assert (one.least, one.greatest) == (-0.5, 1.001)
    assert one.distinct == 5, "the two zeros are one number"
    assert described(values, (float("-inf"), float("inf"))).outside == 2


@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.string(), MAP, pa.list_(pa.string())], ids=str)
def test_nothing_and_nulls_alone_have_neither_mean_nor_quantile(kind):
    for values in (pa.array([], kind), pa.array([None, None], kind)):
        one = described(values)
        assert (one.count, one.nulls, one.distinct, one.outside) == (len(values), len(values), 0, 0)
        assert (one.mean, one.mean_length, one.least, one.quantile(0.5), dict(one.keys)) == (None, None, None, None, {})


def random_values(rng, kind, size):
    def number():
        return float(rng.normal()) if rng.random() < 0.5 else float(rng.integers(0, 4))

    def words(most):
        return [str(word) for word in rng.choice(WORDS, int(rng.integers(0, most)), replace=False)]

    make = {
        "number": number,
        "text": lambda: str(rng.choice(WORDS)),
        "texts": lambda: words(4),
        "vector": lambda: [number() for _ in range(3)],
        "map": lambda: [(word, number()) for word in words(4)],
    }[kind]
    types = {"number": pa.float64(), "text": pa.string(), "texts": pa.list_(pa.string()),
             "vector": pa.list_(pa.float64()), "map": MAP}  # fmt: skip
    return pa.array([None if rng.random() < 0.1 else make() for _ in range(size)], types[kind])


@pytest.mark.parametrize("kind", ["number", "text", "texts", "vector", "map"])
def test_merged_parts_are_the_whole(kind):
    rng = np.random.default_rng(8)
    for _ in range(12):
        values = random_values(rng, kind, int(rng.integers(0, 400)))
        cuts = np.sort(rng.integers(0, len(values) + 1, 3))
        edges = [0, *cuts.tolist(), len(values)]
        parts = [values.slice(start, stop - start) for start, stop in pairwise(edges)]
        summaries = [summarize(part, len(part), (0, 2)) for part in parts]
        left = merge([merge(summaries[:2]), *summaries[2:]])
        for merged in (merge(summaries), merge(summaries[::-1]), left):
            one, whole = describe(merged, values.type), described(values, (0, 2))
            assert one.buckets.tolist() == whole.buckets.tolist()
            assert one.bucket_counts.tolist() == whole.bucket_counts.tolist()
            assert dict(one.keys) == pytest.approx(dict(whole.keys))
            told = (
                "count",
                "nulls",
                "entities",
                "outside",
                "distinct",
                "least",
                "greatest",
                "mean_length",
                "quantiles",
            )
            assert [getattr(one, name) for name in told] == [getattr(whole, name) for name in told]
            for name in ("mean", "keys_weight", "keys_size"):
                assert getattr(one, name) == pytest.approx(getattr(whole, name)), name


def test_of_many_keys_the_heaviest_are_kept_and_all_are_counted():
    one = described(pa.array([f"title-{n}" for n in range(700)] + ["title-699"] * 5))
    assert (one.distinct, len(one.keys), one.keys_weight) == (700, 500, 705.0)
    assert next(iter(one.keys.items())) == ("title-699", 6.0)
