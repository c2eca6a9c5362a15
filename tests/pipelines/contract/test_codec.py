"""The bulk codec against fastavro, on good, evolved and malformed messages."""

import copy
import json
import random
import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro.schema
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.codec import BadReason, decode, encode, split_wire_format, wire_format
from pipelines.contract.events import Contract, EventSchema, load_contract
from pipelines.errors import EncodeError, IncompatibleSchema
from tests.pipelines.event_rows import (
    example_row,
    fastavro_body,
    fastavro_row,
    flat_rows,
    rows_of,
    table_of,
)

CONTRACT = load_contract(Path(__file__).parents[3] / "configs" / "schemas")
HEARTBEAT = CONTRACT.event("playback.heartbeat")
STOPPED = CONTRACT.event("playback.stopped")
TITLE = CONTRACT.event("title.added")
DELETED = CONTRACT.event("user.deleted")


@pytest.fixture
def contract() -> Contract:
    return CONTRACT


def bodies_of(event: EventSchema, count: int) -> list[bytes]:
    return [fastavro_body(event.avro, example_row(event, index)) for index in range(count)]


# ------------------------------------------------------------------------------------------- good messages


@pytest.mark.parametrize("name", [event.fullname for event in CONTRACT.events])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_encodes_byte_for_byte_like_fastavro_and_decodes_to_the_same_rows(name: str, data: st.DataObject) -> None:
    event = CONTRACT.by_fullname(name)
    rows = data.draw(st.lists(flat_rows(event), max_size=8))
    bodies = encode(event, table_of(event, rows))
    assert bodies == [fastavro_body(event.avro, row) for row in rows]
    decoded = decode(event.avro, bodies, event)
    assert decoded.bad == []
    decoded.table.validate(full=True)
    assert decoded.table.schema == event.arrow
    assert rows_of(decoded.table) == rows
    assert decoded.ordinals.tolist() == list(range(len(rows)))


def test_many_chunks_keep_their_order() -> None:
    rows = [example_row(HEARTBEAT, index) for index in range(40_000)]
    bodies = encode(HEARTBEAT, table_of(HEARTBEAT, rows))
    bodies[20_000] = b"\x01"
    decoded = decode(HEARTBEAT.avro, bodies, HEARTBEAT)
    assert [index for index, _ in decoded.bad] == [20_000]
    assert decoded.ordinals.tolist() == [index for index in range(40_000) if index != 20_000]
    assert rows_of(decoded.table) == rows[:20_000] + rows[20_001:]


def test_no_bodies_give_an_empty_table() -> None:
    decoded = decode(TITLE.avro, [], TITLE)
    assert (decoded.table.schema, decoded.table.num_rows, decoded.bad) == (TITLE.arrow, 0, [])
    assert encode(TITLE, TITLE.arrow.empty_table()) == []


def test_lists_in_several_blocks_with_sizes() -> None:
    body = fastavro_body(TITLE.avro, {**example_row(TITLE, 1), "genres": []})
    at = fastavro_body(TITLE.avro, {**example_row(TITLE, 1), "genres": ["x"]}).index(b"\x02\x02x\x00")
    # A block of two items with its size in bytes (count -2, size 4), then a block of one item, then the end.
    genres = b"\x03\x08\x02a\x02b" + b"\x02\x02c" + b"\x00"
    decoded = decode(TITLE.avro, [body, body[:at] + genres + body[at + 1 :]], TITLE)
    assert decoded.bad == []
    assert decoded.table["genres"].to_pylist() == [[], ["a", "b", "c"]]


# --------------------------------------------------------------------------------------- malformed messages


def spoilt(event: EventSchema, **changed: Any) -> bytes:
    """A body whose values fastavro writes but the contract does not allow."""
    return fastavro_body(event.avro, {**example_row(event, 1), **changed})


