"""Playback sessions against loops over dictionaries, and against the viewing log that features are made of."""

import random
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import LogError
from features.playback_sessions import CHAIN_COLUMNS, EVENT_COLUMNS, chains, playback_sessions
from features.playbacks import viewing_log
from tests.features.oracle import split_in_playbacks, walk
from tests.features.worlds import TITLES_SCHEMA

MINUTE, DAY = 60_000, 86_400_000
T0 = 1_767_600_000_000
MICROSECONDS = pa.timestamp("us", tz="UTC")

NAMES = (
    *("started", "started", "heartbeat", "heartbeat", "stopped", "stopped", "paused", "resumed"),
    *("requested", "seeked", "rebuffer", "quality_changed", "error"),
)
STEPS_MS = (0, 0, 1, MINUTE, 30 * MINUTE - 1, 30 * MINUTE, 30 * MINUTE + 1, DAY)
TEXTS = (
    *("playback_id", "user_id", "profile_id", "session_id", "device_id", "viewer_token", "subscription_tier", "market"),
    *("platform", "device_type", "app_version", "connection_type", "geo_country", "geo_region", "geo_city"),
    *("time_zone", "isp", "device_class", "content_id", "content_type", "content_title", "content_series_id"),
    *("content_maturity_rating", "channel_name", "cdn"),
)
FLAGS = ("is_kids", "consent_analytics", "consent_personalization", "consent_ad_targeting")
NUMBERS = ("content_runtime_ms", "start_time_ms")
TOLD_ONCE = (*TEXTS, *FLAGS, *NUMBERS, "content_genres", "content_episode_number")
DECIDING = {"playback_id", "profile_id", "session_id", "viewer_token", "content_id"}

SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_name", pa.string()),
        ("event_timestamp", MICROSECONDS),
        *((name, pa.string()) for name in TEXTS),
        *((name, pa.bool_()) for name in FLAGS),
        *((name, pa.int64()) for name in NUMBERS),
        ("content_genres", pa.list_(pa.string())),
        ("content_episode_number", pa.int32()),
        *((name, pa.int64()) for name in ("position_ms", "total_duration_ms", "rebuffer_duration_ms")),
        ("completion_percent", pa.float64()),
        ("bitrate_kbps", pa.int32()),
        ("stop_reason", pa.string()),
        ("error_category", pa.string()),
        ("client_timestamp", MICROSECONDS),
        ("client_timestamp_reliable", pa.bool_()),
    ]
)


def said(name: str, dice: random.Random) -> dict:
    """What an event of this name says besides who, what and when; everything may be missing."""

    def some(*values):
        return dice.choice((None, *values))

    told = {column: some(f"{column} 1", f"{column} 2") for column in TEXTS if column not in DECIDING}
    told |= {column: some(True, False) for column in FLAGS}
    told |= {column: some(0, 1, 2) for column in (*NUMBERS, "content_episode_number")}
    told["content_genres"] = some([], ["Drama"], ["Drama", "News"])
    told["time_zone"] = some("UTC", "Europe/Paris")
    told["position_ms"] = None if name == "started" else some(0, 1, 600_000)
    if name == "heartbeat":
        told["bitrate_kbps"] = some(0, 1_000, 6_001)
    if name == "rebuffer":
        told["rebuffer_duration_ms"] = some(0, 700)
    if name == "error":
        told["error_category"] = some("network", "drm")
    if name == "stopped":
        told |= {"total_duration_ms": some(0, 900), "completion_percent": some(0.0, 95.5), "stop_reason": some("end")}
    return told


@st.composite
def histories(draw: st.DrawFn) -> list[dict]:
    """A few viewers, titles and sessions; times with ties and gaps of around 30 minutes."""
    events, time = [], T0
    for number in range(draw(st.integers(1, 16))):
        time += draw(st.sampled_from(STEPS_MS))
        name = draw(st.sampled_from(NAMES))
        viewer = draw(st.sampled_from(("ann", "ann", "bob", None)))
        token = viewer or draw(st.sampled_from(("kid today", "kid tomorrow")))
        deciding = {
            "profile_id": viewer,
            "viewer_token": token,
            "session_id": draw(st.sampled_from((None, "", "s1", "s2"))) if viewer else None,
            "playback_id": draw(st.sampled_from((None, None, "", "b1", "b2"))),
            "content_id": draw(st.sampled_from(("c1", "c1", "c2"))),
        }
        dice = random.Random(draw(st.integers(0, 2**32)))
        events.append(
            {"event_id": f"evt_{dice.random()}-{number}", "event_name": f"playback.{name}", "time": time}
            | {"client_timestamp": None, "client_timestamp_reliable": False, "completion_percent": None}
            | said(name, dice)
            | deciding
        )
    return draw(st.permutations(events))


