import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.anomaly.baseline import (
    DAY_MS,
    HOUR_MS,
    RESOLUTION,
    Expected,
    SeasonalBaseline,
    baseline_of,
    baseline_of_slots,
)
from models.anomaly.errors import NotFiniteError
from models.errors import ConfigurationError

MONDAY_MS = 1_772_409_600_000  # 2026-03-02, a Monday, 00:00 UTC
readings = st.lists(
    st.tuples(st.integers(0, 45 * 24 * 4).map(lambda quarter: MONDAY_MS + quarter * HOUR_MS // 4),
              st.floats(-1e6, 1e6).map(lambda value: round(value, 3))),
    max_size=60,
)  # fmt: skip


@given(readings, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_adding_one_by_one_in_any_order_is_adding_what_is_young_enough(
    values: list[tuple[int, float]], random: object
) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    newest = max((at_ms // HOUR_MS for at_ms, _ in values), default=0)
    young = [(at_ms, value) for at_ms, value in values if at_ms // HOUR_MS >= newest - 720]
    assert baseline_of(shuffled) == baseline_of(sorted(young))


@given(readings, readings, readings)
@settings(max_examples=50, deadline=None)
def test_parts_merge_to_the_whole_however_they_are_grouped(
    a: list[tuple[int, float]], b: list[tuple[int, float]], c: list[tuple[int, float]]
) -> None:
    whole = baseline_of(a + b + c)
    assert baseline_of(a).merged(baseline_of(b)).merged(baseline_of(c)) == whole
    assert baseline_of(c).merged(baseline_of(b + a)) == whole


@given(readings, readings)
@settings(max_examples=50, deadline=None)
def test_a_state_goes_on_where_it_was(past: list[tuple[int, float]], future: list[tuple[int, float]]) -> None:
    resumed = SeasonalBaseline.resume(json.loads(json.dumps(baseline_of(past).state())))
    for at_ms, value in future:
        resumed.add(at_ms, value)
    assert resumed == baseline_of(past + future)


@given(readings, readings, st.integers(0, 45 * 24))
@settings(max_examples=50, deadline=None)
def test_the_future_does_not_change_an_expectation(
    past: list[tuple[int, float]], future: list[tuple[int, float]], hour: int
) -> None:
    at_ms = MONDAY_MS + hour * HOUR_MS
    known = [(when, value) for when, value in past if when < at_ms]
    # Up to 30 days on nothing is dropped that this instant needs; later nobody asks for it.
    later = [(when, value) for when, value in future if when >= at_ms and when // HOUR_MS == at_ms // HOUR_MS]
    assert baseline_of(known + later).expected(at_ms) == baseline_of(known).expected(at_ms)


def recomputed(values: list[tuple[int, float]], at_ms: int) -> tuple[float, float] | None:
    """Expectation and deviation from the values themselves, by NumPy."""
    hour = at_ms // HOUR_MS
    of: dict[int, list[float]] = {}
    for when, value in values:
        if hour - 720 <= when // HOUR_MS < hour:
            of.setdefault(when // HOUR_MS, []).append(value)
    for period in (168, 24, 1):
        cell = [of[h] for h in of if (hour - h) % period == 0]
        wider = [of[h] for h in of if (hour - h) % min(period, 24) == 0]
        if len(cell) < 3:
            continue
        means, wide = np.array([np.mean(one) for one in cell]), np.array([np.mean(one) for one in wider])
        spread = [np.median(np.abs(m - np.median(m))) for m in (means, wide)]
        spread[1] = np.median(np.abs(wide - np.median(wide)))
        within = np.median([np.var(one) for one in wider])
        deviation = np.sqrt((1.4826 * max(np.median(np.abs(means - np.median(means))), spread[1])) ** 2 + within)
        return float(np.median(means)), float(np.hypot(deviation, RESOLUTION))
    return None


@given(readings, st.integers(20 * 24, 46 * 24))
@settings(max_examples=50, deadline=None)
def test_an_expectation_is_recomputed_from_the_values(values: list[tuple[int, float]], hour: int) -> None:
    at_ms = MONDAY_MS + hour * HOUR_MS
    known = [(when, value) for when, value in values if when < at_ms]
    expected, again = baseline_of(known).expected(at_ms), recomputed(known, at_ms)
    if expected is None:
        assert again is None
    else:
        assert (expected.value, expected.deviation) == pytest.approx(again, rel=1e-6, abs=1e-4)


def weekly(days: int, noise: float = 0.0) -> list[tuple[int, float]]:
    random = np.random.default_rng(3)
    return [
        (MONDAY_MS + hour * HOUR_MS, 100 * (hour // 24 % 7) + hour % 24 + noise * float(random.normal()))
        for hour in range(days * 24)
    ]


def test_it_knows_the_hour_of_the_week_and_before_that_the_hour_of_the_day() -> None:
    thursday_noon = MONDAY_MS + 31 * DAY_MS + 12 * HOUR_MS
    known = baseline_of(weekly(31)).expected(thursday_noon)
    assert known is not None
    assert (known.value, known.tiles) == (pytest.approx(312), 4)
    young = baseline_of(weekly(7)).expected(MONDAY_MS + 7 * DAY_MS + 12 * HOUR_MS)
    assert young is not None
    assert (young.value, young.tiles) == (pytest.approx(312), 7), "the median day's noon"
    assert baseline_of(weekly(0)).expected(MONDAY_MS) is None


def test_incidents_of_the_past_move_neither_expectation_nor_band() -> None:
    at_ms = MONDAY_MS + 28 * DAY_MS + 20 * HOUR_MS
    calm = weekly(28, noise=1.0)
    broken = [(when, 9_000.0 if when // DAY_MS == MONDAY_MS // DAY_MS + 21 else value) for when, value in calm]
    before, after = (baseline_of(values).expected(at_ms) for values in (calm, broken))
    assert before is not None
    assert after is not None
    assert after.value == pytest.approx(before.value, abs=3)
    assert after.deviation == pytest.approx(before.deviation, rel=0.6)


def test_a_band_holds_the_share_of_values_that_it_says() -> None:
    random = np.random.default_rng(5)
    values = [(MONDAY_MS + step * 300_000, float(random.normal(50, 4))) for step in range(28 * 288)]
    expected = baseline_of(values).expected(MONDAY_MS + 28 * DAY_MS)
    assert expected is not None
    assert expected.deviation == pytest.approx(4, rel=0.1)
    low, high = expected.band(3)
    assert (low, high) == (pytest.approx(38, abs=2), pytest.approx(62, abs=2))


def test_surprise_is_the_tail_of_students_t() -> None:
    expected = Expected(50, 4, 5)
    # 2 * scipy.stats.t.sf(2.776445, 4) = 0.05
    assert expected.surprise(50 + 4 * 2.776445) == pytest.approx(-np.log10(0.05), abs=1e-5)
    assert expected.surprise(50) == pytest.approx(0)
    assert np.isfinite(expected.surprise(1e200))


def test_it_stays_small() -> None:
    baseline = baseline_of((MONDAY_MS + step * 60_000, 1.0) for step in range(40 * 1440))
    assert baseline.tiles == 721


def test_bad_values_and_states_are_refused() -> None:
    with pytest.raises(NotFiniteError, match="nan"):
        SeasonalBaseline().add(MONDAY_MS, float("nan"))
    with pytest.raises(ConfigurationError, match="format 9"):
        SeasonalBaseline.resume({"format": 9, "tiles": {}})


@given(st.lists(st.tuples(st.integers(-40 * 24, 3), st.integers(1, 9)), max_size=30), st.integers(0, HOUR_MS - 1))
@settings(max_examples=50, deadline=None)
def test_from_counts_by_hour_it_is_that_of_the_counts(counted: list[tuple[int, int]], into_ms: int) -> None:
    """The counts of the 30 days before, with the hours in which nothing came, from the first that something did."""
    now = MONDAY_MS // HOUR_MS
    by_hour: dict[int, int] = {}
    for hour, count in counted:
        by_hour[now + hour] = by_hour.get(now + hour, 0) + count
    slots = [0.0] * 744
    for hour, count in by_hour.items():
        if now - 740 <= hour:  # what the window has, and the hours that have begun since
            slots[hour % 744] = float(count)
    before = [hour for hour in by_hour if now - 720 <= hour < now]
    values = [(hour * HOUR_MS, float(by_hour.get(hour, 0))) for hour in range(min(before, default=now), now)]
    assert baseline_of_slots(slots, MONDAY_MS + into_ms) == baseline_of(values)
