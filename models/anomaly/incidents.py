"""How soon a detector tells of incidents whose windows are known, and how often it cries wolf."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Incident:
    """Something was wrong with a segment in [start_ms, end_ms); "" stands for a metric without segments."""

    start_ms: int
    end_ms: int
    segment: str = ""


@dataclass(frozen=True)
class Alarm:
    """A segment was said to be strange at an instant."""

    at_ms: int
    segment: str = ""


@dataclass(frozen=True)
class Detection:
    """What alarms are worth against incidents."""

    incidents: int
    delays_ms: tuple[int, ...]
    """Of each incident that was found, from its start to its first alarm."""
    false_alarms: int
    days_watched: float
    """Days times segments, outside incidents and the times after them that count for nothing."""

    @property
    def found(self) -> int:
        """Incidents with an alarm."""
        return len(self.delays_ms)

    @property
    def recall(self) -> float:
        """Share of the incidents that were found; NaN without any."""
        return self.found / self.incidents if self.incidents else float("nan")

    @property
    def median_delay_ms(self) -> float:
        """NaN where none was found."""
        return float(median(self.delays_ms)) if self.delays_ms else float("nan")

    @property
    def false_alarms_a_day(self) -> float:
        """Of one segment; NaN where nothing was watched."""
        return self.false_alarms / self.days_watched if self.days_watched else float("nan")


def detection(
    incidents: Sequence[Incident],
    alarms: Sequence[Alarm],
    *,
    watched_ms: tuple[int, int],
    segments: int = 1,
    grace_ms: int = 0,
) -> Detection:
    """Alarms against incidents of the same segment.

    Args:
        incidents: of one segment they do not overlap.
        alarms: those outside `watched_ms` count for nothing.
        watched_ms: from when until when, [first, last).
        segments: how many were watched, those without an incident among them.
        grace_ms: how long after an incident's end an alarm is neither a find nor false: its traces.

    Raises:
        ValueError: an incident ends before it begins.
    """
    first_ms, last_ms = watched_ms
    for incident in incidents:
        if incident.end_ms <= incident.start_ms:
            raise ValueError(f"an incident must end after it begins: received {incident}")
    seen = [one for one in incidents if one.start_ms < last_ms and one.end_ms > first_ms]
    told = [alarm for alarm in alarms if first_ms <= alarm.at_ms < last_ms]
    delays = []
    for one in seen:
        inside = [a.at_ms for a in told if a.segment == one.segment and one.start_ms <= a.at_ms < one.end_ms]
        if inside:
            delays.append(min(inside) - one.start_ms)
    false = sum(
        not any(a.segment == one.segment and one.start_ms <= a.at_ms < one.end_ms + grace_ms for one in seen)
        for a in told
    )
    excused_ms = sum(min(one.end_ms + grace_ms, last_ms) - max(one.start_ms, first_ms) for one in seen)
    days = (segments * (last_ms - first_ms) - excused_ms) / DAY_MS
    return Detection(len(seen), tuple(delays), false, days)


def incidents_of_simulation(anomalies: Sequence[dict[str, object]]) -> list[Incident]:
    """What the simulator planted, `truth/anomalies.json`: a segment is "CDN/region" or a channel's content id."""
    found = []
    for planted in anomalies:
        segment = planted["content_id"] or f"{planted['cdn']}/{planted['region']}"
        found.append(Incident(int(str(planted["start_ms"])), int(str(planted["end_ms"])), str(segment)))
    return found