GOOD = bodies_of(STOPPED, 3)
REQUIRED_NULL = copy.deepcopy(STOPPED.avro)
REQUIRED_NULL["fields"][1]["type"] = ["null", "string"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", BadReason.EMPTY_BODY),
        (GOOD[1][:-23], BadReason.TRUNCATED),  # within completion_percent
        (GOOD[1][:-1], BadReason.LENGTH_OUT_OF_RANGE),  # within the last text
        (GOOD[1] + b"\x00", BadReason.TRAILING_BYTES),
        (GOOD[1] + GOOD[2], BadReason.TRAILING_BYTES),
        (b"\xff" * 200, BadReason.MALFORMED_NUMBER),
        (b"\x01" + GOOD[1], BadReason.LENGTH_OUT_OF_RANGE),
        (b"\x80\x80\x80\x80\x80\x80\x80\x01" + GOOD[1], BadReason.LENGTH_OUT_OF_RANGE),
        (spoilt(STOPPED, event_timestamp=-62_135_596_800_001), BadReason.TIMESTAMP_OUT_OF_RANGE),
        (spoilt(STOPPED, client_timestamp=253_402_300_800_000), BadReason.TIMESTAMP_OUT_OF_RANGE),
        (spoilt(STOPPED, completion_percent=float("nan")), BadReason.NOT_A_NUMBER),
        (spoilt(STOPPED, completion_percent=float("-inf")), BadReason.NOT_A_NUMBER),
        (GOOD[1].replace(b"content_id", b"content\xff\xfe "), BadReason.INVALID_UTF8),
    ],
)
def test_a_bad_message_is_named_and_its_neighbours_are_kept(body: bytes, reason: BadReason) -> None:
    decoded = decode(STOPPED.avro, [GOOD[0], body, GOOD[2]], STOPPED)
    assert decoded.bad == [(1, reason)]
    assert decoded.ordinals.tolist() == [0, 2]
    assert rows_of(decoded.table) == [example_row(STOPPED, 0), example_row(STOPPED, 2)]


def test_indices_flags_and_ints_out_of_range() -> None:
    row = {**example_row(HEARTBEAT, 1), "dropped_frames": 7, "cdn": "akamai", "playback_id": None}
    body = fastavro_body(HEARTBEAT.avro, row)
    tail = b"\x0e\x0cakamai\x00"  # dropped_frames 7, cdn, and playback_id null
    assert body.endswith(tail)
    head = body[: -len(tail)]
    consent_row = {**row, "consent_analytics": True, "consent_personalization": True, "consent_ad_targeting": True}
    consenting = fastavro_body(HEARTBEAT.avro, consent_row)
    at = consenting.index(b"\x02\x01\x01\x01")
    bad = [
        head + b"\x0e\x0cakamai\x04",  # branch 2 of 2
        head + b"\x0e\x0cakamai\x01",  # branch -1
        head + b"\x80\x80\x80\x80\x10\x0cakamai\x00",  # 2**31
        consenting[: at + 2] + b"\x02" + consenting[at + 3 :],  # a flag of 2
    ]
    assert [reason for _, reason in decode(HEARTBEAT.avro, [*bad, body], HEARTBEAT).bad] == [
        BadReason.UNION_INDEX_OUT_OF_RANGE,
        BadReason.UNION_INDEX_OUT_OF_RANGE,
        BadReason.INT_OUT_OF_RANGE,
        BadReason.MALFORMED_BOOLEAN,
    ]


def test_an_enum_index_out_of_range() -> None:
    body = fastavro_body(STOPPED.avro, {**example_row(STOPPED, 1), "stop_reason": "session_limit", "playback_id": None})
    assert body.endswith(b"\x06\x00")
    decoded = decode(STOPPED.avro, [body[:-2] + b"\x08\x00", body[:-2] + b"\x05\x00", body], STOPPED)
    assert decoded.bad == [(0, BadReason.ENUM_INDEX_OUT_OF_RANGE), (1, BadReason.ENUM_INDEX_OUT_OF_RANGE)]


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_is_judged_as_fastavro_judges_it(seed: int) -> None:
    """Whatever fastavro reads as an allowed record is decoded alike; all else is bad, and no neighbour suffers."""
    chance = random.Random(seed)
    event = (STOPPED, TITLE, HEARTBEAT)[seed % 3]
    bodies = bodies_of(event, 600)
    damaged = sorted(chance.sample(range(600), 300))
    for index in damaged:
        body = bytearray(bodies[index])
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(len(body))] = chance.choice([0, 1, 2, 127, 128, 255, chance.randrange(256)])
        bodies[index] = bytes(body[: chance.choice([len(body), len(body), chance.randrange(len(body))])])
    decoded = decode(event.avro, bodies, event)
    decoded.table.validate(full=True)
    assert len(decoded.bad) + len(decoded.ordinals) == 600
    assert {index for index, _ in decoded.bad} <= set(damaged)
    assert len(decoded.bad) > 50
    rows = rows_of(decoded.table)
    for index, row in zip(decoded.ordinals, rows, strict=True):
        assert fastavro_row(event.avro, bodies[index]) == row
    refused_without_need = [
        (index, reason)
        for index, reason in decoded.bad
        if reason not in STRICTER_THAN_FASTAVRO and fastavro_reads(event, bodies[index])
    ]
    assert refused_without_need == []


