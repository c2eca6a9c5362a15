"""How far values agree: by hand, and against arithmetic in exact fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.agreement import Agreement, Tally, agreement, errors

BIT = math.ulp(0.1)
numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False, width=32))
values = st.one_of(
    st.none(), numbers, st.text(max_size=3), st.lists(numbers, max_size=4),
    st.dictionaries(st.sampled_from("abcd"), numbers, max_size=4),
)  # fmt: skip


@pytest.mark.parametrize(
    ("served", "offline", "said"),
    [
        (None, None, "identical"),
        (0, 0, "identical"),
        (0.1, 0.1, "identical"),
        ([], [], "identical"),
        ({"a": 1.0}, {"a": 1.0}, "identical"),
        (0.1, 0.1 + BIT, "close"),
        ([1.0, 0.1], [1.0, 0.1 + BIT], "close"),
        ({"a": 0.1 + BIT}, {"a": 0.1}, "close"),
        (1.0, 1.0 + 2e-9, "different"),
        (0.0, 1e-300, "different"),
        (None, 0, "missing"),
        (None, "", "missing"),
        ([], None, "extra"),
        ("vod", "live", "different"),
        (["a", "b"], ["b", "a"], "different"),
        ([1, 2], [1], "different"),
        ({"a": 1.0}, {"b": 1.0}, "different"),
        ({"a": 1.0}, {"a": None}, "different"),
    ],
)
def test_by_hand(served, offline, said):
    assert agreement(served, offline) == Agreement(said)
    assert Agreement(said).is_exact == (said in ("identical", "close"))


@pytest.mark.parametrize(
    ("served", "offline", "expected"),
    [
        (3, 1, [1.0]),  # 2 * 2 / 4
        (0, 0, [0.0]),
        (0, 5, [2.0]),
        (-1, 1, [2.0]),
        (None, 5, []),
        ("a", "b", []),
        (True, False, []),
        ([1, 3], [1, 1], [0.0, 1.0]),
        ([1, 3, 4], [1], [0.0, 2.0, 2.0]),
        ({"a": 1, "b": 2}, {"a": 3, "c": 1}, [1.0, 2.0, 2.0]),
        ([1, None], [None, 1], []),
    ],
)
def test_errors_by_hand(served, offline, expected):
    assert list(errors(served, offline)) == expected


def in_fractions(served, offline):
    """The errors, worked out exactly and otherwise: from pairs of elements laid side by side."""
    if served is None or offline is None:
        return []
    if isinstance(served, list) and isinstance(offline, list):
        size = max(len(served), len(offline))
        pairs = [(one[n] if n < len(one) else "none") for n in range(size) for one in (served, offline)]
        pairs = list(zip(pairs[::2], pairs[1::2], strict=True))
    elif isinstance(served, dict) and isinstance(offline, dict):
        pairs = [(served.get(key, "none"), offline.get(key, "none")) for key in {*served, *offline}]
    elif isinstance(served, int | float) and isinstance(offline, int | float):
        pairs = [(served, offline)]
    else:
        return []
    found = []
    for one, other in pairs:
        if "none" in (one, other):
            found.append(Fraction(2))
            continue
        a, b = Fraction(one), Fraction(other)
        found.append(2 * abs(a - b) / (abs(a) + abs(b)) if a or b else Fraction(0))
    return found


@given(st.lists(st.tuples(values, values), max_size=12))
def test_a_tally_is_the_mean_of_all_pairs_and_misses_no_value(pairs):
    halves = [Tally(), Tally()]
    for number, (served, offline) in enumerate(pairs):
        halves[number % 2].add(served, offline)
    whole = halves[0]
    whole.merge(halves[1])
    exact = [one for pair in pairs for one in in_fractions(*pair)]
    assert whole.pairs == len(exact)
    if exact:
        assert whole.smape == pytest.approx(float(sum(exact) / len(exact)), rel=1e-9)
    else:
        assert whole.smape is None
    same = sum(one == other for one, other in pairs)
    assert whole.identical == same
    assert whole.compared == len(pairs)
    assert whole.missing == sum(one is None and other is not None for one, other in pairs)
    assert whole.extra == sum(one is not None and other is None for one, other in pairs)
    assert (whole.exact_share is None) == (not pairs)


@given(values, values)
def test_neither_side_is_preferred(one, other):
    turned = {Agreement.MISSING: Agreement.EXTRA, Agreement.EXTRA: Agreement.MISSING}
    found = agreement(one, other)
    assert agreement(other, one) == turned.get(found, found)
    assert sorted(errors(one, other)) == sorted(errors(other, one))
