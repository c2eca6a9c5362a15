"""A platform of a test's own: an embedded log in a temporary folder, and events written by hand."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue

from pipelines.contract.events import Contract, load_contract
from pipelines.contract.registry import open_registry
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.log import bootstrap_servers
from pipelines.kafka.produce import Producer, ensure_topics
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks, scan_tasks
from pipelines.settings import KafkaSettings, LakehouseSettings, Settings

SALT = "a salt of the tests"
T0 = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def hashed(plain: str) -> str:
    """The pseudonym spec 8.3 asks for, computed without Reel."""
    return hashlib.sha256((plain + SALT).encode()).hexdigest()


@dataclass
class Platform:
    """Settings of a temporary work_dir, and a producer into its log."""

    folder: Path
    settings: Settings = field(init=False)
    contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        salt = self.folder / "salt"
        salt.write_text(SALT)
        salt.chmod(0o600)
        self.settings = Settings(
            work_dir=self.folder,
            kafka=KafkaSettings(bootstrap_servers=f"embedded:{self.folder / 'log.db'}", partitions=2),
            lakehouse=LakehouseSettings(event_partition="month", buckets=2),
        )
        self.contract = load_contract(self.settings.schemas)
        ensure_topics(self.bootstrap, self.contract.topics, 2)

    @property
    def bootstrap(self) -> str:
        assert self.settings.kafka.bootstrap_servers is not None
        return self.settings.kafka.bootstrap_servers

    @property
    def log(self) -> EmbeddedLog:
        log = EmbeddedLog.of(self.bootstrap)
        assert log is not None
        return log

    def send(self, *events: dict[str, Any]) -> None:
        """Produce events given by `event`, in order."""
        send(self.settings, *events)

    def rows(self, table: str, columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Everything in a lakehouse table."""
        found = Lakehouse.open(self.settings).existing(table)
        if found is None or found.current_snapshot() is None:
            return []
        wanted = list(columns) if columns is not None else None
        rows: list[dict[str, Any]] = read_tasks(
            TableFiles.of(found), scan_tasks(found, AlwaysTrue()), wanted
        ).to_pylist()
        return rows


def send(settings: Settings, *events: dict[str, Any]) -> None:
    """Produce events given by `event` into the log that the settings name, in order; they have arrived on return."""
    contract = load_contract(settings.schemas)
    with Producer(bootstrap_servers(settings), contract, open_registry(settings.registry_location)) as producer:
        for one in events:
            schema = contract.event(one["event_name"])
            producer.produce(schema.name, pa.Table.from_pylist([one], schema=schema.arrow))


def event(name: str, at_ms: int, person: str | None = "ann", **columns: Any) -> dict[str, Any]:
    """An event of `person` (user `person`, profile `person-p`), who allowed everything unless `columns` says else."""
    is_client = name.partition(".")[0] in {"playback", "tile", "app", "rail", "search", "channel"}
    row: dict[str, Any] = {
        "event_id": f"evt_{uuid.UUID(int=(at_ms << 80) | (7 << 76) | uuid.uuid4().int & (1 << 60) - 1)}",
        "event_name": name,
        "event_timestamp": at_ms,
        "client_timestamp": at_ms - 100 if is_client else None,
        "source": "CLIENT" if is_client else "SERVER",
        "market": "GB",
    }
    if person is not None:
        row |= {"user_id": person, "profile_id": f"{person}-p"}
    if is_client:
        row |= {"session_id": f"{person}-session", "device_id": f"{person}-device", "platform": "web"}
        row |= dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)
    return row | columns


def described(person: str, at_ms: int = T0 - DAY, *, is_kids: bool = False) -> dict[str, Any]:
    """`profile.updated` of a person."""
    return event("profile.updated", at_ms, person, is_kids=is_kids)


def consent(person: str, at_ms: int, **allows: bool) -> dict[str, Any]:
    """`consent.changed`: everything allowed unless said else."""
    said = {"allows_analytics": True, "allows_personalization": True, "allows_ad_targeting": True} | allows
    return event("consent.changed", at_ms, person, **said)


def watched(person: str, content_id: str, at_ms: int, percent: float = 100.0, **columns: Any) -> list[dict[str, Any]]:
    """A playback of a title: started ten minutes before it stopped, at `at_ms`."""
    common = {
        "content_id": content_id,
        "content_type": "vod",
        "playback_id": f"{person}-{content_id}-{at_ms}",
    } | columns
    stopped = {
        "position_ms": 600_000,
        "total_duration_ms": 600_000,
        "completion_percent": percent,
        "stop_reason": "end_of_content",
    }
    return [
        event("playback.started", at_ms - 10 * MINUTE, person, **common),
        event("playback.stopped", at_ms, person, **common, **stopped),
    ]


def title(content_id: str, *genres: str, at_ms: int = T0 - 2 * DAY, **columns: Any) -> dict[str, Any]:
    """`title.added`."""
    return event(
        "title.added", at_ms, None, content_id=content_id, title=content_id.title(), content_type="vod",
        genres=list(genres), **columns,
    )  # fmt: skip


def looked_around(person: str, content_id: str, at_ms: int, **columns: Any) -> list[dict[str, Any]]:
    """Half an hour in the app without watching a title, and what the account's services report meanwhile."""

    def then(name: str, minute: int, **properties: Any) -> dict[str, Any]:
        return event(name, at_ms + minute * MINUTE, person, **properties | columns)

    allowed = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)
    tile = {"content_id": content_id, "tile_position": 0, "rail_id": "for_you"}
    scroll = {"rail_id": "for_you", "scroll_direction": "right", "items_scrolled": 3}
    return [
        then("auth.login_succeeded", 0, auth_method="password", is_new_device=False, **allowed),
        then("app.launch", 1, launch_type="cold", launch_duration_ms=900, device_type="phone", connection_type="wifi"),
        then("tile.impression", 2, thumbnail_variant="a", is_personalized=True, **tile),
        then("rail.scroll", 3, scroll_depth_percent=20.0, **scroll),
        then("rail.scroll", 4, scroll_depth_percent=55.5, **scroll),
        then("tile.impression", 5, thumbnail_variant="a", is_personalized=True, **tile),
        then("tile.click", 6, time_to_click_ms=700, **tile),
        then("search.query", 7, query_text="x", search_type="text", query_length=1, is_conversational=False),
        then("search.result.click", 8, query_text="x", content_id=content_id, result_position=0, time_to_click_ms=9),
        then("channel.tune", 9, channel_id="ch-1", tune_source="epg", tune_time_ms=600),
        then("channel.tune_away", 19, channel_id="ch-1", view_duration_ms=600_000, tune_away_reason="channel_change"),
        then("channel.tune", 19, channel_id="ch-2", previous_channel_id="ch-1", tune_source="epg", tune_time_ms=600),
        then("support.contacted", 25, contact_channel="chat", contact_topic="billing", is_resolved=True, **allowed),
        then("payment.failed", 26, payment_failure_reason="declined", attempt_count=1, amount=9.99, currency="EUR",
             **allowed),
    ]  # fmt: skip
