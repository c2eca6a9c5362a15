"""Every event and property that the platform's specification names is in the contract, and can be written and read."""

import io
import re
from dataclasses import replace
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from pipelines.contract.codec import decode, encode
from pipelines.contract.essential import LIST, essential_events
from pipelines.contract.events import Contract, EventSchema, load_contract
from pipelines.errors import ContractError
from pipelines.lakehouse.tables import bronze_events
from pipelines.settings_section import PROJECT_ROOT

CONTRACT = load_contract(PROJECT_ROOT / "configs" / "schemas")
EVENT_ROW = re.compile(r"^\| `([a-z_.]+)` \| [^|]+ \| ([^|]+) \|", re.MULTILINE)
PROPERTY = re.compile(r"([a-z_]+)(?: \(([^)]+)\))?")


@pytest.fixture(scope="session")
def spec(shared_data: Path) -> str:
    path = shared_data.parent / "spec" / "analytics-telemetry.md"
    if not path.is_file():
        pytest.skip(f"no specification at {path}")
    return path.read_text()


@pytest.mark.realdata
def test_every_client_event_with_every_property_and_value(spec):
    taxonomy = spec[spec.index("### 2.1") : spec.index("### 2.2")]
    rows = EVENT_ROW.findall(taxonomy)
    assert len(rows) == 45
    for name, properties in rows:
        event = next(one for one in CONTRACT.events if one.name == name and one.topic.startswith("client."))
        named = {column.path[-1]: column for column in event.columns}
        for wanted, note in PROPERTY.findall(properties):
            assert wanted in named, f"{name} lacks {wanted}"
            if "/" in note:
                assert set(note.split("/")) <= {*named[wanted].symbols}, f"{name}: values of {wanted}"
            if note == "bool":
                assert named[wanted].arrow == pa.bool_()


@pytest.mark.realdata
def test_every_server_topic_with_its_example_events(spec):
    rows = re.findall(r"^\| `([a-z.]+)` \| ([^|]+) \| [^|]+ \| ~([0-9,]+) msg/s \|", spec, re.MULTILINE)
    assert len(rows) == 15
    assert sum(int(rate.replace(",", "")) for _, _, rate in rows) == 102_460
    for topic, examples, _ in rows:
        events = {event.name for event in CONTRACT.events if event.topic == topic}
        dotted = {
            example for example in re.split(r",\s*", examples.strip()) if re.fullmatch(r"[a-z]+\.[a-z]+", example)
        }
        assert dotted <= events, f"{topic} lacks {dotted - events}"
        assert events
    # Those that the specification names in words.
    for topic, names in {
        "playback.heartbeats": {"session.heartbeat"},
        "user.events": {"auth.login_succeeded", "auth.login_failed", "profile.updated", "entitlement.changed"},
        "qoe.metrics": {"qoe.session_scored", "qoe.degraded"},
        "search.queries": {"search.query_submitted", "search.results_served"},
        "ai.features.updates": {"features.updated"},
        "notifications.events": {"notification.sent", "notification.delivered", "notification.clicked"},
    }.items():
        assert names <= {event.name for event in CONTRACT.events if event.topic == topic}


@pytest.mark.parametrize(
    "event", CONTRACT.events, ids=lambda event: event.fullname.removeprefix("com.platform.events.")
)
def test_what_is_written_is_what_another_decoder_reads_and_comes_back(event):
    rows = random_rows(event, 50, np.random.default_rng(5))
    bodies = encode(event, rows)
    parsed = fastavro.parse_schema(event.avro)
    for body, row in zip(bodies, rows.to_pylist(), strict=True):
        read = fastavro.schemaless_reader(io.BytesIO(body), parsed, None)
        for column in event.columns:
            assert value_at(read, column.path) == row[column.name], column.name
    decoded = decode(event.avro, bodies, event)
    assert decoded.bad == []
    assert decoded.table.equals(rows)


