"""The trend of start times: a slope over days, which a session has only if it lasts for three of them."""

import pyarrow as pa
import pytest

from features.columns import TIMESTAMP
from features.groups.qoe_signals import QOE_SIGNALS
from features.values import values_at

T0, HOUR, DAY = 1_767_225_600_000, 3_600_000, 86_400_000
DELAY = 2_000


def log_of(starts):
    """The quality log of (session, instant, time to the first frame)."""
    sessions, at_ms, start_ms = zip(*starts, strict=True)
    schema, size = QOE_SIGNALS.source.schema, len(starts)
    columns = {
        "event_id": pa.array([f"e{number}" for number in range(size)]),
        "event_timestamp": pa.array(at_ms, pa.int64()).cast(TIMESTAMP),
        "session_id": pa.array(sessions),
        "start_time_ms": pa.array(start_ms, pa.int64()),
        "is_start": pa.array([True] * size),
    }
    return pa.table([columns.get(one.name, pa.nulls(size, one.type)) for one in schema], schema=schema)


@pytest.mark.parametrize(
    ("starts", "slope"),
    [
        ([(0, 1_000), (1, 1_500), (2, 2_000)], 500.0),
        # A mean of 1,200 on the first of three days, then 1,000 and 700: (700 - 1,200) / 2.
        ([(0, 1_000), (0, 1_400), (1, 1_000), (2, 700)], -250.0),
        # Days 0, 1, 3, from their mean -4/3, -1/3, 5/3: (-4 * 1 - 1 * 2 + 5 * 6) / 3 over 42/9.
        ([(0, 1), (1, 2), (3, 6)], 24 / 3 / (42 / 9)),
        ([(0, 1_000), (1, 1_500)], None),
        ([(0, 1_000), (0, 2_000), (0, 3_000)], None),
    ],
)
def test_a_session_has_one_from_its_third_day_on(starts, slope):
    log = log_of([("s", T0 + day * DAY + 12 * HOUR, ms) for day, ms in starts])
    last = max(day for day, _ in starts)
    asked = T0 + (last + 1) * DAY + DELAY  # blocks are counted back from midnight
    (found,) = values_at(QOE_SIGNALS, "session_id", log, pa.array(["s"]), [asked])["start_time_trend"].to_pylist()
    assert found == (None if slope is None else pytest.approx(slope, rel=1e-12))