def fastavro_reads(event: EventSchema, body: bytes) -> bool:
    try:
        fastavro_row(event.avro, body)
    except Exception:  # noqa: BLE001  (its kinds of failure are many)
        return False
    return True


# Refused by the contract, or by the Avro specification where fastavro is lenient.
STRICTER_THAN_FASTAVRO = {
    BadReason.TIMESTAMP_OUT_OF_RANGE,
    BadReason.NOT_A_NUMBER,
    BadReason.MALFORMED_BOOLEAN,
    BadReason.INT_OUT_OF_RANGE,
    BadReason.UNION_INDEX_OUT_OF_RANGE,  # fastavro takes index -1 for the last branch
    BadReason.ENUM_INDEX_OUT_OF_RANGE,
}


def test_claims_of_enormous_sizes_take_no_memory_and_no_time() -> None:
    huge = b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"[:9] + b"\x01"  # a varint of 2**62
    body = fastavro_body(TITLE.avro, {**example_row(TITLE, 1), "genres": ["x"]})
    at = body.index(b"\x02\x02x\x00")
    bombs = [huge + body, body[:at] + huge, body[:at] + b"\x02" + huge + body[at:]]
    tracemalloc.start()
    started = time.process_time()
    decoded = decode(TITLE.avro, bombs, TITLE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [reason for _, reason in decoded.bad] == [BadReason.LENGTH_OUT_OF_RANGE] * 3
    assert peak < 10_000_000
    assert time.process_time() - started < 5


def test_a_list_of_too_many_items() -> None:
    body = fastavro_body(TITLE.avro, {**example_row(TITLE, 1), "genres": [""] * 5_000})
    assert decode(TITLE.avro, [body], TITLE).bad == [(0, BadReason.LIST_TOO_LONG)]
    at_limit = fastavro_body(TITLE.avro, {**example_row(TITLE, 1), "genres": ["a"] * 4_096})
    assert decode(TITLE.avro, [at_limit], TITLE).table["genres"].to_pylist() == [["a"] * 4_096]


# ------------------------------------------------------------------------------------------ other writers


def test_an_older_writer_lacks_nullable_fields() -> None:
    older = copy.deepcopy(HEARTBEAT.avro)
    older["fields"] = [field for field in older["fields"] if field["name"] not in ("playback_id", "content_type")]
    envelope = older["fields"][0]["type"]
    envelope["fields"] = [field for field in envelope["fields"] if field["name"] != "consent"]
    row = example_row(HEARTBEAT, 1)
    decoded = decode(older, [fastavro_body(older, row)], HEARTBEAT)
    missing = ["playback_id", "content_type", "consent_analytics", "consent_personalization", "consent_ad_targeting"]
    assert rows_of(decoded.table) == [{**row, **dict.fromkeys(missing)}]


def test_a_newer_writer_has_more_fields_of_every_kind() -> None:
    newer = copy.deepcopy(TITLE.avro)
    point = {
        "type": "record",
        "name": "Point",
        "fields": [{"name": "x", "type": "float"}, {"name": "y", "type": "double"}],
    }
    extra = [
        {"name": "e1", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "e2", "type": {"type": "array", "items": point}},
        {"name": "e3", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "e4", "type": ["null", "Point", "string", {"type": "enum", "name": "Dir", "symbols": ["N", "S"]}]},
        {"name": "e5", "type": "bytes"},
        {"name": "e6", "type": "null"},
    ]
    newer["fields"] = [newer["fields"][0], *extra[:3], *newer["fields"][1:], *extra[3:]]
    rows, bodies = [], []
    for index in range(30):
        row = example_row(TITLE, index)
        more = {
            "e1": {f"k{number}": number or None for number in range(index % 3)},
            "e2": [{"x": 1.0, "y": 2.0}] * (index % 4),
            "e3": b"1234",
            "e4": [None, {"x": 1.0, "y": 2.0}, "text", "S"][index % 4],
            "e5": b"\xff" * index,
            "e6": None,
        }
        rows.append(row)
        bodies.append(fastavro_body(newer, {**row, **more}))
    decoded = decode(newer, [*bodies, bodies[3][:-4]], TITLE)
    assert [index for index, _ in decoded.bad] == [30]
    assert rows_of(decoded.table) == rows
    assert rows == [fastavro_row(newer, body, TITLE.avro) for body in bodies]


def test_int_is_promoted_and_unions_are_resolved_value_by_value() -> None:
    writer = copy.deepcopy(STOPPED.avro)
    by_name = {field["name"]: field for field in writer["fields"]}
    by_name["position_ms"]["type"] = "int"
    by_name["total_duration_ms"]["type"] = ["null", "int", "string"]
    by_name["completion_percent"]["type"] = "float"
    row = {**example_row(STOPPED, 1), "completion_percent": 0.5}
    bodies = [fastavro_body(writer, {**row, "total_duration_ms": value}) for value in (5, None, "long", 7)]
    decoded = decode(writer, bodies, STOPPED)
    assert decoded.bad == [(1, BadReason.MISSING_REQUIRED_VALUE), (2, BadReason.VALUE_OF_ANOTHER_TYPE)]
    assert rows_of(decoded.table) == [{**row, "total_duration_ms": 5}, {**row, "total_duration_ms": 7}]


def test_enum_symbols_are_matched_by_name() -> None:
    writer = copy.deepcopy(STOPPED.avro)
    reason = next(field for field in writer["fields"] if field["name"] == "stop_reason")["type"]
    reason["symbols"] = ["session_limit", "power_cut", "user"]
    row = example_row(STOPPED, 1)
    bodies = [fastavro_body(writer, {**row, "stop_reason": symbol}) for symbol in reason["symbols"]]
    decoded = decode(writer, bodies, STOPPED)
    assert decoded.bad == [(1, BadReason.UNKNOWN_ENUM_SYMBOL)]
    assert decoded.table["stop_reason"].to_pylist() == ["session_limit", "user"]


def test_defaults_of_every_kind_are_filled_in(tmp_path: Path) -> None:
    reader = evolved_heartbeat(tmp_path)
    rows = [example_row(HEARTBEAT, index) for index in range(7)]
    decoded = decode(HEARTBEAT.avro, [fastavro_body(HEARTBEAT.avro, row) for row in rows], reader)
    assert decoded.bad == []
    added = {"vendor": "größe", "retries": 3, "codec": "av1", "tags": [], "is_muted": False, "volume": 0.5}
    assert rows_of(decoded.table) == [{**row, **added} for row in rows]


def evolved_heartbeat(folder: Path) -> EventSchema:
    """The heartbeat with one more field of each kind, each with a default that is not null."""
    schemas = folder / "schemas"
    shutil.copytree(Path(__file__).parents[3] / "configs" / "schemas", schemas)
    file = schemas / "playback" / "PlaybackHeartbeat.avsc"
    schema = json.loads(file.read_text())
    codec = {"type": "enum", "name": "VideoCodec", "symbols": ["h264", "av1"], "doc": "Codec."}
    for name, kind, default in [
        ("vendor", "string", "größe"),
        ("retries", "int", 3),
        ("codec", codec, "av1"),
        ("tags", {"type": "array", "items": "string"}, []),
        ("is_muted", "boolean", False),
        ("volume", "double", 0.5),
    ]:
        schema["fields"].append({"name": name, "type": kind, "default": default, "doc": "Added later."})
    file.write_text(json.dumps(schema))
    return load_contract(schemas).event("playback.heartbeat")


def change_position(schema: dict[str, Any], kind: Any) -> None:
    next(field for field in schema["fields"] if field["name"] == "position_ms")["type"] = kind


def remove_position(schema: dict[str, Any]) -> None:
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "position_ms"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda schema: change_position(schema, "string"), "position_ms: the writer has string, expected long"),
        (
            lambda schema: change_position(schema, {"type": "long", "logicalType": "timestamp-micros"}),
            "position_ms: the writer has timestamp-micros",
        ),
        (remove_position, "position_ms: the writer lacks this field"),
        (lambda schema: schema.update(name="Other"), "expected com.platform.events.playback.PlaybackHeartbeat"),
        (
            lambda schema: schema["fields"].append({"name": "x", "type": {"type": "array", "items": "null"}}),
            "a list of null takes no bytes",
        ),
        (
            lambda schema: schema["fields"].append({"name": "x", "type": ["null", schema["name"]]}),
            "contains itself",
        ),
        (lambda schema: schema["fields"].append({"name": "x", "type": "Nobody"}), "Nobody, which it does not define"),
    ],
)
def test_a_writer_that_cannot_be_read_is_refused_as_a_whole(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    writer = copy.deepcopy(HEARTBEAT.avro)
    change(writer)
    with pytest.raises(IncompatibleSchema, match=message):
        decode(writer, [], HEARTBEAT)


# -------------------------------------------------------------------------------------------- encoding


def test_columns_go_by_name_and_are_cast() -> None:
    rows = [{**example_row(HEARTBEAT, index), "user_agent": None} for index in range(3)]
    table = table_of(HEARTBEAT, rows).drop_columns(["event_name", "user_agent"])
    table = table.select(sorted(table.column_names, reverse=True))
    at = table.column_names.index("event_timestamp")
    table = table.set_column(at, "event_timestamp", table["event_timestamp"].cast(pa.timestamp("us", tz="UTC")))
    table = table.set_column(0, table.column_names[0], table.column(0).cast(pa.large_string()))
    assert encode(HEARTBEAT, table) == [fastavro_body(HEARTBEAT.avro, row) for row in rows]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"content_id": None}, "row 1: content_id must be a value, not null; received None"),
        ({"stop_reason": "bored"}, "row 1: stop_reason must be one of user, .*; received 'bored'"),
        ({"completion_percent": float("nan")}, "row 1: completion_percent must be a finite number; received nan"),
        ({"client_timestamp": 2**53}, "row 1: client_timestamp must be an instant of the years 1 to 9999"),
        ({"consent_analytics": None}, "row 1: consent_analytics must be all of consent_analytics, .* or none"),
    ],
)
def test_a_row_that_does_not_fit_is_named(changed: dict[str, Any], message: str) -> None:
    table = pa.Table.from_pylist(
        [example_row(STOPPED, 1), {**example_row(STOPPED, 2), **changed}],
        schema=pa.schema([field.with_nullable(True) for field in STOPPED.arrow]),
    )
    with pytest.raises(EncodeError, match=message):
        encode(STOPPED, table)