def random_rows(event: EventSchema, count: int, chance: np.random.Generator) -> pa.Table:
    """Rows that use every symbol, nulls where they are allowed, and lists of several lengths."""
    consents = chance.random(count) < 0.5  # the three choices are one record: all there or none
    arrays = []
    for column in event.columns:
        if column.symbols:
            values = [column.symbols[number % len(column.symbols)] for number in range(count)]
        elif pa.types.is_string(column.arrow):
            values = [f"é{number}" for number in chance.integers(0, 9, count)]
        elif pa.types.is_list(column.arrow):
            values = [[f"x{item}" for item in range(number % 4)] for number in range(count)]
        elif pa.types.is_boolean(column.arrow):
            values = (chance.random(count) < 0.5).tolist()
        elif pa.types.is_floating(column.arrow):
            values = chance.normal(0, 100, count).tolist()
        else:
            values = chance.integers(0, 2_000_000_000, count).tolist()
        if column.nullable:
            is_null = ~consents if column.path[:2] == ("envelope", "consent") else chance.random(count) < 0.3
            values = [None if null else value for null, value in zip(is_null, values, strict=True)]
        arrays.append(pa.array(values, column.arrow))
    return pa.Table.from_arrays(arrays, schema=event.arrow)


def value_at(read: object, path: tuple[str, ...]) -> object:
    for name in path:
        read = read[name] if isinstance(read, dict) else None
    return read


def test_bronze_holds_every_property_of_every_event():
    bronze = {field.name: field.type for field in bronze_events(CONTRACT, "hour").schema}
    for event in CONTRACT.events:
        for column in event.columns:
            assert column.name in bronze or column.personal == "agent"


def test_free_text_is_declared_where_people_write():
    written = {column.name for event in CONTRACT.events for column in event.columns if column.personal == "free_text"}
    assert {"query_text", "error_message", "cancel_reason", "referrer"} <= written
    assert {"active_screen", "screen_name", "referrer_screen"} <= written  # deep links may carry an address


def test_events_that_share_a_name_are_told_apart_by_their_topic():
    with pytest.raises(ContractError, match=r"is on client\.recording, recordings\.events, asked for on any"):
        CONTRACT.event("recording.scheduled")
    assert CONTRACT.event("recording.scheduled", "recordings.events").domain == "recordings"
    assert CONTRACT.event("recording.scheduled", "client.recording").domain == "recording"
    with pytest.raises(ContractError, match="did you mean"):
        CONTRACT.event("playback.strted")


def test_a_property_named_as_the_envelopes_has_a_column_of_its_own():
    event = CONTRACT.event("recording.scheduled", "client.recording")
    columns = {column.name: column.path for column in event.columns}
    assert columns["source"] == ("envelope", "source")
    assert columns["recording_source"] == ("source",)


def test_the_list_of_essential_events_and_the_schemas_agree(tmp_path):
    essential = essential_events(CONTRACT)
    assert {"consent.changed", "profile.updated", "user.deleted", "session.created", "auth.login_failed"} <= essential
    assert not {name for name in essential if name.startswith(("playback.", "purchase", "subscription."))}
    shorter, longer = tmp_path / "shorter.yaml", tmp_path / "longer.yaml"
    shorter.write_text(LIST.read_text().replace("  - user.deleted", "  # user.deleted"))
    longer.write_text(LIST.read_text() + "  - playback.started\n")
    with pytest.raises(ContractError, match=r"declare user\.deleted essential, but .*shorter\.yaml does not list"):
        essential_events(CONTRACT, shorter)
    with pytest.raises(ContractError, match=r"longer\.yaml lists playback\.started, which no schema declares"):
        essential_events(CONTRACT, longer)


def test_a_name_on_two_topics_is_essential_on_both_or_on_none():
    changed = CONTRACT.event("notification.clicked", "notifications.events")
    events = [replace(event, consent_category="essential") if event is changed else event for event in CONTRACT.events]
    with pytest.raises(ContractError, match=r"notification\.clicked is essential on one topic and not on another"):
        essential_events(Contract(tuple(events)))
