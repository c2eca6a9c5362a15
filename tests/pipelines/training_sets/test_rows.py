"""Parts of a log are cut by time where they would not fit in memory."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipelines.training_sets.rows import LogPart, in_time


@given(st.dictionaries(st.integers(-5, 20), st.integers(1, 9)), st.integers(1, 15))
def test_every_instant_is_in_one_part_and_parts_are_no_larger_than_they_may_be(rows, most):
    parts = in_time(3, rows, 21, most)
    sizes = [sum(count for at, count in rows.items() if part.since_ms <= at < part.until_ms) for part in parts]
    assert sum(sizes) == sum(rows.values())
    for part, size in zip(parts, sizes, strict=True):
        alone = [at for at in rows if part.since_ms <= at < part.until_ms]
        assert 0 < size <= most or len(alone) == 1
        assert part.bucket == 3
    for before, after in itertools.pairwise(parts):
        assert before.until_ms == after.since_ms


def test_a_bucket_of_nobody_has_no_part():
    assert in_time(0, {}, 10, 5) == []
    assert in_time(0, {4: 2, 6: 2}, 10, 5) == [LogPart(0, 4, 10)]
