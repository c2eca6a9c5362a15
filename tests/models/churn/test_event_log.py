"""What a log says of its owners, against arithmetic by hand and against brute force; nothing from the instant on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.churn.event_log import NAMES, WINDOWS_DAYS, EventLog, rhythm

EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 400), st.floats(0, 100), st.integers(1, 5)), min_size=1, max_size=40
)


def log_of(events: list[tuple[int, int, float, int]]) -> EventLog:
    owner, day, value, count = (np.array(column) for column in zip(*events, strict=True))
    return EventLog.of(owner, day.astype(float), value.astype(float), count.astype(float))


def test_one_owner_by_hand() -> None:
    """Bought on days 0, 10 and 40 (twice that day), asked on day 100."""
    log = log_of([(7, 40, 20.0, 1), (7, 0, 5.0, 2), (7, 10, 10.0, 1), (7, 40, 40.0, 2), (7, 100, 99.0, 9)])
    owners, (found,) = rhythm(log, 100.0)
    assert owners.tolist() == [7]
    named = dict(zip(NAMES, found, strict=True))
    assert named["repeats"] == 2
    assert named["recency_days"] == 60
    assert named["last_over_age"] == pytest.approx(40 / 100)
    assert (named["mean_gap_days"], named["last_gap_days"], named["longest_gap_days"]) == (20, 30, 30)
    assert (named["recency_over_mean_gap"], named["recency_over_longest_gap"]) == (3, 2)
    assert named["repeats_per_day"] == pytest.approx(0.02)
    assert [named[f"events_in_{days}_days"] for days in WINDOWS_DAYS] == [0, 0, 1, 2, 3, 3, 3]
    assert named["log_total_value"] == pytest.approx(np.log(76))
    assert named["log_mean_value"] == pytest.approx(np.log(26))
    assert (named["log_first_value"], named["log_last_value"]) == (pytest.approx(np.log(6)), pytest.approx(np.log(61)))
    assert named["mean_count"] == 2


def test_a_single_event_has_no_gap() -> None:
    _, (found,) = rhythm(log_of([(0, 3, 1.0, 1)]), 10.0)
    named = dict(zip(NAMES, found, strict=True))
    assert np.isnan([named[name] for name in NAMES if "gap" in name]).all()
    assert np.isfinite([named[name] for name in NAMES if "gap" not in name]).all()


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 400))
def test_knows_nothing_from_the_instant_on_and_each_owner_alone(events: list, instant: int) -> None:
    owners, found = rhythm(log_of(events), float(instant))
    earlier = [event for event in events if event[1] < instant]
    assert owners.tolist() == sorted({event[0] for event in earlier})
    for owner, row in zip(owners, found, strict=True):
        own = [event for event in earlier if event[0] == owner]
        _, (alone,) = rhythm(log_of(own), float(instant))
        np.testing.assert_allclose(row, alone)
        days = sorted({event[1] for event in own})
        assert row[NAMES.index("repeats")] == len(days) - 1
        assert row[NAMES.index("recency_days")] == instant - days[-1]
        if len(days) > 1:
            assert row[NAMES.index("longest_gap_days")] == max(np.diff(days))


def test_nobody_before_the_instant() -> None:
    owners, found = rhythm(log_of([(0, 3, 1.0, 1)]), 3.0)
    assert len(owners) == 0
    assert found.shape == (0, len(NAMES))