def test_a_list_with_a_null_is_refused() -> None:
    table = table_of(TITLE, [example_row(TITLE, 1), {**example_row(TITLE, 2), "genres": ["a", None]}])
    with pytest.raises(EncodeError, match="row 1: genres must be no null in the list"):
        encode(TITLE, table)


def test_unknown_missing_and_unfit_columns_are_named() -> None:
    table = table_of(TITLE, [example_row(TITLE, 1)])
    with pytest.raises(EncodeError, match=r"title\.added has no column colour; it has event_id"):
        encode(TITLE, table.append_column("colour", pa.array(["red"])))
    with pytest.raises(EncodeError, match=r"title\.added needs the column title: Name shown"):
        encode(TITLE, table.drop_columns(["title"]))
    with pytest.raises(EncodeError, match=r"title\.added\.runtime_ms must be int64, received string"):
        encode(TITLE, table.set_column(table.column_names.index("runtime_ms"), "runtime_ms", pa.array(["long"])))


# ------------------------------------------------------------------------------------------ wire format


def test_wire_format_is_confluents() -> None:
    assert wire_format(258, [b"abc", b""]) == [b"\x00\x00\x00\x01\x02abc", b"\x00\x00\x00\x01\x02"]
    ids, bodies, bad = split_wire_format(wire_format(258, [b"abc", b""]) + wire_format(2**32 - 1, [b"z"]))
    assert (ids.tolist(), bodies, bad) == ([258, 258, 2**32 - 1], [b"abc", b"", b"z"], [])


