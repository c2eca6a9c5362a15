"""What the simulator plants in its delivery networks is told within an hour, and little else is told."""

import numpy as np

from models.anomaly.baseline import DAY_MS, HOUR_MS
from models.anomaly.incidents import Alarm, detection, incidents_of_simulation
from models.anomaly.watcher import WatchConfig, Watcher
from pipelines.simulator.config import SimulationConfig
from pipelines.simulator.network import CDNS, build_network

HOURS_WATCHED = 60.0  # by all viewers of a network in a region, each hour
ALARMS_A_DAY = 1 / 7  # that a segment may raise


def test_planted_degradations_are_told_at_once_again_and_again() -> None:
    config = SimulationConfig(days=42, seed=1, anomalies_per_week=2)
    network, random = build_network(config), np.random.default_rng(1)
    markets = [market for market, _ in config.markets]
    watcher = Watcher(WatchConfig(step_ms=HOUR_MS, alarms_a_day=ALARMS_A_DAY, quiet_ms=12 * HOUR_MS))
    alarms = []
    for day in range(config.days):
        stalls = random.poisson(network.quality(day).stalls_per_hour * HOURS_WATCHED) / HOURS_WATCHED
        for hour in range(24):
            at_ms = config.start_ms + day * DAY_MS + hour * HOUR_MS
            for (cdn, region), value in zip(np.ndindex(stalls.shape[:2]), stalls[..., hour].flat, strict=True):
                segment = {"cdn": CDNS[cdn], "region": markets[region]}
                if watcher.observe("stalls_per_hour", segment, at_ms, value):
                    alarms.append(Alarm(at_ms, f"{CDNS[cdn]}/{markets[region]}"))
    planted = incidents_of_simulation([anomaly.to_json() for anomaly in network.anomalies])
    found = detection(
        [incident for incident in planted if "/" in incident.segment],
        alarms,
        watched_ms=(config.start_ms + 7 * DAY_MS, config.start_ms + config.days * DAY_MS),
        segments=len(CDNS) * len(markets),
        grace_ms=6 * HOUR_MS,
    )
    assert found.incidents >= 8
    assert found.recall >= 0.9
    assert found.median_delay_ms == 0, "the hour that it begins in"
    assert found.false_alarms_a_day <= ALARMS_A_DAY
