"""The session quality score: 0 to 100, from start time, stalls, bitrate and its switches.

What people said of streams in published tests, as formulas. On the scale of mean opinion scores:

    5.67 mean(l) - 6.72 deviation(l) + 0.17 - 4.95 freezing        of a stream that has started
    - 0.963 log10((start + 5.381) / 5.381)                         for the wait before it

- `l` is the quality level played at, as a share of the highest one; the mean and the standard deviation are over the
  time watched, so that switching costs. Coefficients: J. De Vriendt, D. De Vleeschauwer, D. Robinson, "Model for
  estimating QoE of video delivered using HTTP adaptive streaming", IM 2013, fitted to subjective tests.
- `freezing` is 7/8 max(ln(frequency) / 6 + 1, 0) + 1/8 min(length, 15) / 15, of stalls a second watched and their mean
  length in seconds; 0 without stalls. It smooths the levels that R. Mok, E. Chan, R. Chang fitted to ratings
  ("Measuring the quality of experience of HTTP video streaming", IM 2011). Both were put together, with a range of 0
  to 5.84, by M. Claeys et al., "Design and optimisation of a (FA)Q-learning-based HTTP adaptive streaming client",
  Connection Science 26(1), 2014.
- The wait is `start` seconds; its cost is what the opinion of a clip of 60 s falls by. T. Hoßfeld et al., "Initial
  delay vs. interruptions: between the devil and the deep blue sea", QoMEX 2012, fitted to ratings.

The score is the sum, kept within its range, in per cent of 5.84. Players report bitrates, not levels: the level is how
many rungs of Apple's recommended H.264 ladder (HLS Authoring Specification) the bitrate reaches, at least 1.
"""

import polars as pl

LADDER_KBPS = (145, 365, 730, 1_100, 2_000, 3_000, 4_500, 6_000, 7_800)
_LEVEL, _SWITCHING, _BASE, _FREEZING = 5.67, 6.72, 0.17, 4.95
_HIGHEST = _LEVEL + _BASE
_FREQUENCY_SHARE, _LENGTH_SHARE, _LONGEST_STALL_S = 7 / 8, 1 / 8, 15
_WAIT, _WAIT_OFFSET_S = 0.963, 5.381


def level(bitrate_kbps: pl.Expr) -> pl.Expr:
    """Rungs of the ladder that a bitrate reaches, 1 to 9; null where it is not known."""
    rungs = pl.sum_horizontal((bitrate_kbps >= rung).cast(pl.Int64) for rung in LADDER_KBPS)
    return pl.when(bitrate_kbps.is_not_null()).then(pl.max_horizontal(rungs, 1))


def score(
    watched_ms: pl.Expr, levels: pl.Expr, squares: pl.Expr, stalls: pl.Expr, stalled_ms: pl.Expr, start_ms: pl.Expr
) -> pl.Expr:
    """Score of playbacks in per cent; null where nothing was watched.

    `levels` and `squares`: sums over the time watched of ms times level, and ms times its square. `start_ms`: null
    where it is not known, which costs nothing.
    """
    mean = levels / watched_ms
    deviation = (squares / watched_ms - mean**2).clip(0).sqrt()
    often = ((stalls / (watched_ms / 1000)).log() / 6 + 1).clip(0, 1)
    long = (stalled_ms / stalls / 1000).clip(0, _LONGEST_STALL_S) / _LONGEST_STALL_S
    freezing = pl.when(stalls > 0).then(_FREQUENCY_SHARE * often + _LENGTH_SHARE * long).otherwise(0.0)
    waiting = _WAIT * ((start_ms.fill_null(0) / 1000 + _WAIT_OFFSET_S) / _WAIT_OFFSET_S).log10()
    opinion = (_LEVEL * mean - _SWITCHING * deviation) / len(LADDER_KBPS) + _BASE - _FREEZING * freezing - waiting
    return pl.when(watched_ms > 0).then(opinion.clip(0, _HIGHEST) / _HIGHEST * 100)
