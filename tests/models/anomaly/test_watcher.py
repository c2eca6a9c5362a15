import json

import numpy as np
import pytest

from models.anomaly.baseline import DAY_MS, HOUR_MS
from models.anomaly.incidents import Alarm, Incident, detection, incidents_of_simulation
from models.anomaly.novelty import NoveltyConfig
from models.anomaly.watcher import Alert, WatchConfig, Watcher
from models.errors import ConfigurationError

START_MS = 1_772_409_600_000
STEP_MS = 15 * 60_000
CONFIG = WatchConfig(step_ms=STEP_MS, quiet_ms=4 * HOUR_MS, alarms_a_day=0.2)
AKAMAI = {"cdn": "akamai", "region": "GB"}
INCIDENT = Incident(START_MS + 24 * DAY_MS, START_MS + 24 * DAY_MS + 6 * HOUR_MS, "akamai/GB")


def stalls(days: int, seed: int, incident: Incident | None = None) -> list[tuple[int, float]]:
    """Stalls per hour watched, worst in the evenings, noisy; twelve times as many in an incident."""
    random = np.random.default_rng(seed)
    values = []
    for at_ms in range(START_MS, START_MS + days * DAY_MS, STEP_MS):
        evening = np.exp(-(((at_ms % DAY_MS) / HOUR_MS - 21) ** 2) / 8)
        rate = (0.5 + evening) * float(random.gamma(40, 1 / 40))
        is_broken = incident is not None and incident.start_ms <= at_ms < incident.end_ms
        values.append((at_ms, rate * (12 if is_broken else 1)))
    return values


def watch(watcher: Watcher, values: list[tuple[int, float]], segment: dict[str, str]) -> list[Alert]:
    alerts = (watcher.observe("rebuffer_frequency", segment, at_ms, value) for at_ms, value in values)
    return [alert for alert in alerts if alert is not None]


def test_an_incident_is_told_at_once_of_its_segment_and_false_alarms_are_as_few_as_asked() -> None:
    watcher = Watcher(CONFIG)
    alerts = {"akamai/GB": watch(watcher, stalls(28, 1, INCIDENT), AKAMAI), "fastly": watch(watcher, stalls(28, 2), {
        "cdn": "fastly"})}  # fmt: skip
    first = next(alert for alert in alerts["akamai/GB"] if alert.at_ms >= INCIDENT.start_ms)
    assert first.at_ms - INCIDENT.start_ms <= STEP_MS
    assert first.severity == "critical"
    assert first.low < first.expected < first.high < first.value
    assert first.segment == (("cdn", "akamai"), ("region", "GB"))
    assert "critical: rebuffer_frequency of cdn akamai, region GB is" in first.words
    told = [Alarm(alert.at_ms, segment) for segment, ones in alerts.items() for alert in ones]
    found = detection([INCIDENT], told, watched_ms=(START_MS + 7 * DAY_MS, START_MS + 28 * DAY_MS), segments=2)
    assert found.recall == 1
    assert found.median_delay_ms <= STEP_MS
    assert found.false_alarms_a_day < 2 * CONFIG.alarms_a_day
    assert len([alert for alert in alerts["akamai/GB"] if alert.at_ms in range(INCIDENT.start_ms, INCIDENT.end_ms)]) < 5


def test_the_future_does_not_change_an_alert() -> None:
    values = stalls(26, 1, INCIDENT)
    whole = watch(Watcher(CONFIG), values, AKAMAI)
    cut = INCIDENT.start_ms + HOUR_MS
    assert watch(Watcher(CONFIG), [one for one in values if one[0] < cut], AKAMAI) == [
        alert for alert in whole if alert.at_ms < cut
    ]


def test_a_state_goes_on_where_it_was() -> None:
    values = stalls(26, 1, INCIDENT)
    watcher = Watcher(CONFIG)
    watch(watcher, values[:2300], AKAMAI)
    resumed = Watcher.resume(json.loads(json.dumps(watcher.state())), CONFIG)
    alerts = watch(resumed, values[2300:], AKAMAI)
    assert alerts
    assert alerts == watch(watcher, values[2300:], AKAMAI)


def test_the_threshold_is_the_number_of_alarms_a_day() -> None:
    assert WatchConfig().threshold == pytest.approx(np.log10(2 * 288))
    assert WatchConfig(step_ms=HOUR_MS, alarms_a_day=0.48).threshold == pytest.approx(2)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="told apart by browser"):
        Watcher().observe("errors", {"browser": "x"}, START_MS, 1.0)
    with pytest.raises(ConfigurationError, match="step_ms 0"):
        WatchConfig(step_ms=0)
    with pytest.raises(ConfigurationError, match="lengths"):
        Watcher.resume(
            [{"metric": "m", "segment": {}, "baseline": {"format": 1, "tiles": {}}, "novelty": {"lengths": [9]}}],
            WatchConfig(novelty=NoveltyConfig()),
        )


def test_detection_by_hand() -> None:
    hour = HOUR_MS
    incidents = [Incident(10 * hour, 14 * hour, "a"), Incident(30 * hour, 32 * hour, "b")]
    alarms = [Alarm(at * hour, segment) for at, segment in (
        (5, "a"),  # false
        (11, "a"), (12, "a"),  # found after one hour; again
        (14, "a"), (15, "a"),  # its traces; false, two hours of grace are over at 16: no, at 15 they are not
        (12, "b"),  # false: another segment's incident
        (100, "a"),  # not watched any more
    )]  # fmt: skip
    found = detection(incidents, alarms, watched_ms=(0, 48 * hour), segments=3, grace_ms=2 * hour)
    assert (found.incidents, found.found, found.delays_ms, found.false_alarms) == (2, 1, (hour,), 2)
    assert found.recall == 0.5
    # 3 x 48 hours, less 4 + 2 and 2 + 2.
    assert found.days_watched == pytest.approx((144 - 10) / 24)
    assert found.false_alarms_a_day == pytest.approx(2 / (134 / 24))
    assert np.isnan(detection([], [], watched_ms=(0, 1)).recall)
    with pytest.raises(ValueError, match="must end after"):
        detection([Incident(2, 2)], [], watched_ms=(0, 9))


def test_what_the_simulator_planted_is_read() -> None:
    planted = [
        {"start_ms": 1, "end_ms": 2, "cdn": "fastly", "region": "DE", "content_id": None},
        {"start_ms": 3, "end_ms": 4, "cdn": None, "region": None, "content_id": "ch-001"},
    ]
    assert incidents_of_simulation(planted) == [Incident(1, 2, "fastly/DE"), Incident(3, 4, "ch-001")]
