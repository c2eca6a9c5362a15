"""CDNs whose quality depends on region and hour, and the windows in which something is broken."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.config import DAY_MS, HOUR_MS, UTC_OFFSET_HOURS, SimulationConfig
from pipelines.simulator.streams import stream

CDNS = ("akamai", "cloudfront", "fastly")
ROUTING_SHARES = np.array([0.5, 0.3, 0.2])
"""The chance that a playback goes over each CDN, whatever its region: known, so that other policies can be judged."""

DAY_HOURS = 32
"""Hours after a midnight for which a day's quality is given: evenings run on into the next day."""


@dataclass(frozen=True)
class Anomaly:
    """Something broken in [start_ms, end_ms): a CDN in one region (with its effect) or a channel (all plays fail)."""

    kind: str
    start_ms: int
    end_ms: int
    cdn: str | None = None
    region: str | None = None
    content_id: str | None = None
    stall_factor: float = 1.0
    throughput_factor: float = 1.0

    def to_json(self) -> dict[str, object]:
        """Every field by name."""
        return asdict(self)


@dataclass(frozen=True)
class Quality:
    """What each CDN gives in each region and hour from a midnight on; arrays (cdns, regions, DAY_HOURS)."""

    stalls_per_hour: NDArray[np.float64]
    throughput_kbps: NDArray[np.float64]
    start_ms: NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """Quality without load, arrays (cdns, regions), its sensitivity to the evening's load, and the anomalies."""

    config: SimulationConfig
    stalls_per_hour: NDArray[np.float64]
    throughput_kbps: NDArray[np.float64]
    start_ms: NDArray[np.float64]
    load_sensitivity: NDArray[np.float64]
    anomalies: tuple[Anomaly, ...]

    def quality(self, day: int) -> Quality:
        """Effects of the hours of one day: the CDN's own, times the region's load at that local hour, times anomalies.

        Load is `1 + sensitivity x exp(-((h - 21) / 2.5)^2 / 2)` at local hour h: highest at nine in the evening.
        """
        offsets = np.array([UTC_OFFSET_HOURS[market] for market, _ in self.config.markets])
        local = (np.arange(DAY_HOURS) + offsets[:, None]) % 24
        from_peak = (local - 21 + 12) % 24 - 12
        load = 1 + self.load_sensitivity[:, :, None] * np.exp(-((from_peak / 2.5) ** 2) / 2)
        stalls = self.stalls_per_hour[:, :, None] * load**2
        throughput = self.throughput_kbps[:, :, None] / load
        start = self.start_ms[:, :, None] * load
        midnight = self.config.start_ms + day * DAY_MS
        hours = midnight + np.arange(DAY_HOURS) * HOUR_MS
        markets = [market for market, _ in self.config.markets]
        for anomaly in self.anomalies:
            if anomaly.cdn is None or anomaly.region is None:
                continue
            where = (CDNS.index(anomaly.cdn), markets.index(anomaly.region))
            broken = (hours >= anomaly.start_ms) & (hours < anomaly.end_ms)
            stalls[where] *= np.where(broken, anomaly.stall_factor, 1.0)
            throughput[where] *= np.where(broken, anomaly.throughput_factor, 1.0)
        return Quality(stalls, throughput, start)


def build_network(config: SimulationConfig) -> Network:
    """Make the CDNs of a configuration and the anomalies of all its weeks."""
    random = stream(config.seed, "network")
    shape = (len(CDNS), len(config.markets))
    return Network(
        config=config,
        stalls_per_hour=random.lognormal(np.log(0.8), 0.5, shape),
        throughput_kbps=random.lognormal(np.log(9000), 0.3, shape),
        start_ms=random.lognormal(np.log(900), 0.25, shape),
        load_sensitivity=random.uniform(0.1, 0.8, shape),
        anomalies=_anomalies(config),
    )


def _anomalies(config: SimulationConfig) -> tuple[Anomaly, ...]:
    """Of each kind `anomalies_per_week`: six bad evening hours of a CDN in a region, two hours without a channel."""
    found = []
    for week in range(-(-config.days // 7)):
        random = stream(config.seed, "anomalies", week)
        length = min(7, config.days - 7 * week)
        for _ in range(config.anomalies_per_week):
            midnight = config.start_ms + (7 * week + int(random.integers(length))) * DAY_MS
            region = config.markets[int(random.integers(len(config.markets)))][0]
            start = midnight + (17 - UTC_OFFSET_HOURS[region]) % 24 * HOUR_MS
            cdn = CDNS[int(random.integers(len(CDNS)))]
            found.append(
                Anomaly(
                    "cdn_degradation",
                    start,
                    start + 6 * HOUR_MS,
                    cdn,
                    region,
                    None,
                    stall_factor=12.0,
                    throughput_factor=0.3,
                )
            )
            midnight = config.start_ms + (7 * week + int(random.integers(length))) * DAY_MS
            start = midnight + int(random.integers(10, 22)) * HOUR_MS
            channel = f"ch-{int(random.integers(config.channels)):03d}"
            found.append(Anomaly("channel_outage", start, start + 2 * HOUR_MS, content_id=channel))
    return tuple(sorted(found, key=lambda anomaly: anomaly.start_ms))
