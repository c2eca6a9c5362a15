"""The event contract: what the shipped schemas say, and that a contradiction among schemas is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.contract.events import Contract, load_contract
from pipelines.errors import ContractError

CONFIGS = Path(__file__).parents[3] / "configs"
UTC_MS = pa.timestamp("ms", tz="UTC")
ENVELOPE = [
    ("event_id", pa.string(), False),
    ("event_name", pa.string(), False),
    ("event_timestamp", UTC_MS, False),
    ("client_timestamp", UTC_MS, True),
    ("source", pa.string(), False),
    *[(name, pa.string(), True) for name in ("user_id", "profile_id", "session_id", "device_id", "device_type")],
    *[(name, pa.string(), True) for name in ("platform", "market", "app_version", "os_version", "connection_type")],
    *[(name, pa.string(), True) for name in ("ip", "user_agent")],
    *[(f"consent_{name}", pa.bool_(), True) for name in ("analytics", "personalization", "ad_targeting")],
]
# Spec 2.1 and 3.1: the properties of each event, in order (with playback_id, which the platform adds).
PROPERTIES = {
    "playback.requested": "content_id content_type referrer playback_id",
    "playback.started": "content_id content_type start_time_ms initial_bitrate_kbps initial_resolution cdn drm_type "
    "playback_id",
    "playback.heartbeat": "content_id content_type position_ms bitrate_kbps resolution buffer_length_ms dropped_frames "
    "cdn playback_id",
    "playback.paused": "content_id position_ms content_type playback_id",
    "playback.resumed": "content_id content_type position_ms pause_duration_ms playback_id",
    "playback.seeked": "content_id content_type from_position_ms to_position_ms seek_method playback_id",
    "playback.quality_changed": "content_id content_type old_bitrate_kbps new_bitrate_kbps old_resolution "
    "new_resolution reason playback_id",
    "playback.rebuffer": "content_id content_type position_ms rebuffer_duration_ms bitrate_at_rebuffer playback_id",
    "playback.error": "content_id content_type error_code error_message error_category position_ms playback_id",
    "playback.stopped": "content_id content_type position_ms total_duration_ms completion_percent stop_reason "
    "playback_id",
    "tile.impression": "content_id tile_position rail_id thumbnail_variant is_personalized",
    "tile.click": "content_id tile_position rail_id time_to_click_ms",
    "app.launch": "launch_type launch_duration_ms",
    "app.background": "session_duration_ms active_screen",
    "app.foreground": "background_duration_ms",
    "profile.updated": "is_kids maturity_rating",
    "consent.changed": "allows_analytics allows_personalization allows_ad_targeting",
    "user.deleted": "",
    "subscription.cancelled": "cancel_reason",
    "title.added": "content_id title content_type genres runtime_ms maturity_rating series_id episode_number",
}


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(CONFIGS / "schemas")


def test_every_event_has_the_envelope_and_its_properties(contract: Contract) -> None:
    own = {event.name: " ".join(event.arrow.names[len(ENVELOPE) :]) for event in contract.events}
    assert {name: own[name] for name in PROPERTIES} == PROPERTIES
    for event in contract.events:
        assert [(f.name, f.type, f.nullable) for f in event.arrow][: len(ENVELOPE)] == ENVELOPE


def test_names_topics_and_types(contract: Contract) -> None:
    heartbeat = contract.event("playback.heartbeat")
    assert heartbeat.fullname == "com.platform.events.playback.PlaybackHeartbeat"
    assert (heartbeat.topic, heartbeat.domain) == ("client.playback", "playback")
    assert heartbeat.subject == "client.playback-com.platform.events.playback.PlaybackHeartbeat"
    assert contract.by_fullname(heartbeat.fullname) is heartbeat
    assert heartbeat.symbols == {
        "source": ("CLIENT", "SERVER"),
        "content_type": ("live", "vod", "catchup", "startover", "pvr"),
    }
    types = {f.name: f.type for event in contract.events for f in event.arrow}
    assert types["position_ms"] == pa.int64()
    assert types["bitrate_kbps"] == pa.int32()
    assert types["completion_percent"] == pa.float64()
    assert types["genres"] == pa.list_(pa.string())
    assert types["is_kids"] == pa.bool_()
    assert len(contract.topics) == 24
    assert {"catalog.changes", "client.playback", "user.events", "qoe.metrics"} <= set(contract.topics)


def test_the_envelope_says_what_of_it_is_personal(contract: Contract) -> None:
    for event in contract.events:
        assert {c.name: c.personal for c in event.columns if c.path[0] == "envelope" and c.personal} == {
            **dict.fromkeys(("user_id", "profile_id", "session_id", "device_id"), "identifier"),
            "ip": "address",
            "user_agent": "agent",
        }


def test_every_doc_says_what_is_allowed(contract: Contract) -> None:
    said_of_numbers = re.compile(
        r"or more|above 0|below 0|at most|\b0 .*to \d|1970 to|counted from|since 1970|in the same unit|ratios 0 to 1"
    )
    for column in (column for event in contract.events for column in event.columns):
        if column.symbols:
            assert all(symbol in column.doc for symbol in column.symbols), column
        elif pa.types.is_boolean(column.arrow):
            assert "true if" in column.doc or "true for" in column.doc or "true on" in column.doc, column
        elif not (pa.types.is_string(column.arrow) or pa.types.is_list(column.arrow)):
            assert said_of_numbers.search(column.doc), column


def test_the_registered_text_is_self_contained_and_stable(contract: Contract) -> None:
    again = load_contract(CONFIGS / "schemas")
    for event in contract.events:
        assert json.loads(event.avro_json) == event.avro
        assert event.avro_json == again.by_fullname(event.fullname).avro_json


def test_unknown_names_are_refused_with_the_known_ones(contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"no event 'playback\.start'.*playback\.started"):
        contract.event("playback.start")
    with pytest.raises(ContractError, match="no event with the Avro record 'Nobody'"):
        contract.by_fullname("Nobody")


Change = Callable[[dict[str, Any]], None]


def field(which: str, **changed: Any) -> Change:
    def change(schema: dict[str, Any]) -> None:
        next(each for each in schema["fields"] if each["name"] == which).update(changed)

    return change


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("playback/PlaybackPaused", lambda s: s.update(name="Other"), "declares .*Other, but its path says .*Paused"),
        ("playback/PlaybackPaused", lambda s: s.pop("event_name"), "lacks event_name"),
        (
            "playback/PlaybackPaused",
            lambda s: s.update(event_name="playback.resumed"),
            r"Resumed.avsc: event_name 'playback.resumed' of client.playback is already that of .*Paused.avsc",
        ),
        ("playback/PlaybackPaused", field("position_ms", doc=""), "field 'position_ms' has no doc"),
        ("playback/PlaybackSeeked", lambda s: s["fields"][5]["type"].pop("doc"), "SeekMethod has no doc"),
        (
            "playback/PlaybackPaused",
            field("position_ms", type="int"),
            "Paused.avsc: 'position_ms' is int32, but int64 in",
        ),
        (
            "playback/PlaybackPaused",
            field("content_type", type={"type": "enum", "name": "PlaybackPaused", "symbols": ["live"], "doc": "x"}),
            "PlaybackPaused is defined twice",
        ),
        ("playback/PlaybackPaused", lambda s: s.update(consent_category="some"), "is one of essential, .*'some'"),
        ("playback/PlaybackPaused", lambda s: s.pop("owner"), "lacks owner"),
        ("playback/PlaybackPaused", field("position_ms", personal="much"), "personal is one of identifier, .*'much'"),
        (
            "playback/PlaybackPaused",
            field("position_ms", type="com.platform.events.common.Nil"),
            "is neither Avro's nor",
        ),
        ("playback/PlaybackPaused", field("position_ms", type="bytes"), "has the type 'bytes'; a column is one of"),
        ("playback/PlaybackPaused", field("position_ms", type=["null", "long"]), "with default null"),
        ("playback/PlaybackPaused", field("position_ms", name="playback_id"), "same column: playback_id"),
        ("common/ContentType", lambda s: s.update(type="map"), "expected an Avro record or enum"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, file: str, change: Change, message: str) -> None:
    folder = tmp_path / "schemas"
    shutil.copytree(CONFIGS / "schemas", folder)
    path = folder / f"{file}.avsc"
    schema = json.loads(path.read_text())
    change(schema)
    path.write_text(json.dumps(schema))
    with pytest.raises(ContractError, match=message):
        load_contract(folder)


def test_what_is_no_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no event schemas in"):
        load_contract(tmp_path / "nowhere")
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "Torn.avsc").write_text("{")
    with pytest.raises(ContractError, match=r"Torn\.avsc: not JSON"):
        load_contract(tmp_path)
