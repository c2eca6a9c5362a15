"""Thousands of malformed messages among good ones: none stops ingest, each is set aside once, with the right reason."""

import json
import random
import sqlite3
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipelines.contract.events import EventSchema
from pipelines.contract.registry import open_registry
from pipelines.ingest import ingest
from pipelines.kafka.offsets import OffsetRange
from pipelines.messages import MessageDecoder
from pipelines.quarantine import unseal
from pipelines.quarantine_counts import quarantine_counts
from pipelines.replay import replay
from pipelines.report import StationReport
from pipelines.secrets import quarantine_key
from pipelines.settings import IngestSettings
from tests.pipelines.avro_bodies import judge, laid_out
from tests.pipelines.event_rows import fastavro_body, fastavro_row
from tests.pipelines.malformed import (
    Message,
    foreign,
    good,
    good_row,
    header,
    hostile,
    malformed,
    no_event_schemas,
)
from tests.platform import SALT, T0, Platform

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
SEED = 20260105
EVENTS = (
    "playback.stopped", "playback.heartbeat", "title.added", "profile.updated", "search.results", "payment.failed",
    "qoe.session_scored", "entitlement.changed",
)  # fmt: skip
# Never given by a registry that counts from 1: none, far ahead, the last of a signed number, and beyond it.
UNKNOWN_IDS = (0, 70_000, 2**31 - 1, 2**31, 2**32 - 1)
ORIGIN = ("topic", "partition", "offset")
# The contract, or the Avro specification, asks for more than fastavro does.
STRICTER = {
    "timestamp_out_of_range", "not_a_number", "malformed_boolean", "int_out_of_range", "union_index_out_of_range",
    "enum_index_out_of_range", "list_too_long", "wrong_event_name", "missing_event_id", "missing_session_id",
    "malformed_number", "event_timestamp_out_of_range",
}  # fmt: skip


@dataclass
class World(Platform):
    """A platform whose log holds malformed messages among good ones."""

    events: list[EventSchema] = field(init=False)
    ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        small = IngestSettings(messages_per_task=500, messages_per_commit=1_000)
        self.settings = self.settings.model_copy(update={"ingest": small})
        self.events = [self.contract.event(name) for name in EVENTS]
        registry = open_registry(self.settings.registry_location)
        self.ids = {event.fullname: registry.register(event.subject, event.avro_json) for event in self.events}

    def written_elsewhere(self) -> list[Message]:
        """Messages whose schemas are other people's."""
        found = []
        for event in self.events:
            row = good_row(event, 300_000)
            for one in foreign(event, row):
                value = header(self.hold(one.schema)) + one.body
                event_id = row["event_id"] if one.reason is None else None
                found.append(Message(event.topic, value, one.reason, "another registry's schema", event_id))
        for schema in no_event_schemas():
            schema_id = self.hold(schema)
            for body in (b"", b"\0", laid_out(self.events[0], good_row(self.events[0], 0)).data):
                found.append(Message("client.playback", header(schema_id) + body, "unknown_event", "no event's schema"))
        return found

    def hold(self, schema: str) -> int:
        """Have the registry hold a schema, whatever it is: its id."""
        with closing(sqlite3.connect(self.settings.registry_location)) as registry, registry:
            registry.execute("INSERT OR IGNORE INTO schema (text) VALUES (?)", (schema,))
            return int(registry.execute("SELECT id FROM schema WHERE text = ?", (schema,)).fetchone()[0])

    def send_mixed(self, bad: Sequence[Message], fine: Sequence[Message]) -> dict[bytes, Message]:
        """Send everything, each under a key of its own; by key what was sent."""
        sent: dict[bytes, Message] = {}
        for topic in sorted({one.topic for one in [*bad, *fine]}):
            spoilt, whole = ([one for one in some if one.topic == topic] for some in (bad, fine))
            for partition, messages in enumerate(_arranged(spoilt, whole)):
                keys = [_key(f"{topic} {partition} {number}", partition) for number in range(len(messages))]
                self.log.append(topic, keys, [one.value for one in messages], [T0] * len(messages))
                sent.update(zip(keys, messages, strict=True))
        return sent

    def origins(self) -> dict[bytes, tuple[str, int, int]]:
        """Where every message lies, by its key."""
        now = self.log.available(self.contract.topics)
        return {
            key: (topic, partition, offset)
            for topic, partitions in now.bounds.items()
            for partition, (start, end) in partitions.items()
            for read in self.log.read([OffsetRange(topic, partition, start, end)], 10_000)
            for key, offset in zip(read.keys, read.offsets.tolist(), strict=True)
        }


