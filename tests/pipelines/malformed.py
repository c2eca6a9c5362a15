"""Messages that are no events, each with the reason it must be set aside for, told by how it was spoilt."""

import gzip
import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipelines.contract.events import EventSchema
from tests.pipelines.avro_bodies import END_MS, FIRST_MS, INT32, INT64, LONGEST_LIST, Body, judge, laid_out, varint
from tests.pipelines.event_rows import Row, example_row

YEAR_0_MS, YEAR_2100_MS, YEAR_9999_MS = -62_167_219_200_000, 4_102_444_800_000, 253_402_300_799_999

BAD_TEXTS = (b"\xff", b"\x80", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80")
CONSENTS = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)


@dataclass(frozen=True)
class Message:
    """What is sent: on which topic, and what must become of it: a reason, or None for a good one."""

    topic: str
    value: bytes | None
    reason: str | None
    kind: str
    event_id: str | None = None


# ------------------------------------------------------------------------------------------------- how it was spoilt

Spoilt = Iterator[tuple[str, bytes, str]]
"""Of one good body: in what way it was spoilt, the body then, and the reason."""


def cut_short(body: Body) -> Spoilt:
    """Cut at the beginning of every value and in the middle of it."""
    for span in body.spans:
        for place in sorted({span.start, (span.start + span.end) // 2}):
            if place == 0:
                yield "nothing after the header", b"", "empty_body"
            elif place < len(body.data):
                yield "cut short", body.data[:place], _reason_of_a_cut(body, place)


def _reason_of_a_cut(body: Body, place: int) -> str:
    """A list or text that promised more than there is left is found out where it promises."""
    for span in body.spans:
        if span.end <= place and span.kind in ("length", "count") and span.size > place - span.end:
            return "length_out_of_range"
    return "truncated"


def claimed_sizes(body: Body) -> Spoilt:
    """Lengths and counts of more than there is, and of less than nothing."""
    for span in body.of("length", "count"):
        left = len(body.data) - span.end
        for claimed in (2**62, INT64[1], INT64[0], left + 1_000, 2**31):
            yield "claims too much", body.with_span(span, varint(claimed)), "length_out_of_range"
    for span in body.of("length"):
        yield "claims less than nothing", body.with_span(span, varint(-1)), "length_out_of_range"


def overlong_numbers(body: Body) -> Spoilt:
    """Numbers of more than 64 bits."""
    for span in body.of("length", "count", "union", "enum", "long", "int", "instant"):
        for number in (b"\xff" * 9 + b"\x02", b"\x80" * 9 + b"\x7f", b"\xff" * 11 + b"\x01"):
            yield "number of too many bits", body.with_span(span, number), "malformed_number"


def values_out_of_range(body: Body) -> Spoilt:
    """Values that their types, or the contract, do not have."""
    for span in body.of("union", "enum"):
        for index in (span.size, -1, 2**40, INT64[0]):
            yield f"{span.kind} out of range", body.with_span(span, varint(index)), f"{span.kind}_index_out_of_range"
    for span in body.of("int"):
        for number in (INT32[1] + 1, INT32[0] - 1, INT64[1]):
            yield "int out of range", body.with_span(span, varint(number)), "int_out_of_range"
    for span in body.of("instant"):
        for instant in (FIRST_MS - 1, YEAR_0_MS, END_MS, 2**62, INT64[0]):
            yield "instant out of range", body.with_span(span, varint(instant)), "timestamp_out_of_range"
    for span in body.of("double"):
        for number in (float("nan"), -float("nan"), float("inf"), float("-inf")):
            yield "no number", body.with_span(span, struct.pack("<d", number)), "not_a_number"
        yield "signalling NaN", body.with_span(span, b"\1\0\0\0\0\0\xf0\x7f"), "not_a_number"
    for span in body.of("boolean"):
        for flag in (2, 255):
            yield "flag of neither", body.with_span(span, bytes([flag])), "malformed_boolean"


def bad_texts(body: Body) -> Spoilt:
    """Texts that are not UTF-8, of the length they had."""
    for span in body.of("text", least=max(map(len, BAD_TEXTS))):
        for bad in BAD_TEXTS:
            text = bad + b"x" * (span.size - len(bad))
            yield "no UTF-8", body.with_span(span, text), "invalid_utf8"


def giant_lists(body: Body) -> Spoilt:
    """Lists of too many items, in one block and in thousands."""
    for span in body.of("end"):
        start = next((one.start for one in body.of("count") if one.path == span.path), span.start)
        before, after = body.data[:start], body.data[span.end :]
        items = LONGEST_LIST + 1
        yield "giant list", before + varint(items) + b"\0" * items + b"\0" + after, "list_too_long"
        yield "list of many blocks", before + (varint(1) + b"\0") * items + b"\0" + after, "list_too_long"


def trailing_bytes(body: Body) -> Spoilt:
    """More than one record."""
    for rest in (b"\0", b"\xff" * 9, body.data, bytes(100_000)):
        yield "more than a record", body.data + rest, "trailing_bytes"


def other_rows(event: EventSchema, row: Row) -> Spoilt:
    """Rows that can be read and that the door turns away."""
    for name in ("", "playback.startled", event.name.upper(), f"{event.name} "):
        yield "another event's name", laid_out(event, {**row, "event_name": name}).data, "wrong_event_name"
    yield "no event id", laid_out(event, {**row, "event_id": ""}).data, "missing_event_id"
    for instant in (-1, FIRST_MS, YEAR_2100_MS, YEAR_9999_MS):
        yield (
            "received at no time",
            laid_out(event, {**row, "event_timestamp": instant}).data,
            ("event_timestamp_out_of_range"),
        )
    if event.topic.startswith("client."):
        yield "no session", laid_out(event, {**row, "session_id": None}).data, "missing_session_id"


ON_BODIES: Sequence[Callable[[Body], Spoilt]] = (
    cut_short, claimed_sizes, overlong_numbers, values_out_of_range, bad_texts, giant_lists, trailing_bytes,
)  # fmt: skip


def no_wire_format(chance: random.Random, good: bytes) -> Iterator[tuple[str, bytes | None, str]]:
    """Whole messages that are not in Confluent's wire format."""
    text = json.dumps({"event_id": "evt_1", "event_name": "playback.started", "user_id": "usr_1"})
    yield "tombstone", None, "empty"
    yield "empty", b"", "empty"
    others = [text.encode(), text.encode("utf-16"), gzip.compress(text.encode()), b"hello", b"<event/>", good[5:]]
    others += [b"\1" + good[1:], b"\xff" + good[1:], chance.randbytes(1) + good, b"\0", b"\0\0", b"\0\0\0\0", b"\n"]
    others += [b"\x7f" + chance.randbytes(1_000_000)]
    for value in others:
        if value[0] != 0 or len(value) < 5:
            yield "another format", value, "not_wire_format"


# ------------------------------------------------------------------------------------- schemas of other registries


@dataclass(frozen=True)
class Foreign:
    """A schema that is not the contract's, a body written with it, and what becomes of that."""

    schema: str
    body: bytes
    reason: str | None


def foreign(event: EventSchema, row: Row) -> list[Foreign]:
    """Schemas under the event's own name that differ from it in a text, some of which can be read in part."""
    body = laid_out(event, row)
    first = next((one for one in event.avro["fields"] if one["type"] == "string"), None)
    if first is None:
        return []
    text = body.at(first["name"], "length"), body.at(first["name"], "text")
    before, after = body.data[: text[0].start], body.data[text[1].end :]

    def with_fields(fields: list[Any]) -> str:
        return json.dumps({**event.avro, "fields": fields})

    def changed(**change: Any) -> str:
        return with_fields([{**one, **change} if one is first else one for one in event.avro["fields"]])

    unspaced = {name: value for name, value in event.avro.items() if name != "namespace"}
    without = [one for one in event.avro["fields"] if one is not first]
    itself = {"name": "again", "type": ["null", event.fullname], "default": None}
    return [
        Foreign(changed(type="long"), before + varint(7) + after, "incompatible_schema"),
        Foreign(changed(type={"type": "array", "items": "string"}), before + b"\0" + after, "incompatible_schema"),
        Foreign(changed(name="renamed"), body.data, "incompatible_schema"),
        Foreign(changed(type="com.acme.NotDefined"), body.data, "incompatible_schema"),
        Foreign(with_fields(without), before + after, "incompatible_schema"),
        Foreign(with_fields([*event.avro["fields"], itself]), body.data, "incompatible_schema"),
        Foreign(changed(type=["null", "string"]), before + varint(0) + after, "missing_required_value"),
        Foreign(changed(type=["null", "string"]), laid_out_with(before, "a text", after), None),
        Foreign(json.dumps({**unspaced, "name": event.fullname}), body.data, None),
        Foreign(changed(type=["long", "string"]), before + varint(0) + varint(7) + after, "value_of_another_type"),
        Foreign(changed(type=["long", "string"]), laid_out_with(before, row[first["name"]], after), None),
    ]  # fmt: skip


def laid_out_with(before: bytes, text: str, after: bytes) -> bytes:
    """A body whose text is the second branch of a union."""
    return before + varint(1) + varint(len(text.encode())) + text.encode() + after


def no_event_schemas() -> list[str]:
    """What else a registry may hold that is shared with others."""
    deep = '{"type": "array", "items": ' * 3_000 + '"string"' + "}" * 3_000
    return [
        '"string"',
        '["null", "string"]',
        '{"type": "record", "name": "Invoice", "namespace": "com.acme", "fields": []}',
        '{"type": "record", "name": "PlaybackStopped", "namespace": "com.acme", "fields": []}',
        '{"type": "enum", "name": "Colour", "symbols": ["RED"]}',
        '{"type": "map", "values": "long"}',
        '{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Invoice", "type": "object"}',
        'syntax = "proto3"; message Invoice { string id = 1; }',
        "7",
        deep,
    ]


# ---------------------------------------------------------------------------------------------------------- all of it

OF_A_KIND = 24  # bodies of one event spoilt in one way, at most


def good_row(event: EventSchema, number: int) -> Row:
    """A row of somebody who allowed everything, whose every value is there."""
    row = {**example_row(event, number * 5 + 1), **CONSENTS, "event_id": f"evt_{event.name}_{number}"}
    return row | {name: value or ["a", "b", "c"] for name, value in row.items() if isinstance(value, list)}


def header(schema_id: int) -> bytes:
    """Confluent's: the byte 0, then the id."""
    return b"\0" + schema_id.to_bytes(4, "big")


def malformed(
    events: Sequence[EventSchema], ids: dict[str, int], unknown_ids: Sequence[int], chance: random.Random
) -> list[Message]:
    """Malformed messages of every kind for each of `events`, whose schemas have `ids` by full name."""
    found: list[Message] = []
    for number, event in enumerate(events):
        row = good_row(event, 100_000 + number)
        body = laid_out(event, row)
        head = header(ids[event.fullname])
        by_kind: dict[str, list[tuple[bytes, str]]] = {}
        for kind, data, reason in chain(*(spoil(body) for spoil in ON_BODIES), other_rows(event, row)):
            by_kind.setdefault(kind, []).append((data, reason))
        for kind, ways in by_kind.items():
            for data, reason in chance.sample(ways, min(OF_A_KIND, len(ways))):
                found.append(Message(event.topic, head + data, reason, kind))
        for kind, value, reason in no_wire_format(chance, head + body.data):
            found.append(Message(event.topic, value, reason, kind))
        for schema_id in unknown_ids:
            found.append(Message(event.topic, header(schema_id) + body.data, "unknown_schema_id", "unknown id"))
        found.append(Message(event.topic, header(unknown_ids[0]), "unknown_schema_id", "unknown id, and no more"))
        for damage in _damaged(events, number, body, chance):
            reason = judge(event, damage)
            if reason is not None:
                found.append(Message(event.topic, head + damage, reason, "damaged at random"))
    return found


def _damaged(events: Sequence[EventSchema], number: int, body: Body, chance: random.Random) -> Iterator[bytes]:
    """Bodies of other events, of bytes changed at random, and of nothing but random bytes."""
    for other in events:
        if other is not events[number]:
            yield laid_out(other, good_row(other, 200_000)).data
    for _ in range(60):
        data = bytearray(body.data)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        yield bytes(data[: chance.choice([len(data), chance.randrange(1, len(data))])])
    for size in (1, 7, 100, 10_000, 1_000_000):
        yield chance.randbytes(size)
    yield bytes(1_000)
    yield b"\xff" * 1_000


def hostile(event: EventSchema, number: int) -> Row:
    """A good row of values that are at the edge of what is allowed."""
    row = good_row(event, number)
    texts = (
        "\0",
        "\U0010ffff" * 20,
        "a@" * 5_000,
        "‮evil",
        "'; DROP TABLE events; --",
        "../../etc/passwd",
        " ",
        "",
        "x" * 70_000,
    )
    kept = {"event_id", "event_name", "session_id", "market", *CONSENTS}
    for place, column in enumerate(event.columns):
        text = texts[(number + place) % len(texts)]
        if column.name in kept or column.symbols:
            continue
        match row[column.name]:
            case str():
                row[column.name] = text
            case list():
                row[column.name] = [text] * (number % 3)
            case bool() | None:
                pass
            case float():
                row[column.name] = (-0.0, 5e-324, 1.7976931348623157e308)[number % 3]
            case int() if "timestamp" in str(column.arrow):
                instants = (0, YEAR_2100_MS - 1) if column.name == "event_timestamp" else (FIRST_MS, END_MS - 1)
                row[column.name] = instants[number % 2]
            case int():
                row[column.name] = (INT32, INT64)[column.arrow.bit_width == 64][number % 2]
    return row


def good(events: Sequence[EventSchema], ids: dict[str, int], count: int) -> list[Message]:
    """`count` good messages, every tenth of them hostile."""
    found = []
    for number in range(count):
        event = events[number % len(events)]
        row = hostile(event, number) if number % 10 == 0 else good_row(event, number)
        value = header(ids[event.fullname]) + laid_out(event, row).data
        found.append(Message(event.topic, value, None, "good", row["event_id"]))
    return found
