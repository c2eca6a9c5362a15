"""The session quality score by hand: every constant of the published formulas is in one of these sums."""

import polars as pl
import pytest

from features.sources.session_quality import level, score


def scored(stretches, *, stalls=0, stalled_ms=0, start_ms=None):
    """The score of stretches of (ms watched, level) with so many stalls, and so long a wait before them."""
    columns = {
        "watched": sum(ms for ms, _ in stretches),
        "levels": sum(ms * at for ms, at in stretches),
        "squares": sum(ms * at**2 for ms, at in stretches),
        "stalls": stalls, "stalled": stalled_ms, "start": start_ms,
    }  # fmt: skip
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64))
    return frame.select(score(*map(pl.col, columns))).item()


# Opinions go from 0 to 5.67 + 0.17 = 5.84.
@pytest.mark.parametrize(
    ("opinion", "watched", "rest"),
    [
        (5.67 + 0.17, [(1_000_000, 9)], {}),  # the highest level throughout: the most there is
        (5.67 / 9 + 0.17, [(1_000_000, 1)], {}),
        # Half of it at 9, half at 1: a mean of 5/9, a deviation of 4/9.
        (5.67 * 5 / 9 - 6.72 * 4 / 9 + 0.17, [(500_000, 9), (500_000, 1)], {}),
        # Levels 9 and 7, a quarter and three quarters: mean 7.5/9, deviation sqrt(0.75)/9.
        (5.67 * 7.5 / 9 - 6.72 * 0.8660254037844386 / 9 + 0.17, [(250_000, 9), (750_000, 7)], {}),
        # A stall in 1,000 s is so rare that only its length counts: 15 s is the whole of the eighth that length has.
        (5.84 - 4.95 / 8, [(1_000_000, 9)], {"stalls": 1, "stalled_ms": 15_000}),
        (5.84 - 4.95 / 8, [(1_000_000, 9)], {"stalls": 1, "stalled_ms": 60_000}),  # longer is no worse
        # 10 stalls in 100 s: ln(0.1) = -2.302585, so 1 - 0.3837642 of seven eighths; 3 s each: a fifth of one eighth.
        (5.84 - 4.95 * (7 / 8 * 0.6162358 + 1 / 8 * 0.2), [(100_000, 9)], {"stalls": 10, "stalled_ms": 30_000}),
        # A wait of nine times 5.381 s: the logarithm is of 10, which is 1.
        (5.84 - 0.963, [(1_000_000, 9)], {"start_ms": 48_429}),
        (5.84, [(1_000_000, 9)], {"start_ms": 0}),
    ],
)
def test_the_score_is_the_opinion_in_per_cent_of_the_best(opinion, watched, rest):
    assert scored(watched, **rest) == pytest.approx(opinion / 5.84 * 100, abs=1e-5)


def test_no_score_is_below_nothing_and_nothing_watched_has_none():
    assert scored([(1_000, 1)], stalls=5, stalled_ms=75_000, start_ms=60_000) == 0
    assert scored([]) is None


def test_levels_are_the_rungs_that_a_bitrate_reaches():
    ladder = {0: 1, 144: 1, 145: 1, 364: 1, 365: 2, 729: 2, 730: 3, 1_100: 4, 1_999: 4, 2_000: 5, 3_000: 6, 4_500: 7,
              6_000: 8, 7_799: 8, 7_800: 9, 50_000: 9, None: None}  # fmt: skip
    frame = pl.DataFrame({"kbps": list(ladder)}, schema={"kbps": pl.Int64})
    assert frame.select(level(pl.col("kbps"))).to_series().to_list() == list(ladder.values())
