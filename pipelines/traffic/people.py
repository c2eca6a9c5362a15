"""Whose events they are: accounts, their profiles, the profiles' devices, and the sessions on them."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contract.events import Contract, EventSchema
from pipelines.identifiers import hex_ids, splitmix64
from pipelines.traffic.config import TrafficConfig

PROFILES_PER_USER = 2
_SESSION_MS = 20 * 60_000
_MARKETS = ("US", "GB", "DE", "FR")
_DEVICES = (  # device_type, platform, os_version, connection_type, user_agent
    ("android_tv", "android_tv", "Android TV 14", "wifi", "Mozilla/5.0 (Linux; Android 14; BRAVIA 4K) Reel/2.3.1"),
    ("phone", "ios", "iOS 18.1", "cellular", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Mobile/15E148"),
    ("browser", "web", "Windows 11", "ethernet", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0"),
    ("tablet", "android", "Android 15", "wifi", "Mozilla/5.0 (Linux; Android 15; SM-X910) Chrome/131.0.0.0 Safari"),
)
_DEVICE_COLUMNS = ("device_type", "platform", "os_version", "connection_type", "user_agent")


class People:
    """Everyone there is. Profile p belongs to account p // 2 and has one device."""

    def __init__(self, config: TrafficConfig) -> None:
        chance = np.random.default_rng([config.seed, 1])
        profiles = np.arange(config.people, dtype=np.uint64)
        users = profiles // np.uint64(PROFILES_PER_USER)
        self.user = users.astype(np.int64)
        self.is_kids = chance.random(config.people) < config.kids_share
        self.refuses_analytics = (chance.random(config.people) < config.analytics_refusal)[self.user]
        self.refuses_personalization = (chance.random(config.people) < config.analytics_refusal)[self.user]
        self._viewer = {
            "user_id": hex_ids("usr_", splitmix64(users, 11)),
            "profile_id": hex_ids("prf_", splitmix64(profiles, 12)),
            "market": pa.array(_MARKETS).take(pa.array(users % np.uint64(len(_MARKETS)))),
        }
        device = pa.array(chance.integers(0, len(_DEVICES), config.people))
        self._client = {
            "device_id": hex_ids("dev_", splitmix64(profiles, 13)),
            **{
                name: pa.array(values).take(device)
                for name, values in zip(_DEVICE_COLUMNS, zip(*_DEVICES, strict=True), strict=True)
            },
            "ip": _addresses(chance.integers(0, 1 << 24, config.people)),
            "consent_analytics": pa.array(~self.refuses_analytics),
            "consent_personalization": pa.array(~self.refuses_personalization),
            "consent_ad_targeting": pa.array(chance.random(config.people) < 0.6),
        }

    def viewer(self, who: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Columns of the envelope that every event of a person has."""
        at = pa.array(who)
        return {name: values.take(at) for name, values in self._viewer.items()}

    def client(self, who: NDArray[np.int64], at_ms: NDArray[np.int64]) -> dict[str, pa.Array]:
        """What a client's event has besides: its device, where it is, its session, and what its viewer allows."""
        at = pa.array(who)
        columns = {name: values.take(at) for name, values in self._client.items()}
        columns["session_id"] = hex_ids("sess_", splitmix64(_session(who, at_ms), 14))
        columns["app_version"] = pa.repeat(pa.scalar("2.3.1"), len(who))
        return columns

    def prologue(self, contract: Contract) -> list[tuple[EventSchema, NDArray[np.int64], dict[str, pa.Array]]]:
        """What describes everyone: events, whom each row is about, and the columns that matter."""
        everyone = np.arange(len(self.user))
        accounts = everyone[::PROFILES_PER_USER]
        consents = {
            "allows_analytics": pa.array(~self.refuses_analytics[accounts]),
            "allows_personalization": pa.array(~self.refuses_personalization[accounts]),
        }
        return [
            (contract.event("profile.updated"), everyone, {"is_kids": pa.array(self.is_kids)}),
            (contract.event("consent.changed"), accounts, consents),
        ]


def playback_ids(who: NDArray[np.int64], at_ms: NDArray[np.int64]) -> pa.Array:
    """The playback somebody is in: a session has one."""
    return hex_ids("play_", splitmix64(_session(who, at_ms), 15))


def _session(who: NDArray[np.int64], at_ms: NDArray[np.int64]) -> NDArray[np.uint64]:
    slot: NDArray[np.uint64] = (who.astype(np.uint64) << np.uint64(32)) | (at_ms // _SESSION_MS).astype(np.uint64)
    return slot


def _addresses(numbers: NDArray[np.int64]) -> pa.Array:
    """Addresses of 81.0.0.0/8, which public test databases know parts of."""
    parts = np.stack((numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255), axis=1).tolist()
    return pa.array([f"81.{first}.{second}.{third}" for first, second, third in parts])
