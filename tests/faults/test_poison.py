"""Messages that are no events, in every position: the others come in, and each of these is set aside once."""

import json
import struct

import pytest

from pipelines.contract.registry import open_registry
from pipelines.ingest import ingest
from tests.faults.topics import offsets

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
LENGTH = 8
# What is sent in a position, and why it is set aside.
POISON = [
    (None, "empty"),
    (b"", "empty"),
    (b"\x00\x00\x00", "not_wire_format"),
    (b"{}", "not_wire_format"),
    (struct.pack(">BI", 0, 2_000_000_000) + b"\x02\x04", "unknown_schema_id"),
]
IN_EVERY_POSITION = [{position} for position in range(LENGTH)]
PATTERNS = [*IN_EVERY_POSITION, set(range(LENGTH)), set(range(0, LENGTH, 2)), set(range(1, LENGTH, 3)), {0, LENGTH - 1}]


@pytest.mark.parametrize(
    ("per_task", "per_commit"), [(2, 24), (5, 36), (10_000, 10_000)], ids=["alone", "at boundaries", "among the others"]
)
def test_a_message_that_is_no_event_stops_nothing_wherever_it_stands(topics, make_road, per_task, per_commit):
    name = topics.make_new(partitions=len(PATTERNS))
    good = topics.messages(LENGTH)
    expected, reasons = {}, set()
    for partition, positions in enumerate(PATTERNS):
        values: list[bytes | None] = list(good)
        for position in positions:
            values[position], why = POISON[(partition + position) % len(POISON)]
            reasons.add((name, partition, position, why))
        topics.send(name, values, partition)
        expected |= offsets(name, partition, range(LENGTH))
    road = make_road(
        REEL_KAFKA_TOPICS=json.dumps([name]),
        REEL_INGEST_MESSAGES_PER_TASK=str(per_task),
        REEL_INGEST_MESSAGES_PER_COMMIT=str(per_commit),
    )
    ingest(road.settings)
    assert road.origins() == expected
    assert set(road.contents()["quarantine.events"]) == reasons


def test_a_message_that_is_no_event_between_two_versions_of_a_schema(topics, make_road):
    name = topics.make_new()
    older = topics.messages(6)
    newer_schema = json.loads(topics.event.avro_json)
    newer_schema["fields"].append({"name": "added_later", "type": "string", "default": ""})
    newer_id = open_registry(topics.registry).register(f"{name}-newer", json.dumps(newer_schema))
    # A record's body is its fields one after the other; a text of one character has the length 1, zigzag coded 2.
    newer = [struct.pack(">BI", 0, newer_id) + value[5:] + b"\x02x" for value in topics.messages(6)]
    bodiless = newer[0][:5]
    values = [older[0], None, newer[1], bodiless, older[2], b"", newer[3], newer[4], bodiless, older[5]]
    topics.send(name, values)
    road = make_road(
        REEL_KAFKA_TOPICS=json.dumps([name]), REEL_INGEST_MESSAGES_PER_TASK="3", REEL_INGEST_MESSAGES_PER_COMMIT="4"
    )
    road.ingest_and_clean()
    assert road.origins() == offsets(name, 0, range(len(values)))
    contents = road.contents()
    assert sorted(contents["silver.catalog"].values()) == [1] * 6
    set_aside = {row[2]: row[3] for row in contents["quarantine.events"]}
    assert set_aside == {1: "empty", 3: "empty_body", 5: "empty", 8: "empty_body"}
