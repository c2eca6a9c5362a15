"""Every rule by hand."""

import math
from typing import Any

import pyarrow as pa
import pytest

from pipelines.contract.events import load_contract
from pipelines.lakehouse.tables import stored_type
from pipelines.settings import Settings
from pipelines.silver.rules import Rules, clock_reliable
from tests.pipelines.silver.bronze_rows import table_of
from tests.platform import MINUTE, T0

CONTRACT = load_contract(Settings().schemas)
STOPPED = CONTRACT.event("playback.stopped")
SCHEMA = pa.schema([pa.field(field.name, stored_type(field.type)) for field in STOPPED.arrow])
GOOD: dict[str, Any] = {
    "event_timestamp": T0,
    "content_id": "vod-1",
    "position_ms": 0,
    "total_duration_ms": 1,
    "completion_percent": 50.0,
}


def verdicts(*changes: dict[str, Any]) -> list[str]:
    return Rules.of(STOPPED).verdicts(table_of([GOOD | one for one in changes], SCHEMA)).to_pylist()


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "valid"),
        ({"content_id": None}, "invalid: no content_id"),
        ({"content_id": ""}, "invalid: no content_id"),
        ({"content_id": " "}, "valid"),
        ({"completion_percent": 0.0}, "valid"),
        ({"completion_percent": 100.0}, "valid"),
        ({"completion_percent": None}, "valid"),
        ({"completion_percent": -0.001}, "invalid: completion_percent outside 0 to 100"),
        ({"completion_percent": 100.001}, "invalid: completion_percent outside 0 to 100"),
        ({"completion_percent": math.nan}, "invalid: completion_percent outside 0 to 100"),
        ({"completion_percent": math.inf}, "invalid: completion_percent outside 0 to 100"),
        ({"position_ms": -1}, "invalid: negative position_ms"),
        ({"position_ms": None}, "valid"),
        ({"total_duration_ms": -(2**63)}, "invalid: negative total_duration_ms"),
        ({"position_ms": 2**63 - 1}, "valid"),
        ({"event_timestamp": 946_684_799_999}, "invalid: event_timestamp outside 2000 to 2100"),  # 1999-12-31T23:59
        ({"event_timestamp": 946_684_800_000}, "valid"),  # 2000-01-01
        ({"event_timestamp": 4_102_444_799_999}, "valid"),
        ({"event_timestamp": 4_102_444_800_000}, "invalid: event_timestamp outside 2000 to 2100"),  # 2100-01-01
        ({"event_timestamp": T0 // 1000}, "invalid: event_timestamp outside 2000 to 2100"),  # seconds
    ],
)
def test_a_row_alone_and_among_others(changes, verdict):
    assert verdicts(changes) == [verdict]
    assert verdicts({}, changes, {}) == ["valid", verdict, "valid"]


def test_the_first_rule_that_is_broken_is_the_verdict():
    both = {"content_id": "", "position_ms": -1, "completion_percent": 140.0}
    assert verdicts(both) == ["invalid: no content_id"]
    assert verdicts(both | {"content_id": "c"}) == ["invalid: completion_percent outside 0 to 100"]
    # Other rows with the same faults: one reason each, also where a reason has no row left.
    assert verdicts(both, {"position_ms": -1}) == ["invalid: no content_id", "invalid: negative position_ms"]


def test_texts_may_be_encoded_and_in_chunks():
    parts = [table_of([GOOD | {"content_id": one}], SCHEMA) for one in ("", "vod-1", None, "vod-1")]
    rows = pa.concat_tables(
        [one.set_column(one.column_names.index("content_id"), "content_id", one["content_id"].dictionary_encode())
         for one in parts]
    )  # fmt: skip
    assert Rules.of(STOPPED).verdicts(rows).to_pylist() == ["invalid: no content_id", "valid"] * 2
    assert Rules.of(STOPPED).verdicts(rows[:0]).to_pylist() == []


def test_rules_are_read_off_the_contract():
    """What an event requires and is called an id, and what is called a percentage or an amount; of its own columns."""
    assert Rules.of(STOPPED) == Rules(("content_id",), ("completion_percent",), ("position_ms", "total_duration_ms"))
    assert Rules.of(CONTRACT.event("epg.program.select")) == Rules(("channel_id", "program_id"), (), ())
    rebuffer = Rules.of(CONTRACT.event("playback.rebuffer"))
    assert rebuffer.amounts == ("position_ms", "rebuffer_duration_ms")
    assert all("event_id" not in Rules.of(event).required for event in CONTRACT.events)


@pytest.mark.parametrize(
    ("skew_ms", "reliable"),
    [
        (0, True),
        (5 * MINUTE, True),
        (-5 * MINUTE, True),
        (5 * MINUTE + 1, False),
        (-5 * MINUTE - 1, False),
        (None, None),
    ],
)
def test_a_clock_is_reliable_within_five_minutes(skew_ms, reliable):
    schema = pa.schema([SCHEMA.field("event_timestamp"), SCHEMA.field("client_timestamp")])
    told = {"event_timestamp": T0, "client_timestamp": None if skew_ms is None else T0 + skew_ms}
    other = {"event_timestamp": T0, "client_timestamp": T0}
    assert clock_reliable(table_of([told], schema)).to_pylist() == [reliable]
    assert clock_reliable(table_of([told, other], schema)).to_pylist() == [reliable, True]
