"""Anomalies against the simulator's truth: how many planted degradations are told, beside who knows every true rate.

Protocol: delivery networks of several simulated platforms (`pipelines.simulator.network`), seen as counts of stalls by
network, region and hour, drawn around their true rates. In a degradation stalls are twelve times as many for six
hours. The watcher (`models.anomaly.watcher`) is told one value after another and may raise one alarm a week and
segment; the first week, in which it has nothing to compare with, does not count.

The oracle knows the rate that each hour has without degradations, and tells every count whose chance is below the same
budget, as long after its last alarm. Its recall is the best that anybody could have. A `config.json` of
`SimulationConfig` settings in the folder simulates other platforms.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from models.anomaly.baseline import DAY_MS, HOUR_MS
from models.anomaly.incidents import Alarm, Detection, detection, incidents_of_simulation
from models.anomaly.watcher import WatchConfig, Watcher
from models.intervals import bootstrap_means
from pipelines.simulator.config import SimulationConfig
from pipelines.simulator.network import CDNS, build_network

MAKES_ITS_DATA = True
"""Nothing is read from a folder but settings, if there is one."""
CONFIG = SimulationConfig(days=42, anomalies_per_week=2)
PLATFORMS = 5
HOURS_WATCHED = 60.0  # by all viewers of a network in a region, each hour
ALARMS_A_DAY = 1 / 7  # that a segment may raise
QUIET_MS, GRACE_MS = 12 * HOUR_MS, 6 * HOUR_MS
SEED = 17


def judge(folder: Path) -> dict[str, Any]:
    """Recall, delay and false alarms of the watcher and of the oracle; the one's recall as a share of the other's."""
    settings = folder / "config.json"
    config = replace(CONFIG, **json.loads(settings.read_text())) if settings.exists() else CONFIG
    found = [watched(replace(config, seed=config.seed + number)) for number in range(PLATFORMS)]
    ways = {"watcher": [mine for mine, _ in found], "oracle": [theirs for _, theirs in found]}
    recalls = {name: _recalls(some) for name, some in ways.items()}
    platforms = np.repeat(np.arange(PLATFORMS), [one.incidents for one in ways["watcher"]])
    intervals = bootstrap_means(np.stack(list(recalls.values()), axis=1), platforms, SEED)
    figures: dict[str, Any] = {"incidents": len(platforms)}
    for (name, some), interval in zip(ways.items(), intervals, strict=True):
        delays = [delay for one in some for delay in one.delays_ms]
        figures[name] = {
            "recall": [round(x, 4) for x in (interval.mean, interval.low, interval.high)],
            "median_delay_h": float(np.median(delays)) / HOUR_MS if delays else None,
            "false_alarms_a_day": round(
                sum(one.false_alarms for one in some) / sum(one.days_watched for one in some), 4
            ),
        }
    return {**figures, "recall_of_oracles": round(float(recalls["watcher"].mean() / recalls["oracle"].mean()), 4)}


def watched(config: SimulationConfig) -> tuple[Detection, Detection]:
    """What the watcher and the oracle make of the stalls of one platform."""
    watcher = Watcher(WatchConfig(step_ms=HOUR_MS, alarms_a_day=ALARMS_A_DAY, quiet_ms=QUIET_MS))
    alarms: dict[str, list[Alarm]] = {"watcher": [], "oracle": []}
    last_ms: dict[str, int] = {}
    for at_ms, segment, count, usual in _counts(config):
        name = f"{segment['cdn']}/{segment['region']}"
        if watcher.observe("stalls_per_hour", segment, at_ms, count / HOURS_WATCHED):
            alarms["watcher"].append(Alarm(at_ms, name))
        is_strange = poisson.sf(count - 1, usual) < ALARMS_A_DAY / 24
        if is_strange and at_ms - last_ms.get(name, -QUIET_MS) >= QUIET_MS:
            alarms["oracle"].append(Alarm(at_ms, name))
            last_ms[name] = at_ms
    planted = incidents_of_simulation([anomaly.to_json() for anomaly in build_network(config).anomalies])
    mine, theirs = (
        detection(
            [incident for incident in planted if "/" in incident.segment],
            told,
            watched_ms=(config.start_ms + 7 * DAY_MS, config.start_ms + config.days * DAY_MS),
            segments=len(CDNS) * len(config.markets),
            grace_ms=GRACE_MS,
        )
        for told in alarms.values()
    )
    return mine, theirs


def _counts(config: SimulationConfig) -> Iterator[tuple[int, dict[str, str], int, float]]:
    """(instant, segment, stalls, what is expected without degradations) of every hour, in order."""
    network, random = build_network(config), np.random.default_rng(config.seed)
    well = replace(network, anomalies=())
    markets = [market for market, _ in config.markets]
    for day in range(config.days):
        stalls = random.poisson(network.quality(day).stalls_per_hour * HOURS_WATCHED)
        usual = well.quality(day).stalls_per_hour * HOURS_WATCHED
        for hour in range(24):
            for cdn, region in np.ndindex(stalls.shape[:2]):
                segment = {"cdn": CDNS[cdn], "region": markets[region]}
                at_ms = config.start_ms + day * DAY_MS + hour * HOUR_MS
                yield at_ms, segment, int(stalls[cdn, region, hour]), float(usual[cdn, region, hour])


def _recalls(found: list[Detection]) -> npt.NDArray[np.float64]:
    """[incidents] 1 for each that was told, else 0, platform by platform."""
    return np.concatenate([np.arange(one.incidents) < one.found for one in found]).astype(np.float64)
