"""Households as customers: their consent, how content they are, and when they cancel."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.behaviour import DayActivity
from pipelines.simulator.config import DAY_MS, HOUR_MS
from pipelines.simulator.platform import Platform
from pipelines.simulator.streams import stream

ANALYTICS, PERSONALIZATION, AD_TARGETING = 1, 2, 4
NEVER = np.iinfo(np.int64).max
CANCEL_REASONS = ("too_little_use", "quality", "other")

_CHANGED_SHARES = np.array([0.25, 0.55, 0.20])
_ENGAGEMENT_WEIGHT = 0.9
_QUALITY_WEIGHT = 3.0
_MEMORY_DAYS = 7
_MOOD_STEP, _MOOD_LOSS_PER_STALL = 0.06, 0.04
_USUAL_HOURS = 1.0


@dataclass
class ConsentDay:
    """A day's consent per household: bits before and after `change_ms` (`NEVER` where nothing changes)."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    change_ms: NDArray[np.int64]

    def at(self, household: NDArray[np.int32], at_ms: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What each row's household allowed at its time."""
        return np.where(at_ms < self.change_ms[household], self.before[household], self.after[household])


@dataclass
class HazardDay:
    """The truth about a day's cancellations, per household; `cancel_ms` is `NEVER` for those who stay."""

    hazard: NDArray[np.float64]
    engagement_hours: NDArray[np.float64]
    stall_percent: NDArray[np.float64]
    active: NDArray[np.bool_]
    cancel_ms: NDArray[np.int64]
    reason: NDArray[np.int8]


@dataclass
class Accounts:
    """State of every household: consent bits, whether subscribed, and running means over about a week.

    `engagement_hours`: hours watched per day and viewer. `stall_percent`: time stalled per time watched. `mood`: log of
    the factor on the usual number of sessions; a random walk that stalls pull down.
    """

    consent: NDArray[np.uint8]
    active: NDArray[np.bool_]
    engagement_hours: NDArray[np.float64]
    stall_percent: NDArray[np.float64]
    mood: NDArray[np.float64]
    platform: Platform = field(repr=False)

    @classmethod
    def at_start(cls, platform: Platform) -> "Accounts":
        """Everybody is subscribed, and some refuse some purposes."""
        config, households = platform.config, len(platform.households)
        random = stream(config.seed, "initial consent")
        bits = np.zeros(households, dtype=np.uint8)
        for bit, refusal in (
            (ANALYTICS, config.analytics_refusal),
            (PERSONALIZATION, config.personalization_refusal),
            (AD_TARGETING, config.ad_targeting_refusal),
        ):
            bits |= np.where(random.random(households) >= refusal, bit, 0).astype(np.uint8)
        return cls(
            consent=bits,
            active=np.ones(households, dtype=bool),
            engagement_hours=np.full(households, _USUAL_HOURS),
            stall_percent=np.zeros(households),
            mood=np.zeros(households),
            platform=platform,
        )

    def eagerness(self) -> NDArray[np.float64]:
        """Per viewer, the factor on the usual number of sessions: 0 once the household has decided to leave."""
        return np.where(self.active, np.exp(self.mood), 0.0)[self.platform.viewers.household]

    def change_consent(self, day: int, random: np.random.Generator) -> ConsentDay:
        """Let some households give or withdraw consent for one purpose, between 08:00 and 22:00 UTC.

        Nothing changes before 08:00, when the sessions that began on the day before have ended.
        """
        midnight_ms = self.platform.config.start_ms + day * DAY_MS
        households = len(self.active)
        changes = self.active & (random.random(households) < self.platform.config.consent_change_rate)
        bit = 1 << random.choice(3, size=households, p=_CHANGED_SHARES)
        at_ms = midnight_ms + random.integers(8 * HOUR_MS, 22 * HOUR_MS, households)
        before = self.consent.copy()
        self.consent = np.where(changes, before ^ bit.astype(np.uint8), before).astype(np.uint8)
        return ConsentDay(before, self.consent.copy(), np.where(changes, at_ms, NEVER))

    def judge(self, day: int, activity: DayActivity | None, random: np.random.Generator) -> HazardDay:
        """Take in the day's hours and stalls, and let some households decide to cancel.

        `hazard = daily_hazard x exp(-0.9 x (hours - 1) + 3 x stall_percent)`, at most 0.5 a day. Who decides so on day
        d stays away from then on and cancels on day d + 1 between 12:00 and 22:00 UTC, when all they did has arrived.
        """
        watched_ms, stalled_ms, stall_exits = self._use(activity)
        size = self.platform.households.size
        self.engagement_hours += (watched_ms / HOUR_MS / size - self.engagement_hours) / _MEMORY_DAYS
        used = watched_ms > 0
        percent = 100 * stalled_ms / np.maximum(watched_ms, 1)
        self.stall_percent += np.where(used, (np.minimum(percent, 5) - self.stall_percent) / _MEMORY_DAYS, 0)
        self.mood += (
            random.normal(0, _MOOD_STEP, len(self.mood)) - 0.01 * self.mood - _MOOD_LOSS_PER_STALL * stall_exits
        )
        engaged = -_ENGAGEMENT_WEIGHT * (self.engagement_hours - _USUAL_HOURS)
        annoyed = _QUALITY_WEIGHT * self.stall_percent
        hazard = np.clip(self.platform.config.daily_hazard * np.exp(engaged + annoyed), 0, 0.5)
        was_active = self.active.copy()
        cancels = was_active & (random.random(len(hazard)) < hazard)
        next_midnight_ms = self.platform.config.start_ms + (day + 1) * DAY_MS
        at_ms = next_midnight_ms + random.integers(12 * HOUR_MS, 22 * HOUR_MS, len(hazard))
        self.active = was_active & ~cancels
        reason = np.select([annoyed > np.maximum(engaged, 0.3), engaged > 0.3], [1, 0], 2).astype(np.int8)
        return HazardDay(
            hazard=np.where(was_active, hazard, 0.0),
            engagement_hours=self.engagement_hours.copy(),
            stall_percent=self.stall_percent.copy(),
            active=was_active,
            cancel_ms=np.where(cancels, at_ms, NEVER),
            reason=reason,
        )

    def _use(self, activity: DayActivity | None) -> tuple[NDArray[np.float64], ...]:
        """Per household: milliseconds watched and stalled, playbacks left because of a stall."""
        if activity is None:
            return (np.zeros(len(self.active)),) * 3
        household = self.platform.viewers.household[activity.playbacks["viewer"]]
        names = ("watched_ms", "stalled_ms", "left_by_stall")
        return tuple(
            np.bincount(household, activity.playbacks[name], len(self.active)).astype(np.float64) for name in names
        )