def table_of(events: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([event | {"event_timestamp": event["time"] * 1000} for event in events], SCHEMA)


def identity(event: dict) -> tuple:
    if event["playback_id"] is not None:
        return event["profile_id"], event["playback_id"]
    session = event["viewer_token"] if event["session_id"] is None else event["session_id"]
    return event["profile_id"], None, session, event["content_id"]


def known(events: list[dict], column: str) -> list:
    return [event[column] for event in events if event.get(column) is not None]


def count(events: list[dict], name: str) -> int:
    return sum(event["event_name"] == f"playback.{name}" for event in events)


def session_of(playback: list[dict], chain_events: list[dict]) -> dict:
    """One session, from the events of a playback in their order."""
    starts = [event for event in walk(playback, []) if event["start"]]
    stops = [event for event in playback if event["event_name"] == "playback.stopped"]
    beats = known([event for event in playback if event["event_name"] == "playback.heartbeat"], "bitrate_kbps")
    last = {name: (known(playback, name) or [None])[-1] for name in ("position_ms", "total_duration_ms")}
    return {
        **{name: (known(playback, name) or [None])[0] for name in TOLD_ONCE},
        **last,
        "chain_first_at": min(event["time"] for event in chain_events),
        "chain_last_at": max(event["time"] for event in chain_events),
        "first_event_at": playback[0]["time"],
        "started_at": starts[0]["time"] if starts else None,
        "last_event_at": playback[-1]["time"],
        "is_ended": bool(stops),
        "event_count": len(playback),
        "watch_ms": sum(event["watched"] for event in walk(playback, [])),
        "completion_percent": stops[0].get("completion_percent") if stops else None,
        "stop_reason": stops[0].get("stop_reason") if stops else None,
        "stall_count": count(playback, "rebuffer"),
        "stall_ms": sum(known(playback, "rebuffer_duration_ms")),
        "mean_bitrate_kbps": sum(beats) / len(beats) if beats else None,
        "bitrate_switch_count": count(playback, "quality_changed"),
        "error_count": count(playback, "error"),
        "error_category": (known(playback, "error_category") or [None])[-1],
    }


def expected(events: list[dict]) -> list[dict]:
    by_chain: dict[tuple, list[dict]] = {}
    for event in events:
        by_chain.setdefault(identity(event), []).append(event)
    chain_of = dict(zip(map(identity, events), chains(table_of(events)).to_pylist(), strict=True))
    assert len(set(chain_of.values())) == len(by_chain), "a chain each"
    return [
        {"chain": chain_of[identity(playback[0])]} | session_of(playback, by_chain[identity(playback[0])])
        for playback in split_in_playbacks(events)
    ]


def rows_of(sessions: pa.Table) -> list[dict]:
    rows = []
    for row in sessions.to_pylist():
        at = {name: value for name, value in row.items() if name.endswith("_at") and value is not None}
        rows.append(row | {name: round(value.timestamp() * 1000) for name, value in at.items()})
    return rows


def as_set(rows: list[dict]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


@settings(deadline=None, max_examples=120)
@given(events=histories())
def test_sessions_equal_loops_over_events(events):
    found = rows_of(playback_sessions(table_of(events)))
    assert as_set(found) == as_set(expected(events))
    order = [(row["chain"], row["first_event_at"]) for row in found]
    assert order == sorted(order)


@settings(deadline=None, max_examples=60)
@given(events=histories())
def test_watch_time_is_what_the_viewing_log_says(events):
    table = table_of(events)
    log = viewing_log(table, TITLES_SCHEMA.empty_table())
    watched = dict(zip(log["event_id"].to_pylist(), log["watch_ms"].to_pylist(), strict=True))
    sums = [sum(watched.get(event["event_id"], 0) for event in playback) for playback in split_in_playbacks(events)]
    assert sorted(playback_sessions(table)["watch_ms"].to_pylist()) == sorted(sums)


def other_forms(table: pa.Table, cuts: list[int]) -> dict[str, pa.Table]:
    """The same rows as files, stores and concatenations hold them."""
    ends = sorted({0, *cuts, table.num_rows})
    chunks = [table.slice(start, end - start) for start, end in pairwise(ends)]
    texts = [field.name for field in table.schema if pa.types.is_string(field.type) and field.name != "event_id"]

    def encode(part: pa.Table) -> pa.Table:
        for name in texts:
            part = part.set_column(part.column_names.index(name), name, part[name].combine_chunks().dictionary_encode())
        return part

    empty = [name for name in table.column_names if table[name].null_count == table.num_rows]
    untyped = table
    for name in empty:
        untyped = untyped.set_column(untyped.column_names.index(name), name, pa.nulls(table.num_rows))
    return {
        "in chunks": pa.concat_tables(chunks),
        "encoded, a dictionary a chunk": pa.concat_tables([encode(part) for part in chunks]),
        "encoded, one dictionary": encode(table),
        "without types where there is no value": untyped,
        "in milliseconds": table.cast(
            pa.schema([f.with_type(pa.timestamp("ms", tz="UTC")) if f.type == MICROSECONDS else f for f in SCHEMA])
        ),
    }


@settings(deadline=None, max_examples=60)
@given(events=histories(), cuts=st.lists(st.integers(1, 15), max_size=3))
def test_the_form_of_the_table_does_not_matter(events, cuts):
    table = table_of(events)
    sessions, own = as_set(rows_of(playback_sessions(table))), chains(table).to_pylist()
    for form, same in other_forms(table, [cut for cut in cuts if cut < table.num_rows]).items():
        assert chains(same).to_pylist() == own, form
        assert as_set(rows_of(playback_sessions(same))) == sessions, form


def test_a_chains_number_never_changes_for_it_is_stored():
    rows = [
        {"profile_id": "ann", "playback_id": "b1", "session_id": "s1", "viewer_token": "ann", "content_id": "c1"},
        {"profile_id": "ann", "session_id": "s1", "viewer_token": "ann", "content_id": "c1"},
        {"viewer_token": "kid today", "content_id": "c1"},
        {},
    ]
    table = pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in CHAIN_COLUMNS]))
    # BLAKE2b-64 of the five ids, joined by the unit separator, which also stands for one that is null; by hashlib.
    assert chains(table).to_pylist() == [
        -1563425538240558980, 2836342538550224696, -6355209717804067063, 3186366028882362252,
    ]  # fmt: skip