def _arranged(bad: list[Message], fine: list[Message]) -> tuple[list[Message], list[Message]]:
    """For two partitions: bad ones first, last, in turn with good ones, in a row; and one all alone on its topic."""
    if len(bad) == 1:
        return bad, []
    half, mid = len(bad) // 2, len(fine) // 2
    in_turn = [one for pair in zip(bad[:half], fine[:mid], strict=False) for one in pair]
    first = [*in_turn, *bad[min(half, mid) : half], *fine[min(half, mid) : mid], bad[-1]]
    second = [*fine[mid : mid + 2], *bad[half:-1], *fine[mid + 2 :]]
    return first, second


def _key(stem: str, partition: int) -> bytes:
    """A key that the log puts into the partition."""
    return next(key for n in range(100) if zlib.crc32(key := f"{stem} {n}".encode()) % 2 == partition)


@dataclass(frozen=True)
class Ingested:
    world: World
    sent: dict[bytes, Message]
    report: StationReport
    seconds: float

    @property
    def bad(self) -> dict[bytes, Message]:
        return {key: one for key, one in self.sent.items() if one.reason is not None}

    @property
    def good(self) -> dict[bytes, Message]:
        return {key: one for key, one in self.sent.items() if one.reason is None}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[Ingested]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REEL_SALT", SALT)
        world = World(tmp_path_factory.mktemp("malformed"))
        elsewhere = world.written_elsewhere()
        bad = malformed(world.events, world.ids, UNKNOWN_IDS, random.Random(SEED))
        bad += [one for one in elsewhere if one.reason is not None]
        bad.append(Message("ad.events", b"\0", "not_wire_format", "alone on its topic"))
        random.Random(SEED).shuffle(bad)
        fine = good(world.events, world.ids, 1_200) + [one for one in elsewhere if one.reason is None]
        sent = world.send_mixed(bad, fine)
        started = time.perf_counter()
        report = ingest(world.settings)
        yield Ingested(world, sent, report, time.perf_counter() - started)


def test_there_are_enough_of_every_kind(ingested):
    kinds = Counter(one.kind for one in ingested.bad.values())
    assert kinds.total() >= 2_000
    assert len(kinds) > 20
    assert len({one.reason for one in ingested.bad.values()}) >= 22


def test_the_run_goes_on_to_the_end(ingested):
    assert ingested.report.read["messages"] == len(ingested.sent)
    assert ingest(ingested.world.settings).read["messages"] == 0


def test_every_bad_message_is_in_quarantine_once_with_its_reason(ingested):
    origins = ingested.world.origins()
    expected = {origins[key]: (one.reason, one.kind) for key, one in ingested.bad.items()}
    rows = ingested.world.rows("quarantine.events")
    found = {tuple(row[name] for name in ORIGIN): row["reason"] for row in rows}
    assert len(found) == len(rows), "a message is there twice"
    assert found.keys() == expected.keys()
    wrong = {origin: (found[origin], *expected[origin]) for origin in found if found[origin] != expected[origin][0]}
    assert wrong == {}


def test_every_good_message_is_in_bronze_once(ingested):
    origins = ingested.world.origins()
    rows = ingested.world.rows("bronze.events", [*ORIGIN, "event_id"])
    assert Counter((tuple(row[name] for name in ORIGIN), row["event_id"]) for row in rows) == Counter(
        (origins[key], one.event_id) for key, one in ingested.good.items()
    )


def test_what_was_sealed_opens_to_what_was_sent(ingested):
    cipher = AESGCM(quarantine_key(ingested.world.settings))
    by_origin = {origin: key for key, origin in ingested.world.origins().items()}
    for row in ingested.world.rows("quarantine.events"):
        key = by_origin[tuple(row[name] for name in ORIGIN)]
        assert unseal(cipher, row["encrypted_value"]) == (ingested.sent[key].value or b"")
        assert unseal(cipher, row["encrypted_key"]) == key


