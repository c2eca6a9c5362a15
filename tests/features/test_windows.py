import numpy as np
import pytest

from features.windows import Cadence, edge_ms, hop_ms, tile_length_ms, valued_at_ms

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("window", "hop"),
    [
        (1, 5 * MINUTE),
        (12 * HOUR - 1, 5 * MINUTE),
        (12 * HOUR, HOUR),
        (12 * DAY, HOUR),
        (12 * DAY + 1, DAY),
        (90 * DAY, DAY),
    ],
)
def test_hops(window, hop):
    assert hop_ms(window) == hop


@pytest.mark.parametrize(
    ("asked", "cadence", "delay", "valued"),
    [
        (1_709_251_199_999, Cadence.EVENT, 2_000, 1_709_251_197_999),
        # 29 February 2024, 00:15:00.000 UTC knows midnight; a millisecond earlier only 23:00 of the 28th.
        (1_709_165_700_000, Cadence.HOURLY, 900_000, 1_709_164_800_000),
        (1_709_165_699_999, Cadence.HOURLY, 900_000, 1_709_161_200_000),
        (1_709_175_600_000, Cadence.DAILY, 3 * HOUR, 1_709_164_800_000),
        (1_709_175_599_999, Cadence.DAILY, 3 * HOUR, 1_709_078_400_000),
        (-1, Cadence.HOURLY, 0, -HOUR),
    ],
)
def test_boundaries(asked, cadence, delay, valued):
    assert valued_at_ms(asked, cadence, delay) == valued
    assert valued_at_ms(np.array([asked]), cadence, delay).tolist() == [valued]


@pytest.mark.parametrize(
    ("instant", "window", "start"),
    [
        (10 * HOUR + 1, HOUR, 9 * HOUR),
        (10 * HOUR + 5 * MINUTE - 1, HOUR, 9 * HOUR),
        (10 * HOUR + 5 * MINUTE, HOUR, 9 * HOUR + 5 * MINUTE),
        (40 * DAY + 23 * HOUR, 30 * DAY, 10 * DAY),
        (DAY - 1, DAY, -HOUR),
    ],
)
def test_window_starts(instant, window, start):
    assert edge_ms(instant, window, window) == start
    assert edge_ms(instant, 0, window) == instant


def test_no_tile_crosses_a_boundary_of_its_group():
    assert tile_length_ms(30 * DAY, Cadence.EVENT) == DAY
    assert tile_length_ms(30 * DAY, Cadence.HOURLY) == HOUR
    assert tile_length_ms(30 * DAY, Cadence.DAILY) == DAY
    assert tile_length_ms(HOUR, Cadence.DAILY) == 5 * MINUTE


def test_default_delays():
    assert [cadence.default_delay_ms for cadence in (Cadence.EVENT, Cadence.HOURLY, Cadence.DAILY)] == [
        2_000,
        900_000,
        10_800_000,
    ]