@pytest.mark.parametrize("column", EVENT_COLUMNS)
def test_a_missing_column_is_named(column):
    table = table_of([])
    with pytest.raises(LogError, match=rf"the playback table lacks the column\(s\) {column};"):
        playback_sessions(table.drop_columns(column))


def test_of_no_events_there_is_no_session():
    assert playback_sessions(table_of([])).num_rows == 0


def test_a_session_by_hand():
    """Started, stalled, paused five minutes, stopped; a heartbeat that came after the stop counts as an event only."""
    common = {"profile_id": "ann", "viewer_token": "ann", "session_id": "s1", "playback_id": "b1", "content_id": "c1"}
    spoken = [
        ("requested", 0, {}),
        ("started", 1, {"start_time_ms": 900, "cdn": "east"}),
        ("heartbeat", 2, {"bitrate_kbps": 4000, "position_ms": 60_000, "cdn": "west"}),
        ("rebuffer", 3, {"rebuffer_duration_ms": 1500, "position_ms": 120_000}),
        ("paused", 4, {"position_ms": 180_000}),
        ("resumed", 9, {"position_ms": 180_000}),
        ("heartbeat", 10, {"bitrate_kbps": 5000, "position_ms": 240_000}),
        ("stopped", 11, {"position_ms": 300_000, "completion_percent": 50.0, "stop_reason": "user"}),
        ("heartbeat", 12, {"bitrate_kbps": 6000}),
    ]
    events = [
        {"event_id": f"evt_{minute}", "event_name": f"playback.{name}", "time": T0 + minute * MINUTE} | common | more
        for name, minute, more in spoken
    ]
    (session,) = rows_of(playback_sessions(table_of(events)))
    assert session["watch_ms"] == (3 + 2) * MINUTE
    assert (session["first_event_at"], session["started_at"]) == (T0, T0 + MINUTE)
    assert (session["last_event_at"], session["event_count"]) == (T0 + 12 * MINUTE, 9)
    assert (session["stall_count"], session["stall_ms"], session["mean_bitrate_kbps"]) == (1, 1500, 5000.0)
    assert (session["position_ms"], session["completion_percent"], session["stop_reason"]) == (300_000, 50.0, "user")
    assert (session["cdn"], session["start_time_ms"], session["is_ended"]) == ("east", 900, True)
    (unfinished,) = rows_of(playback_sessions(table_of(events[:7])))
    assert (unfinished["is_ended"], unfinished["completion_percent"]) == (False, None)
    assert unfinished["last_event_at"] == T0 + 10 * MINUTE
