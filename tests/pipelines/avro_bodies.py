"""Avro bodies of events, written and judged value by value, without Reel's encoder or decoder.

The writer notes where every value begins and ends, so that a body can be spoilt at a place of one's choice; `judge`
reads one message after the other, as the Avro specification has it (1.12, "Binary Encoding").
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipelines.contract.events import EventSchema
from tests.pipelines.event_rows import Row, nested

LONGEST_LIST = 4_096  # `avro_decode.MAX_LIST_ITEMS`, as the contract promises it
FIRST_MS, END_MS = -62_135_596_800_000, 253_402_300_800_000  # years 1 to 9999
RECEIVED_MS = (0, 4_102_444_800_000)  # years 1970 to 2099
INT32, INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Span:
    """Where a value lies in a body; `size` is what a length or count promises, or how many there are to choose from."""

    kind: str  # union, enum, long, int, instant, double, boolean, length, text, count or end
    start: int
    end: int
    path: str
    size: int = 0


@dataclass
class Body:
    """An Avro body and the spans of its values."""

    data: bytes = b""
    spans: list[Span] = field(default_factory=list)

    def put(self, kind: str, data: bytes, path: str, size: int = 0) -> None:
        """Append a value."""
        self.spans.append(Span(kind, len(self.data), len(self.data) + len(data), path, size))
        self.data += data

    def of(self, *kinds: str, least: int = 0) -> list[Span]:
        """Spans of some kinds that promise, or hold, at least so much."""
        return [span for span in self.spans if span.kind in kinds and span.size >= least]

    def at(self, path: str, kind: str) -> Span:
        """The span of one field."""
        return next(span for span in self.spans if (span.path, span.kind) == (path, kind))

    def with_span(self, span: Span, data: bytes) -> bytes:
        """The body with other bytes in the place of a span."""
        return self.data[: span.start] + data + self.data[span.end :]


def varint(number: int) -> bytes:
    """Zigzag, then groups of seven bits, the lowest first."""
    rest = (number << 1) ^ (number >> 63)
    groups = bytearray()
    while rest > 0x7F:
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*groups, rest])


def laid_out(event: EventSchema, row: Row) -> Body:
    """The body of a row; `test_bodies_are_those_of_fastavro` compares it with fastavro's."""
    body = Body()
    _write(body, event.avro, nested(row), "", {})
    return body


def _write(body: Body, avro: Any, value: Any, path: str, named: dict[str, Any]) -> None:
    if isinstance(avro, str) and avro in named:
        avro = named[avro]
    if isinstance(avro, list):
        index = next(i for i, branch in enumerate(avro) if (branch == "null") == (value is None))
        body.put("union", varint(index), path, len(avro))
        return _write(body, avro[index], value, path, named) if value is not None else None
    kind = avro if isinstance(avro, str) else avro["type"]
    if kind in ("record", "enum"):
        named[f"{avro.get('namespace', 'com.platform.events.common')}.{avro['name']}"] = avro
    match kind:
        case "record":
            for one in avro["fields"]:
                _write(body, one["type"], value[one["name"]], f"{path}.{one['name']}".lstrip("."), named)
        case "enum":
            body.put("enum", varint(avro["symbols"].index(value)), path, len(avro["symbols"]))
        case "string":
            _write_text(body, value, path)
        case "array":
            if value:
                body.put("count", varint(len(value)), path, len(value))
            for item in value:
                _write_text(body, item, f"{path}[]")
            body.put("end", b"\0", path)
        case "boolean":
            body.put("boolean", bytes([value]), path)
        case "double":
            body.put("double", struct.pack("<d", value), path)
        case _:
            is_instant = isinstance(avro, dict) and "logicalType" in avro
            body.put("instant" if is_instant else kind, varint(value), path)
    return None


def _write_text(body: Body, text: str, path: str) -> None:
    data = text.encode()
    body.put("length", varint(len(data)), path, len(data))
    body.put("text", data, path, len(data))


# ------------------------------------------------------------------------------------------ what must become of it


class Bad(Exception):
    """Why a body is no event."""


def judge(event: EventSchema, body: bytes) -> str | None:
    """The reason for which a body of `event` is set aside; None for a good one. Texts are looked at last."""
    if not body:
        return "empty_body"
    reader = _Reader(body)
    try:
        record = reader.value(event.avro, {})
    except Bad as bad:
        return str(bad)
    if reader.at < len(body):
        return "trailing_bytes"
    if reader.has_bad_text:
        return "invalid_utf8"
    envelope = record["envelope"]
    if envelope["event_name"] != event.name:
        return "wrong_event_name"
    if event.topic.startswith("client.") and envelope["session_id"] is None:
        return "missing_session_id"
    if envelope["event_id"] == "":
        return "missing_event_id"
    return None if RECEIVED_MS[0] <= envelope["event_timestamp"] < RECEIVED_MS[1] else "event_timestamp_out_of_range"


class _Reader:
    def __init__(self, body: bytes) -> None:
        self.body, self.at, self.has_bad_text = body, 0, False

    def value(self, avro: Any, named: dict[str, Any]) -> Any:
        if isinstance(avro, str) and avro in named:
            avro = named[avro]
        if isinstance(avro, list):
            return self.value(avro[self.choice(len(avro), "union_index_out_of_range")], named)
        kind = avro if isinstance(avro, str) else avro["type"]
        if kind in ("record", "enum"):
            named[f"{avro.get('namespace', 'com.platform.events.common')}.{avro['name']}"] = avro
        match kind:
            case "null":
                return None
            case "record":
                return {one["name"]: self.value(one["type"], named) for one in avro["fields"]}
            case "enum":
                return avro["symbols"][self.choice(len(avro["symbols"]), "enum_index_out_of_range")]
            case "string":
                return self.text()
            case "array":
                return list(self.items())
            case "boolean":
                flag = self.take(1)[0]
                return bool(flag) if flag < 2 else _raise("malformed_boolean")
            case "double":
                (number,) = struct.unpack("<d", self.take(8))
                return number if number - number == 0 else _raise("not_a_number")
        number = self.number()
        if kind == "int" and not INT32[0] <= number <= INT32[1]:
            raise Bad("int_out_of_range")
        if isinstance(avro, dict) and "logicalType" in avro and not FIRST_MS <= number < END_MS:
            raise Bad("timestamp_out_of_range")
        return number

    def take(self, size: int) -> bytes:
        if size > len(self.body) - self.at:
            raise Bad("truncated")
        self.at += size
        return self.body[self.at - size : self.at]

    def number(self) -> int:
        raw, place = 0, 0
        while True:
            (group,) = self.take(1)
            raw |= (group & 0x7F) << 7 * place
            place += 1
            if place == 10 and group > 1:
                raise Bad("malformed_number")
            if group < 0x80:
                return (raw >> 1) ^ -(raw & 1)

    def choice(self, count: int, reason: str) -> int:
        index = self.number()
        return index if 0 <= index < count else _raise(reason)

    def text(self) -> str:
        size = self.number()
        if not 0 <= size <= len(self.body) - self.at:
            raise Bad("length_out_of_range")
        data = self.take(size)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.has_bad_text = True
            return ""

    def items(self) -> Iterator[str]:
        read = 0
        while (count := self.number()) != 0:
            if count < 0:
                self.number()  # the block's size in bytes
            if abs(count) > len(self.body) - self.at:
                raise Bad("length_out_of_range")
            for _ in range(abs(count)):
                yield self.text()
                read += 1
                if read > LONGEST_LIST:
                    raise Bad("list_too_long")


def _raise(reason: str) -> Any:
    raise Bad(reason)