def test_what_is_no_wire_format_is_bad() -> None:
    ids, bodies, bad = split_wire_format(
        [None, b"", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01x", b"\x00\x00\x00\x00\x07y"]
    )
    assert ids.tolist() == [-1, -1, -1, -1, 7]
    assert bodies == [b"", b"", b"", b"", b"y"]
    assert bad == [(index, BadReason.NOT_WIRE_FORMAT) for index in range(4)]
    assert split_wire_format([])[0].tolist() == []


@given(values=st.lists(st.none() | st.binary(max_size=12)))
def test_splitting_agrees_with_struct(values: list[bytes | None]) -> None:
    ids, bodies, bad = split_wire_format(values)
    for index, value in enumerate(values):
        if value is None or len(value) < 5 or value[0] != 0:
            assert (ids[index], bodies[index]) == (-1, b"")
            assert (index, BadReason.NOT_WIRE_FORMAT) in bad
        else:
            assert (int(ids[index]), bodies[index]) == (struct.unpack(">I", value[1:5])[0], value[5:])
    assert len(bad) == int(np.count_nonzero(ids == -1))


def test_every_schema_is_one_that_fastavro_accepts(contract: Contract) -> None:
    for event in contract.events:
        parsed = fastavro.schema.parse_schema(copy.deepcopy(event.avro))
        assert parsed["name"] == event.fullname