def test_what_is_counted_adds_up(ingested):
    reasons = Counter(one.reason for one in ingested.bad.values())
    did = ingested.report.did
    assert {name: n for name, n in did.items() if name.startswith("set aside")} == {
        f"set aside: {reason}": n for reason, n in reasons.items()
    }
    assert sum(n for name, n in did.items() if name.startswith("admitted")) == len(ingested.good)
    counted = Counter()
    for one in quarantine_counts(ingested.world.settings):
        counted[one.topic, one.reason] += one.messages
    assert counted == Counter((one.topic, one.reason) for one in ingested.bad.values())


def test_none_of_them_becomes_good_by_trying_again(ingested):
    tables = ("bronze.events", "quarantine.events")
    before = [ingested.world.rows(name, ORIGIN) for name in tables]
    report = replay(ingested.world.settings)
    assert report.wrote == {"bronze.events": 0}
    assert report.did == {
        f"still set aside: {reason}": n for reason, n in Counter(one.reason for one in ingested.bad.values()).items()
    }
    assert [ingested.world.rows(name, ORIGIN) for name in tables] == before


def test_memory_is_bounded_by_what_was_sent_not_by_what_was_claimed(ingested):
    world = ingested.world
    values = [one.value for one in ingested.bad.values()]
    decoder = MessageDecoder(world.settings.registry_location, str(world.settings.schemas))
    decoder.decode(values[:10])  # the contract and its plans are in memory then
    pool, size = pa.default_memory_pool(), sum(len(value or b"") for value in values)
    before = pool.bytes_allocated()
    tracemalloc.start()
    decoded = decoder.decode(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(table.num_rows for _, table, _ in decoded.events) + len(decoded.bad) == len(values)
    assert peak < 3 * size + 20_000_000
    assert pool.bytes_allocated() - before < size


# ------------------------------------------------------------------------- that what judges is right about it itself


def test_bodies_are_those_of_fastavro(ingested):
    for event in ingested.world.events:
        for number in range(20):
            row = hostile(event, number) if number % 2 else good_row(event, number)
            assert laid_out(event, row).data == fastavro_body(event.avro, row)


def test_fastavro_reads_no_message_that_is_said_to_be_unreadable(ingested):
    by_id = {schema_id: event for event in ingested.world.events for schema_id in [ingested.world.ids[event.fullname]]}
    for one in ingested.bad.values():
        if one.value is None or len(one.value) < 5 or one.value[0] != 0 or one.reason in STRICTER:
            continue
        event = by_id.get(int.from_bytes(one.value[1:5], "big"))
        assert event is None or not fastavro_reads(event, one.value[5:]), (one.kind, one.reason)


def test_the_judge_agrees_with_how_a_message_was_spoilt(ingested):
    by_id = {ingested.world.ids[event.fullname]: event for event in ingested.world.events}
    for one in ingested.sent.values():
        if one.value is None or len(one.value) < 5 or one.value[0] != 0:
            continue
        event = by_id.get(int.from_bytes(one.value[1:5], "big"))
        if event is not None:
            assert judge(event, one.value[5:]) == one.reason, one.kind


def fastavro_reads(event: EventSchema, body: bytes) -> bool:
    try:
        fastavro_row(event.avro, body)
    except Exception:  # noqa: BLE001 - its kinds of failure are many
        return False
    return True


@pytest.mark.parametrize("depth", [10, 100, 200, 240, 280, 300, 320, 330, 400, 1_000, 20_000])
def test_a_schema_of_any_depth_stops_nothing(tmp_path: Path, depth: int):
    world = World(tmp_path)
    event = world.events[0]
    deep = '{"type": "record", "name": "R%d", "fields": [{"name": "f", "type": '
    nested = "".join(deep % level for level in range(depth)) + '"boolean"' + "}]}" * depth
    schema = json.dumps(event.avro)[:-2] + ', {"name": "deep", "type": ' + nested + "}]}"
    schema_id = world.hold(schema)
    decoder = MessageDecoder(world.settings.registry_location, str(world.settings.schemas))
    value = header(schema_id) + laid_out(event, good_row(event, 1)).data
    decoded = decoder.decode([value + b"\1", value, None])
    reasons = {one.index: one.reason for one in decoded.bad}
    assert reasons.pop(2) == "empty"
    if reasons.pop(0, None) is None:  # it can be read, if it is not too deep for that
        assert reasons == {1: "truncated"}
        assert sum(table.num_rows for _, table, _ in decoded.events) == 1
    else:
        assert depth > 100
        assert reasons[1] in ("incompatible_schema", "unknown_event")
