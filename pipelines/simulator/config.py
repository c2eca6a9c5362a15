"""What a simulated platform is like: its size, its people and how badly its clients behave."""

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime

from pipelines.errors import SimulationConfigError

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

UTC_OFFSET_HOURS = {"US": -5, "CA": -5, "BR": -3, "GB": 0, "PT": 0, "DE": 1, "ES": 1, "FR": 1, "IT": 1, "JP": 9}
"""Markets that can be simulated, with the hours their clocks are ahead of UTC (standard time)."""

_AT_LEAST = {
    "households": 1,
    "days": 1,
    "seed": 0,
    "titles": 10,
    "channels": 2,
    "heartbeat_s": 1,
    "anomalies_per_week": 0,
}
_SHARES = (
    "kids_share",
    "analytics_refusal",
    "personalization_refusal",
    "ad_targeting_refusal",
    "consent_change_rate",
    "daily_hazard",
    "resend_rate",
    "late_session_rate",
    "wrong_clock_share",
    "rubbish_rate",
    "missing_session_rate",
)


@dataclass(frozen=True)
class SimulationConfig:
    """A platform to simulate. Equal configurations give byte-identical events, however they are sliced into batches.

    Sizes: `households`, `days` from `start` (UTC midnight), `titles` on demand, live `channels`; `batch_hours` is the
    slice of time a batch holds (a divisor of 24), `heartbeat_s` the seconds of play between two heartbeats.
    People: `markets` as (ISO 3166-1 code, weight), `kids_share` of households with children, the shares who refuse
    each purpose at the start, `consent_change_rate` per household and day, `taste_drift` as the standard deviation of
    a day's step of every taste (logits), `daily_hazard` of cancelling for a household of mean engagement.
    Mischief: shares of events resent, of sessions on mobile devices delivered late, of devices with wrong clocks;
    rubbish messages and events without a session as a share of all client events; `anomalies_per_week` of each kind.

    Raises:
        SimulationConfigError: a value is out of its range.
    """

    households: int = 200
    days: int = 28
    seed: int = 7
    start: date = date(2026, 1, 5)
    titles: int = 400
    channels: int = 12
    batch_hours: int = 24
    heartbeat_s: int = 30
    markets: tuple[tuple[str, float], ...] = (("US", 0.40), ("GB", 0.25), ("DE", 0.20), ("FR", 0.15))
    kids_share: float = 0.30
    analytics_refusal: float = 0.06
    personalization_refusal: float = 0.08
    ad_targeting_refusal: float = 0.35
    consent_change_rate: float = 0.003
    taste_drift: float = 0.04
    daily_hazard: float = 0.004
    resend_rate: float = 0.01
    late_session_rate: float = 0.03
    wrong_clock_share: float = 0.01
    rubbish_rate: float = 0.0005
    missing_session_rate: float = 0.0002
    anomalies_per_week: int = 1

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise SimulationConfigError(name, getattr(self, name), f"a whole number of at least {least}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise SimulationConfigError(name, getattr(self, name), "a share from 0 to 1")
        if self.taste_drift < 0:
            raise SimulationConfigError("taste_drift", self.taste_drift, "a standard deviation of at least 0")
        if self.batch_hours < 1 or 24 % self.batch_hours:
            raise SimulationConfigError("batch_hours", self.batch_hours, "a divisor of 24")
        if not self.markets or any(weight <= 0 for _, weight in self.markets):
            raise SimulationConfigError("markets", self.markets, "one or more markets with weights above 0")
        unknown = [market for market, _ in self.markets if market not in UTC_OFFSET_HOURS]
        if unknown:
            raise SimulationConfigError("markets", unknown, f"markets out of {', '.join(sorted(UTC_OFFSET_HOURS))}")

    @property
    def start_ms(self) -> int:
        """The first day's midnight, UTC, in milliseconds."""
        return int(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC).timestamp()) * 1000

    @property
    def end_ms(self) -> int:
        """The midnight after the last day."""
        return self.start_ms + self.days * DAY_MS

    def to_json(self) -> dict[str, object]:
        """Every setting by name, for the record beside the truth."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"start": self.start.isoformat(), "markets": dict(self.markets)}
