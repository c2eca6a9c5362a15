"""Notices within a few sessions that a delivery network got worse, and that it recovered.

One watch per network and region reads the quality scores of sessions as they end. A cumulative sum of how far they
fall short (Page, Biometrika 41, 1954), in standard deviations of what is usual there:

    z = (score - usual mean) / usual deviation, kept within -3 to 3
    shortfall = max(0, shortfall - z - SLACK)          degraded once it exceeds THRESHOLD

A fall by two deviations is noticed after THRESHOLD / (2 - SLACK), 7 sessions on average; without a fall there is about
one alarm in 140,000 sessions (Siegmund, "Sequential Analysis", 1985: `(exp(2kb) - 2kb - 1) / (2k^2)`, `k` the slack,
`b` the threshold + 1.166; for normal scores). Once degraded, a second sum counts how far scores are above half
the fall that led to the alarm, and ends it. What is usual is a mean and deviation of the last sessions with exponential
weights; it stands still while degraded, so that bad hours do not become usual.
"""

import math
from dataclasses import dataclass, field

SLACK = 0.5
THRESHOLD = 10.0
RECOVERY_THRESHOLD = 5.0
_WIDEST = 3.0
_WARM_UP_SESSIONS = 30
_MEMORY_SESSIONS = 500
_LEAST_DEVIATION = 1.0
"""In points of the score: where all sessions score alike, a point less is no catastrophe."""


@dataclass
class Watch:
    """One network in one region. Scores are 0 to 100."""

    mean: float = 0.0
    variance: float = 0.0
    sessions: int = 0
    shortfall: float = 0.0
    relief: float = 0.0
    degraded: bool = False

    def update(self, score: float) -> bool:
        """Take the score of a session that has ended; whether the network is degraded now.

        A score that is not a number says nothing and changes nothing.
        """
        if not math.isfinite(score):
            return self.degraded
        if self.sessions < _WARM_UP_SESSIONS:
            self._learn(score)
            return False
        deviation = max(math.sqrt(self.variance), _LEAST_DEVIATION)
        z = min(max((score - self.mean) / deviation, -_WIDEST), _WIDEST)
        if self.degraded:
            self._recover(z)
        else:
            self.shortfall = max(0.0, self.shortfall - z - SLACK)
            self.degraded = self.shortfall > THRESHOLD
            if not self.degraded:
                self._learn(score)
        return self.degraded

    def _recover(self, z: float) -> None:
        """One deviation below the usual is half of the fall that is noticed fastest."""
        self.relief = max(0.0, self.relief + z + 1)
        if self.relief > RECOVERY_THRESHOLD:
            self.degraded, self.shortfall, self.relief = False, 0.0, 0.0

    def _learn(self, score: float) -> None:
        self.sessions += 1
        share = max(1 / self.sessions, 1 / _MEMORY_SESSIONS)
        step = score - self.mean
        self.mean += share * step
        self.variance = (1 - share) * (self.variance + share * step * step)


@dataclass
class Watches:
    """All of them, by network and region."""

    by_key: dict[tuple[str, str], Watch] = field(default_factory=dict)

    def update(self, cdn: str, region: str, score: float) -> bool:
        """Take the score of a session over `cdn` in `region`; whether that is degraded now."""
        return self.by_key.setdefault((cdn, region), Watch()).update(score)

    def degraded(self, cdn: str, region: str) -> bool:
        """Whether it is degraded; a network nobody has seen a session of is not."""
        watch = self.by_key.get((cdn, region))
        return watch is not None and watch.degraded
