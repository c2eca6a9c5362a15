"""From numbers and codes to the flat Arrow tables of the contract, without one Python object per row."""

from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.event_batch import ENVELOPE, TIMESTAMP
from pipelines.identifiers import event_ids, hex_ids, splitmix64
from pipelines.simulator.accounts import AD_TARGETING, ANALYTICS, CANCEL_REASONS, PERSONALIZATION
from pipelines.simulator.behaviour import LAUNCH_TYPES, SCREENS
from pipelines.simulator.catalogue import KIDS_RATINGS, RATINGS
from pipelines.simulator.choice import CONTENT_TYPES, LIVE, RAILS, REFERRERS, THUMBNAILS, VOD
from pipelines.simulator.columns import Columns, length
from pipelines.simulator.network import CDNS
from pipelines.simulator.platform import APP_VERSIONS, CONNECTIONS, DEVICES, Platform
from pipelines.simulator.play import ERRORS, LADDER_KBPS, RESOLUTIONS, SEEK_METHODS, STOP_REASONS
from pipelines.simulator.signals import QUERIES, TUNE_AWAY_REASONS

# Of an account, not of one of its profiles.
ACCOUNT_EVENTS = ("subscription.cancelled", "auth.login_succeeded", "support.contacted", "payment.failed")
SERVER_EVENTS = ("title.added", "profile.updated", "consent.changed", *ACCOUNT_EVENTS)

_CONTENT = {"content_id": ("content", "content_id"), "content_type": ("content_type", "content_type")}
_PLAYBACK = _CONTENT | {"playback_id": ("number", "playback_id")}
_POSITION = {"position_ms": ("position_ms", pa.int64())}
_TILE = {
    "content_id": ("content", "content_id"),
    "tile_position": ("tile_position", pa.int32()),
    "rail_id": ("rail", "rail"),
}
_BITS = {"analytics": ANALYTICS, "personalization": PERSONALIZATION, "ad_targeting": AD_TARGETING}

PROPERTIES: dict[str, dict[str, tuple[str, str | pa.DataType]]] = {
    "playback.requested": _PLAYBACK | {"referrer": ("referrer", "referrer")},
    "playback.started": _PLAYBACK
    | {
        "start_time_ms": ("start_delay_ms", pa.int64()),
        "initial_bitrate_kbps": ("initial_level", "bitrate"),
        "initial_resolution": ("initial_level", "resolution"),
        "cdn": ("cdn", "cdn"),
        "drm_type": ("viewer", "drm_type"),
    },
    "playback.heartbeat": _PLAYBACK
    | _POSITION
    | {
        "bitrate_kbps": ("level", "bitrate"),
        "resolution": ("level", "resolution"),
        "buffer_length_ms": ("buffer_length_ms", pa.int64()),
        "dropped_frames": ("dropped_frames", pa.int32()),
        "cdn": ("cdn", "cdn"),
    },
    "playback.paused": _PLAYBACK | _POSITION,
    "playback.resumed": _PLAYBACK | _POSITION | {"pause_duration_ms": ("duration_ms", pa.int64())},
    "playback.seeked": _PLAYBACK
    | {
        "from_position_ms": ("from_position_ms", pa.int64()),
        "to_position_ms": ("to_position_ms", pa.int64()),
        "seek_method": ("seek_method", "seek_method"),
    },
    "playback.quality_changed": _PLAYBACK
    | {
        "old_bitrate_kbps": ("from_level", "bitrate"),
        "new_bitrate_kbps": ("to_level", "bitrate"),
        "old_resolution": ("from_level", "resolution"),
        "new_resolution": ("to_level", "resolution"),
        "reason": ("by_user", "switch_reason"),
    },
    "playback.rebuffer": _PLAYBACK
    | _POSITION
    | {"rebuffer_duration_ms": ("duration_ms", pa.int64()), "bitrate_at_rebuffer": ("level", "bitrate")},
    "playback.error": _PLAYBACK
    | _POSITION
    | {
        "error_code": ("error", "error_code"),
        "error_message": ("error", "error_message"),
        "error_category": ("error", "error_category"),
    },
    "playback.stopped": _PLAYBACK
    | _POSITION
    | {
        "total_duration_ms": ("total_ms", pa.int64()),
        "completion_percent": ("completion_percent", pa.float64()),
        "stop_reason": ("stop_reason", "stop_reason"),
    },
    "tile.impression": _TILE
    | {"thumbnail_variant": ("thumbnail", "thumbnail"), "is_personalized": ("rail", "is_personalized")},
    "tile.click": _TILE | {"time_to_click_ms": ("time_to_click_ms", pa.int64())},
    "app.launch": {"launch_type": ("launch_type", "launch_type"), "launch_duration_ms": ("launch_ms", pa.int64())},
    "app.background": {
        "session_duration_ms": ("session_duration_ms", pa.int64()),
        "active_screen": ("screen", "screen"),
    },
    "app.foreground": {"background_duration_ms": ("background_duration_ms", pa.int64())},
    "title.added": {
        "content_id": ("content", "content_id"),
        "title": ("content", "title"),
        "content_type": ("content", "catalogue_type"),
        "genres": ("content", "genres"),
        "runtime_ms": ("content", "runtime_ms"),
        "maturity_rating": ("content", "maturity_rating"),
        "series_id": ("content", "series_id"),
        "episode_number": ("content", "episode_number"),
    },
    "profile.updated": {"is_kids": ("viewer", "is_kids"), "maturity_rating": ("viewer", "profile_rating")},
    "consent.changed": {f"allows_{purpose}": ("consent", purpose) for purpose in _BITS},
    "subscription.cancelled": {"cancel_reason": ("reason", "cancel_reason")},
    # What these say is the same of every account: that, and when, they happen is what is simulated.
    "auth.login_succeeded": {"auth_method": ("viewer", "auth_method"), "is_new_device": ("viewer", "no")},
    "support.contacted": {
        "contact_channel": ("viewer", "contact_channel"),
        "contact_topic": ("viewer", "contact_topic"),
        "is_resolved": ("viewer", "yes"),
    },
    "payment.failed": {
        "payment_failure_reason": ("viewer", "payment_failure"),
        "attempt_count": ("viewer", "one"),
        "amount": ("viewer", "price"),
        "currency": ("viewer", "currency"),
    },
    "rail.scroll": {
        "rail_id": ("rail", "rail"),
        "scroll_direction": ("direction", "scroll_direction"),
        "items_scrolled": ("items", pa.int32()),
        "scroll_depth_percent": ("depth_percent", pa.float64()),
    },
    "search.query": {
        "query_text": ("query", "query"),
        "search_type": ("conversational", "search_type"),
        "query_length": ("query_length", pa.int32()),
        "is_conversational": ("conversational", "is_conversational"),
    },
    "channel.tune": {
        "channel_id": ("content", "content_id"),
        "previous_channel_id": ("previous", "content_id"),
        "tune_source": ("source", "tune_source"),
        "tune_time_ms": ("start_delay_ms", pa.int64()),
    },
    "channel.tune_away": {
        "channel_id": ("content", "content_id"),
        "view_duration_ms": ("view_ms", pa.int64()),
        "tune_away_reason": ("away_reason", "tune_away_reason"),
    },
}
"""Per event name and property: the column it comes from, and the vocabulary to look its codes up in or its own type."""


