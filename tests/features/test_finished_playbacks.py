"""Versions of playbacks against loops over dictionaries: when each is over, what its session says, how good it was."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import LogError
from features.finished_playbacks import EVENT_COLUMNS, FINISHED_PLAYBACKS, finished_playbacks
from features.playback_sessions import playback_sessions
from tests.features.oracle import split_in_playbacks
from tests.features.source_oracle import LADDER, score, steps
from tests.features.test_playback_sessions import MINUTE, SCHEMA, T0, as_set, histories, rows_of, session_of

WIDER = pa.schema([*SCHEMA, ("initial_bitrate_kbps", pa.int32()), ("new_bitrate_kbps", pa.int32())])
BITRATES = {"started": "initial_bitrate_kbps", "heartbeat": "bitrate_kbps", "quality_changed": "new_bitrate_kbps"}


@st.composite
def worlds(draw):
    """Histories in which players also say their bitrates."""
    events = draw(histories())
    for event in events:
        event |= dict.fromkeys(BITRATES.values())
        kind = event["event_name"].removeprefix("playback.")
        if kind in BITRATES:
            event[BITRATES[kind]] = draw(st.sampled_from((None, 100, 3_000, 7_800)))
    return events


def versions(events):
    """What is found, without the numbers of playbacks."""
    return finished_playbacks(table_of(events)).drop_columns(["playback"])


def table_of(events):
    return pa.Table.from_pylist([event | {"event_timestamp": event["time"] * 1000} for event in events], WIDER)


def score_of(playback):
    """The score at the end of the last stretch before which a bitrate was known."""
    level, start_ms, stretches, stalls_ms, last = None, None, [], [], None
    for event, watched, is_start, _ in steps(playback):
        if event["event_name"] == "playback.rebuffer":
            stalls_ms.append(event.get("rebuffer_duration_ms") or 0)
        if is_start and event["start_time_ms"] is not None:
            start_ms = event["start_time_ms"]
        if watched and level is not None:
            stretches.append((level, watched))
            last = score(stretches, stalls_ms, start_ms)
        kbps = [event[name] for name in BITRATES.values() if event[name] is not None]
        if kbps:
            level = max(sum(kbps[0] >= rung for rung in LADDER), 1)
    return last


def versions_of(playback):
    """(events by then, when it is over) of each version."""
    for place, event in enumerate(playback):
        has_stopped = any(one["event_name"] == "playback.stopped" for one in playback[: place + 1])
        over_at = event["time"] + (5_000 if has_stopped else 30 * MINUTE)
        if place + 1 == len(playback) or playback[place + 1]["time"] > over_at:
            yield playback[: place + 1], over_at


@settings(deadline=None, max_examples=80)
@given(worlds())
def test_versions_equal_loops_over_events(events):
    found = rows_of(versions(events))
    scores = {(row["over_at"], row["first_event_at"], row["event_count"], repr(row)): row.pop("score") for row in found}
    expected, expected_scores = [], []
    for playback in split_in_playbacks(events):
        for known, over_at in versions_of(playback):
            session = session_of(known, known)
            first = [event["initial_bitrate_kbps"] for event, *_ in steps(known)]
            first = [kbps for kbps in first if kbps is not None]
            del session["chain_first_at"], session["chain_last_at"]
            expected.append(session | {"over_at": over_at, "initial_bitrate_kbps": (first or [None])[0]})
            expected_scores.append(score_of(known))
    assert as_set(found) == as_set(expected)
    told = sorted(one for one in scores.values() if one is not None)
    assert told == pytest.approx(sorted(one for one in expected_scores if one is not None), abs=0.000501)


@settings(deadline=None, max_examples=40)
@given(worlds())
def test_the_last_versions_are_the_batchs_sessions(events):
    table = table_of(events)
    batch = rows_of(playback_sessions(table).drop_columns(["chain", "chain_first_at", "chain_last_at"]))
    found = finished_playbacks(table)
    rows = rows_of(found.select([one for one in found.column_names if one in batch[0]]))
    counts = [row["event_count"] for row in rows]
    assert set(as_set(batch)) <= set(as_set(rows))
    assert sum(row["event_count"] for row in batch) == len(events) <= sum(counts)


@settings(deadline=None, max_examples=40)
@given(worlds(), st.data())
def test_what_is_over_stays_as_it_was_told(events, data):
    """Of the events before an instant every version that is over by then is one of all events."""
    now = data.draw(st.sampled_from([event["time"] for event in events])) + data.draw(st.sampled_from((0, 1, 5_000)))
    seen = [event for event in events if event["time"] <= now]
    whole = as_set(rows_of(versions(events)))
    told = [row for row in rows_of(versions(seen)) if row["over_at"] < now]
    assert set(as_set(told)) <= set(whole)


def test_a_score_is_the_same_to_the_last_bit_whoever_else_is_looked_at():
    """64.192 is 64.19200000000001 where it is made as a multiple of a thousandth: the scores' ids are made of it."""
    starts_ms = [608 + 7 * place for place in range(50)]
    whole = finished_playbacks(table_of([event for start_ms in starts_ms for event in playback_of(start_ms)]))
    alone = [finished_playbacks(table_of(playback_of(start_ms)))["score"][0].as_py() for start_ms in starts_ms]
    assert sorted(whole["score"].to_pylist()) == sorted(alone)
    assert len(set(alone)) > 40


def playback_of(start_ms):
    """Two minutes watched after a wait."""
    who = {name: f"{name} {start_ms}" for name in ("viewer_token", "profile_id", "session_id", "playback_id")}
    said = dict.fromkeys(WIDER.names) | who | {"content_id": "a", "start_time_ms": start_ms, "bitrate_kbps": 3_000}
    return [
        said | {"event_id": f"{name} {start_ms}", "event_name": f"playback.{name}", "time": T0 + at_ms}
        for name, at_ms in (("started", 0), ("heartbeat", MINUTE), ("stopped", 2 * MINUTE))
    ]


def test_of_no_events_there_is_none_and_a_missing_column_is_named():
    assert finished_playbacks(table_of([])).num_rows == 0
    assert FINISHED_PLAYBACKS.reads == {"silver.playback": EVENT_COLUMNS}
    with pytest.raises(LogError, match="new_bitrate_kbps"):
        finished_playbacks(table_of([]).drop_columns(["new_bitrate_kbps"]))
