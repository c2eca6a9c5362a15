"""The platform itself: who lives where, with which device and tastes; what there is to watch; over which network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.catalogue import ANIMATION, FAMILY, GENRES, Catalogue, Shelves, build_catalogue
from pipelines.simulator.config import UTC_OFFSET_HOURS, SimulationConfig
from pipelines.simulator.network import Network, build_network
from pipelines.simulator.streams import stream

APP_VERSIONS = ("4.9.2", "5.0.1", "5.1.0")
CONNECTIONS = ("ethernet", "wifi", "cellular")
CONNECTION_SPEED = np.array([1.3, 1.0, 0.55])
CONNECTION_STALLS = np.array([0.6, 1.0, 2.0])


@dataclass(frozen=True)
class Device:
    """A kind of device as its client describes itself, and how it is connected (shares of `CONNECTIONS`)."""

    device_type: str
    platform: str
    os_version: str
    drm_type: str
    is_mobile: bool
    connection_shares: tuple[float, float, float]

    def user_agent(self, app_version: str) -> str:
        """The header its client sends."""
        return f"ReelApp/{app_version} ({self.os_version}; {self.platform})"


DEVICES = (
    Device("android_tv", "android_tv", "Android TV 14", "widevine", False, (0.5, 0.5, 0.0)),
    Device("smart_tv", "tizen", "Tizen 8.0", "playready", False, (0.6, 0.4, 0.0)),
    Device("apple_tv", "tvos", "tvOS 18.2", "fairplay", False, (0.4, 0.6, 0.0)),
    Device("browser", "web", "Windows 11", "widevine", False, (0.3, 0.7, 0.0)),
    Device("phone", "ios", "iOS 18.3", "fairplay", True, (0.0, 0.6, 0.4)),
    Device("phone", "android", "Android 15", "widevine", True, (0.0, 0.6, 0.4)),
    Device("tablet", "android", "Android 14", "widevine", True, (0.0, 0.9, 0.1)),
)
_FIRST_ADULT_DEVICES = np.array([0.30, 0.25, 0.20, 0.10, 0.05, 0.05, 0.05])
_SECOND_ADULT_DEVICES = np.array([0.10, 0.10, 0.05, 0.20, 0.20, 0.20, 0.15])
_KIDS_DEVICES = np.array([0.15, 0.15, 0.05, 0.05, 0.05, 0.05, 0.50])


@dataclass(frozen=True)
class Households:
    """One subscriber each: user id, index of the market (= region), address."""

    user_ids: list[str]
    market: NDArray[np.int8]
    ips: list[str]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True)
class Viewers:
    """One profile each, with its own device.

    `tastes`: (viewers, genres) logits on the first day. `sessions_per_day`: mean at neutral mood. `live_share`: of
    playbacks that are live. `impatience`: chance that a stall makes the viewer leave. `clock_error_ms`: what the
    device's clock is ahead of the true time.
    """

    profile_ids: list[str]
    device_ids: list[str]
    household: NDArray[np.int32]
    is_kids: NDArray[np.bool_]
    device: NDArray[np.int8]
    app_version: NDArray[np.int8]
    connection: NDArray[np.int8]
    tastes: NDArray[np.float64]
    sessions_per_day: NDArray[np.float64]
    live_share: NDArray[np.float64]
    impatience: NDArray[np.float64]
    clock_error_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.profile_ids)


@dataclass(frozen=True)
class Platform:
    """Everything that does not change while the platform runs."""

    config: SimulationConfig
    households: Households
    viewers: Viewers
    catalogue: Catalogue
    titles: Shelves
    channels: Shelves
    network: Network

    @property
    def markets(self) -> list[str]:
        """The market codes, in the order that `Households.market` refers to."""
        return [market for market, _ in self.config.markets]

    @property
    def viewer_market(self) -> NDArray[np.int8]:
        """Index of each viewer's market."""
        return self.households.market[self.viewers.household]

    @property
    def viewer_utc_offset_hours(self) -> NDArray[np.int64]:
        """Hours each viewer's clock is ahead of UTC."""
        return np.array([UTC_OFFSET_HOURS[market] for market in self.markets])[self.viewer_market]