class TableMaker:
    """Makes tables of one platform's events."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def table(self, name: str, columns: Columns) -> pa.Table:
        """The flat table of one event name; the rows keep their order.

        Codes below 0 stand for null. Server events have neither session, device, address nor consent; an account's
        (`ACCOUNT_EVENTS`) no profile, and the catalogue's no person.
        """
        rows = length(columns)
        own = {
            property_name: self._look_up(source, columns[column])
            for property_name, (column, source) in PROPERTIES[name].items()
        }
        arrays = self._envelope(name, columns, rows) | own
        schema = pa.schema([*ENVELOPE, *(pa.field(key, values.type) for key, values in own.items())])
        return pa.Table.from_arrays(list(arrays.values()), schema=schema)

    def _look_up(self, source: str | pa.DataType, values: NDArray[np.int64]) -> pa.Array:
        if not isinstance(source, str):
            return pa.array(values, type=source)
        if source == "playback_id":
            return self._scattered("pb_", values)
        return self._vocabularies[source].take(pa.array(values, mask=values < 0))

    def _scattered(self, prefix: str, numbers: NDArray[np.int64]) -> pa.Array:
        """Ids that show no order, from numbers that count on; null for numbers below 0."""
        ids = hex_ids(prefix, splitmix64(numbers.astype(np.uint64), self._platform.config.seed))
        if (numbers >= 0).all():
            return ids
        return ids.take(pa.array(np.arange(len(numbers)), mask=numbers < 0))

    def _envelope(self, name: str, columns: Columns, rows: int) -> dict[str, pa.Array]:
        is_client = name not in SERVER_EVENTS
        numbers, seed = columns["event_number"].astype(np.uint64), self._platform.config.seed
        created_ms = columns["client_ms"] if is_client else columns["receive_ms"]
        arrays = {field.name: pa.nulls(rows, field.type) for field in ENVELOPE}
        arrays |= {
            "event_id": event_ids(created_ms, splitmix64(numbers, seed + 1), splitmix64(numbers, seed + 2)),
            "event_name": pa.repeat(pa.scalar(name), rows),
            "event_timestamp": pa.array(columns["receive_ms"], TIMESTAMP),
            "source": pa.repeat(pa.scalar("CLIENT" if is_client else "SERVER"), rows),
        }
        if name == "title.added":
            return arrays
        people = ["user_id", "market"] if name in ACCOUNT_EVENTS else ["user_id", "profile_id", "market"]
        if is_client:
            people += [
                "device_id", "device_type", "platform", "app_version", "os_version",
                "connection_type", "ip", "user_agent",
            ]  # fmt: skip
            arrays["client_timestamp"] = pa.array(columns["client_ms"], TIMESTAMP)
            arrays["session_id"] = self._scattered("sess_", columns["session"])
            consent = pa.array(columns["consent"])
            arrays |= {f"consent_{purpose}": self._vocabularies[purpose].take(consent) for purpose in _BITS}
        viewer = pa.array(columns["viewer"])
        return arrays | {column: self._people[column].take(viewer) for column in people}

    @cached_property
    def _people(self) -> dict[str, pa.Array]:
        """Envelope columns that are fixed per viewer."""
        viewers, households, markets = self._platform.viewers, self._platform.households, self._platform.markets
        household, devices = pa.array(viewers.household), [DEVICES[device] for device in viewers.device]
        versions = [APP_VERSIONS[version] for version in viewers.app_version]
        return {
            "user_id": pa.array(households.user_ids).take(household),
            "profile_id": pa.array(viewers.profile_ids),
            "market": pa.array(markets).take(pa.array(self._platform.viewer_market)),
            "device_id": pa.array(viewers.device_ids),
            "device_type": pa.array([device.device_type for device in devices]),
            "platform": pa.array([device.platform for device in devices]),
            "app_version": pa.array(versions),
            "os_version": pa.array([device.os_version for device in devices]),
            "connection_type": pa.array(CONNECTIONS).take(pa.array(viewers.connection)),
            "ip": pa.array(households.ips).take(household),
            "user_agent": pa.array(
                [device.user_agent(version) for device, version in zip(devices, versions, strict=True)]
            ),
        }

    @cached_property
    def _vocabularies(self) -> dict[str, pa.Array]:
        """What codes stand for, by the names used in `PROPERTIES`."""
        catalogue, viewers = self._platform.catalogue, self._platform.viewers
        contents = range(len(catalogue.content_ids))
        devices = [DEVICES[device] for device in viewers.device]
        return {
            "content_id": pa.array(catalogue.content_ids),
            "title": pa.array(catalogue.names),
            "catalogue_type": pa.array(CONTENT_TYPES).take(pa.array(np.where(catalogue.is_channel, LIVE, VOD))),
            "genres": pa.array([catalogue.genres_of(content) for content in contents]),
            "runtime_ms": pa.array(catalogue.runtime_ms, mask=catalogue.is_channel),
            "maturity_rating": pa.array(RATINGS).take(pa.array(catalogue.rating)),
            "series_id": pa.array(
                [None if number < 0 else f"series-{number:04d}" for number in catalogue.series.tolist()]
            ),
            "episode_number": pa.array(catalogue.episode, mask=catalogue.episode == 0),
            "content_type": pa.array(CONTENT_TYPES),
            "referrer": pa.array(REFERRERS),
            "cdn": pa.array(CDNS),
            "drm_type": pa.array([device.drm_type for device in devices]),
            "bitrate": pa.array(LADDER_KBPS, pa.int32()),
            "resolution": pa.array(RESOLUTIONS),
            "seek_method": pa.array(SEEK_METHODS),
            "switch_reason": pa.array(["abr", "user_selection"]),
            "stop_reason": pa.array(STOP_REASONS),
            "error_category": pa.array(ERRORS),
            "error_code": pa.array([f"{error.upper()}_FAILED" for error in ERRORS]),
            "error_message": pa.array(
                ["licence refused", "segment timed out", "decoder stopped", "manifest not found"]
            ),
            "rail": pa.array(RAILS),
            "is_personalized": pa.array([True, False, True]),
            "thumbnail": pa.array(THUMBNAILS),
            "launch_type": pa.array(LAUNCH_TYPES),
            "screen": pa.array(SCREENS),
            "is_kids": pa.array(viewers.is_kids),
            "profile_rating": pa.array([KIDS_RATINGS[-1] if kid else RATINGS[-1] for kid in viewers.is_kids]),
            "cancel_reason": pa.array(CANCEL_REASONS),
            "scroll_direction": pa.array(["right"]),
            "query": pa.array(QUERIES),
            "search_type": pa.array(["text"]),
            "is_conversational": pa.array([False]),
            "tune_source": pa.array(["epg"]),
            "tune_away_reason": pa.array(TUNE_AWAY_REASONS),
            **{
                name: pa.repeat(value, len(viewers))
                for name, value in {
                    "auth_method": "password",
                    "contact_channel": "chat",
                    "contact_topic": "playback",
                    "payment_failure": "declined",
                    "one": pa.scalar(1, pa.int32()),
                    "price": 9.99,
                    "currency": "EUR",
                    "yes": True,
                    "no": False,
                }.items()
            },
        } | {purpose: pa.array([bool(bits & bit) for bits in range(8)]) for purpose, bit in _BITS.items()}
