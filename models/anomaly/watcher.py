"""Watches the metrics of a platform, segment by segment, and tells when one is not as it should be.

A score becomes an alert in three steps, none of which knows a label:

1. The score is -log10 of a tail probability, as the anomaly likelihood of Ahmad et al., "Unsupervised real-time anomaly
   detection for streaming data", Neurocomputing 2017, but without their normal distribution: the rank of the value's
   novelty among the recent ones of its series, or how far it is from what the hour of the week expects, whichever is
   stranger. The first knows shapes and metrics of any distribution, the second tells a trouble that was there last
   week too. An alert needs a score that about `alarms_a_day` values a day reach where nothing changes.
2. What is told already is not told again within `quiet_ms`, unless it gets worse.
3. Nothing is told before the baseline has an expectation to tell beside it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.anomaly.baseline import DAY_MS, HOUR_MS, Expected, SeasonalBaseline
from models.anomaly.debounce import Debounce
from models.anomaly.novelty import Novelty, NoveltyConfig
from models.errors import ConfigurationError

Segment = Mapping[str, str]
"""Of which part of the platform: any of `DIMENSIONS` to its value; none is all of it."""
DIMENSIONS = ("cdn", "isp", "region", "platform", "channel")
_WAYS = 2  # a value can be strange in two ways, each of which gets half of the alarms
Severity = Literal["notice", "warning", "critical"]


@dataclass(frozen=True)
class WatchConfig:
    """`step_ms`: how often a value comes; `alarms_a_day`: how many a series may raise while nothing is wrong;
    `quiet_ms`: how long a trouble is told once; `band_deviations`: half the band's width."""

    step_ms: int = 300_000
    alarms_a_day: float = 1.0
    quiet_ms: int = 8 * HOUR_MS
    band_deviations: float = 3.0
    novelty: NoveltyConfig = field(default_factory=NoveltyConfig)

    def __post_init__(self) -> None:
        if self.step_ms < 1 or not 0 < self.alarms_a_day * self.step_ms < DAY_MS or self.band_deviations <= 0:
            raise ConfigurationError(
                f"step_ms {self.step_ms}, alarms_a_day {self.alarms_a_day}, band_deviations {self.band_deviations}: "
                "a step is at least 1 ms, there are more steps a day than alarms, and a band is wider than nothing"
            )

    @property
    def threshold(self) -> float:
        """The score that so few values a day reach: at 5 minutes and one alarm a day, log10(2 x 288) = 2.76."""
        return math.log10(_WAYS * DAY_MS / self.step_ms / self.alarms_a_day)


@dataclass(frozen=True)
class Alert:
    """A metric of a segment is not as it should be. Values are in the metric's own unit."""

    metric: str
    segment: tuple[tuple[str, str], ...]
    at_ms: int
    value: float
    expected: float
    low: float
    high: float
    score: float
    severity: Severity

    @property
    def words(self) -> str:
        """One line for whoever is on duty."""
        where = ", ".join(f"{dimension} {name}" for dimension, name in self.segment) or "all"
        return (
            f"{self.severity}: {self.metric} of {where} is {self.value:g}; "
            f"expected {self.expected:g}, between {self.low:g} and {self.high:g}"
        )


def severity_of(value: float, expected: Expected, band_deviations: float) -> Severity:
    """Within the band something is new all the same: a notice. Beyond twice its half width it is critical."""
    widths = abs(value - expected.value) / (band_deviations * expected.deviation)
    if widths <= 1:
        return "notice"
    return "warning" if widths <= 2 else "critical"


class _Series:
    """One metric of one segment."""

    def __init__(self, config: WatchConfig) -> None:
        self.baseline = SeasonalBaseline()
        self.novelty = Novelty(config.novelty)
        self.debounce = Debounce(config.quiet_ms // config.step_ms)


class Watcher:
    """All series that are watched; a series is there from its first value on."""

    def __init__(self, config: WatchConfig | None = None) -> None:
        self.config = config or WatchConfig()
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], _Series] = {}

    def observe(self, metric: str, segment: Segment, at_ms: int, value: float) -> Alert | None:
        """Takes a series' next value in time and tells if it is to be told. What is learnt counts from then on.

        Raises:
            ConfigurationError: the segment has an unknown dimension.
            NotFiniteError: the value is infinite or not a number.
        """
        key = (metric, _ordered(segment))
        series = self._series.get(key) or _Series(self.config)
        expected = series.baseline.expected(at_ms)
        score = series.novelty.score(value)
        if expected is not None:
            score = max(score, expected.surprise(value))
        series.baseline.add(at_ms, value)
        self._series[key] = series
        passed = series.debounce.passed(score)
        if expected is None or passed < self.config.threshold:
            return None
        low, high = expected.band(self.config.band_deviations)
        severity = severity_of(value, expected, self.config.band_deviations)
        return Alert(metric, key[1], at_ms, value, expected.value, low, high, score, severity)

    def state(self) -> list[dict[str, Any]]:
        """All that `resume` needs, as JSON has it."""
        return [
            {
                "metric": metric,
                "segment": dict(segment),
                "baseline": series.baseline.state(),
                "novelty": series.novelty.state(),
                "debounce": series.debounce.state(),
            }
            for (metric, segment), series in sorted(self._series.items(), key=lambda item: item[0])
        ]

    @classmethod
    def resume(cls, state: list[dict[str, Any]], config: WatchConfig | None = None) -> "Watcher":
        """Goes on from what `state` returned, under the same configuration.

        Raises:
            ConfigurationError: it was made under another one, or by another version.
        """
        watcher = cls(config)
        for kept in state:
            series = _Series(watcher.config)
            series.baseline = SeasonalBaseline.resume(kept["baseline"])
            series.novelty = Novelty.resume(kept["novelty"], watcher.config.novelty)
            series.debounce.resume(kept["debounce"])
            watcher._series[kept["metric"], _ordered(kept["segment"])] = series
        return watcher


def _ordered(segment: Segment) -> tuple[tuple[str, str], ...]:
    unknown = sorted(segment.keys() - set(DIMENSIONS))
    if unknown:
        raise ConfigurationError(f"no segment is told apart by {', '.join(unknown)}; there is {', '.join(DIMENSIONS)}")
    return tuple((dimension, segment[dimension]) for dimension in DIMENSIONS if dimension in segment)