def build_platform(config: SimulationConfig) -> Platform:
    """Make the platform of a configuration; the same for the same configuration."""
    catalogue = build_catalogue(config)
    adults, kids = _members(config)
    households = _households(config, adults + kids)
    return Platform(
        config=config,
        households=households,
        viewers=_viewers(config, adults, kids),
        catalogue=catalogue,
        titles=Shelves(catalogue, ~catalogue.is_channel),
        channels=Shelves(catalogue, catalogue.is_channel),
        network=build_network(config),
    )


def _members(config: SimulationConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Adults (1 or 2) and kids (0, or 1 to 2 in `kids_share` of the households) per household."""
    random = stream(config.seed, "members")
    adults = 1 + (random.random(config.households) < 0.55)
    kids = np.where(random.random(config.households) < config.kids_share, random.integers(1, 3, config.households), 0)
    return adults.astype(np.int64), kids.astype(np.int64)


def _households(config: SimulationConfig, size: NDArray[np.int64]) -> Households:
    random = stream(config.seed, "households")
    weights = np.array([weight for _, weight in config.markets])
    market = random.choice(len(weights), size=config.households, p=weights / weights.sum()).astype(np.int8)
    over_ipv6 = random.random(config.households) < 0.3
    return Households(
        user_ids=[f"usr_{number:07d}" for number in range(config.households)],
        market=market,
        ips=[_address(number, bool(ipv6)) for number, ipv6 in enumerate(over_ipv6)],
        size=size,
    )


def _address(household: int, ipv6: bool) -> str:
    """An address of nobody's: 198.18.0.0/15 is for benchmarks (RFC 2544), 2001:db8::/32 for documentation."""
    if ipv6:
        return f"2001:db8:{household >> 16:x}:{household & 0xFFFF:x}::1"
    number = household % (1 << 17)
    return f"198.{18 + (number >> 16)}.{number >> 8 & 0xFF}.{number & 0xFF}"


def _viewers(config: SimulationConfig, adults: NDArray[np.int64], kids: NDArray[np.int64]) -> Viewers:
    random = stream(config.seed, "viewers")
    size = adults + kids
    count = int(size.sum())
    household = np.repeat(np.arange(config.households), size)
    member = np.arange(count) - np.repeat(np.cumsum(size) - size, size)
    is_kids = member >= adults[household]
    device_shares = np.select(
        [(member == 0)[:, None], ~is_kids[:, None]], [_FIRST_ADULT_DEVICES, _SECOND_ADULT_DEVICES], _KIDS_DEVICES
    )
    device = _pick(device_shares, random)
    tastes = random.normal(0.0, 1.3, (count, len(GENRES)))
    tastes[np.ix_(is_kids, [FAMILY, ANIMATION])] += 2.0
    hours_wrong = random.uniform(1.0, 72.0, count) * random.choice([-1.0, 1.0], count)
    clock_is_wrong = random.random(count) < config.wrong_clock_share
    return Viewers(
        profile_ids=[f"prf_{h:07d}_{m}" for h, m in zip(household.tolist(), member.tolist(), strict=True)],
        device_ids=[f"dev_{h:07d}_{m}" for h, m in zip(household.tolist(), member.tolist(), strict=True)],
        household=household.astype(np.int32),
        is_kids=is_kids,
        device=device,
        app_version=_pick(np.tile([0.1, 0.3, 0.6], (count, 1)), random),
        connection=_pick(np.array([kind.connection_shares for kind in DEVICES])[device], random),
        tastes=tastes,
        sessions_per_day=np.clip(random.lognormal(np.where(is_kids, -0.4, -0.1), 0.5), 0.1, 3.0),
        live_share=np.where(is_kids, 0.05, random.beta(1.2, 4.0, count)),
        impatience=random.uniform(0.05, 0.35, count),
        clock_error_ms=np.where(clock_is_wrong, hours_wrong * 3_600_000, 0).astype(np.int64),
    )


def _pick(shares: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int8]:
    """One index per row, by the row's shares."""
    bounds = np.cumsum(shares, axis=1)[:, :-1]
    picked: NDArray[np.int8] = (random.random((len(shares), 1)) >= bounds).sum(axis=1).astype(np.int8)
    return picked
