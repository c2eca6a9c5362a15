"""Labels and spines against plain loops, and against changes of the past and the future."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.aggregates import Count, First, Max, Slope, Sum
from features.declarations import Feature, FeatureGroup
from features.entities import first_of, key_of
from features.errors import DeclarationError
from features.filters import Is
from features.purposes import Purpose
from features.source import Source
from features.training import Every, Happened, Label, PerEvent
from features.training.labels import label_values
from features.values import values_at
from features.windows import Cadence

HOUR, DAY = 3_600_000, 86_400_000
TIME = pa.timestamp("ms", tz="UTC")
T0 = 20_000 * DAY
LOG = Source(
    "deeds",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_name", pa.string()),
            ("event_timestamp", TIME),
            ("user_id", pa.string()),
            ("content_id", pa.string()),
            ("amount", pa.int64()),
        ]
    ),
    events=("a", "b"),
)
HORIZON = 5 * HOUR
LABELS = (
    Label("any", Happened(), LOG, ("user_id",)),
    Label("any_a", Happened(Is("event_name", "a")), LOG, ("user_id",)),
    Label("number", Count(Is("event_name", "b")), LOG, ("user_id",)),
    Label("total", Sum("amount"), LOG, ("user_id",)),
    Label("first", First("content_id"), LOG, ("user_id",)),
    Label("most", Max("amount"), LOG, ("user_id",)),
)
FEATURES = FeatureGroup(
    "deeds_done", ("user_id",), LOG, Cadence.EVENT, 400 * DAY, Purpose.PERSONALIZATION, "tests", "All of it.",
    (
        Feature("number", Count(), 3 * DAY, "Events.", "events", (0, 1e9)),
        Feature("total", Sum("amount"), 5 * HOUR, "Amount.", "1", (0, 1e9)),
        Feature("first", First("content_id"), 3 * DAY, "First.", "title", None),
    ),
)  # fmt: skip

an_event = st.fixed_dictionaries(
    {
        "event_name": st.sampled_from(["a", "b"]),
        # Often the same instants, and those at the edges of a horizon.
        "at": st.one_of(st.integers(0, 4).map(lambda n: n * HORIZON), st.integers(-1, 20 * HOUR)),
        "user_id": st.sampled_from(["ann", "bob", None]),
        "content_id": st.sampled_from(["x", "y/%z", None]),
        "amount": st.one_of(st.none(), st.integers(0, 9)),
    }
)
events = st.lists(an_event, max_size=25)


def log_of(rows: list[dict]) -> pa.Table:
    named = [
        {"event_id": f"e{number:04d}", "event_timestamp": T0 + row["at"]} | {k: v for k, v in row.items() if k != "at"}
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(named, schema=LOG.schema)


def expected(rows: list[dict], keys: dict, at: int) -> dict:
    """By the definition: events strictly after the instant, up to and with its end, by time and then by id."""
    seen = [
        row
        for _, row in sorted(enumerate(rows), key=lambda pair: (pair[1]["at"], pair[0]))
        if all(row[name] == value and value is not None for name, value in keys.items())
        and at < row["at"] <= at + HORIZON
    ]
    amounts = [row["amount"] for row in seen if row["amount"] is not None]
    titles = [row["content_id"] for row in seen if row["content_id"] is not None]
    return {
        "any": len(seen) > 0,
        "any_a": any(row["event_name"] == "a" for row in seen),
        "number": sum(row["event_name"] == "b" for row in seen),
        "total": sum(amounts),
        "first": titles[0] if titles else None,
        "most": max(amounts) if amounts else None,
    }


def asked(rows: list[dict], labels, keys: list[tuple], instants: list[int]) -> list[dict]:
    distinct = key_of([pa.array([key[place] for key in keys], pa.string()) for place in range(len(keys[0]))])
    owners = np.repeat(np.arange(len(keys)), len(instants))
    at_ms = np.tile(np.array(instants, dtype=np.int64), len(keys)) + T0
    columns = label_values(labels, HORIZON, log_of(rows), distinct, owners, at_ms)
    return pa.table(columns, names=[label.name for label in labels]).to_pylist()


@settings(max_examples=150, deadline=None)
@given(events, st.lists(st.integers(-HORIZON - 1, 20 * HOUR), min_size=1, max_size=6))
def test_labels_are_those_of_a_loop_over_the_events(rows, instants):
    instants = [*instants, *(row["at"] - HORIZON for row in rows[:3]), *(row["at"] for row in rows[:3])]
    keys = [("ann",), ("bob",), ("nobody",)]
    got = asked(rows, LABELS, keys, instants)
    assert got == [expected(rows, {"user_id": user}, at) for (user,) in keys for at in instants]


@settings(max_examples=80, deadline=None)
@given(events, st.integers(-1, 20 * HOUR))
def test_labels_by_two_columns_need_both(rows, at):
    labels = tuple(Label(one.name, one.aggregate, LOG, ("user_id", "content_id")) for one in LABELS)
    keys = [("ann", "x"), ("ann", "y/%z"), ("bob", "y/%z"), ("ann", "none")]
    got = asked(rows, labels, keys, [at])
    assert got == [expected(rows, {"user_id": user, "content_id": title}, at) for user, title in keys]


def test_the_first_column_of_a_key_is_had_back():
    parts = ["a", "a/b", "%2F", "100%", "", "é/%25"]
    keys = key_of([pa.array(parts), pa.array(["x/y"] * len(parts))])
    assert first_of(keys).to_pylist() == parts


@settings(max_examples=150, deadline=None)
@given(events, events, st.integers(0, 18 * HOUR))
def test_the_past_moves_no_label_and_the_future_no_feature(rows, others, at):
    """Whatever happened at or before an instant is in no label; whatever happens at or after it in no feature."""
    earlier, later = [row for row in rows if row["at"] <= at], [row for row in rows if row["at"] > at]
    other_past, other_future = [row for row in others if row["at"] <= at], [row for row in others if row["at"] > at]
    labels = asked([*earlier, *later], LABELS, [("ann",), ("bob",)], [at])
    moved = asked([*other_past, *later], LABELS, [("ann",), ("bob",)], [at])
    assert labels == moved

    users = pa.array(["ann", "bob"])
    known = [row for row in rows if row["at"] < at]
    when = [T0 + at] * 2
    one = values_at(FEATURES, "user_id", log_of([*known, *later]), users, when)
    other = values_at(
        FEATURES, "user_id", log_of([*known, *other_future, *[r for r in others if r["at"] == at]]), users, when
    )
    assert one.equals(other)


@settings(max_examples=150, deadline=None)
@given(events, st.integers(0, 4), st.booleans())
def test_everybody_every_so_often_is_who_a_loop_finds(rows, memory, begins_again):
    spine = Every(
        LOG, "user_id", step_ms=HOUR, seen_within_ms=memory * HOUR + 1, ended_by=Is("event_name", "b"),
        begun_by=Is("event_name", "a") if begins_again else None,
    )  # fmt: skip
    until = 22 * HOUR
    got = [
        (row["user_id"], round(row["event_timestamp"].timestamp() * 1000) - T0)
        for row in spine.rows(log_of(rows), T0 + until).to_pylist()
    ]
    want = []
    for user in ("ann", "bob"):
        for at in range(-2 * HOUR, until, HOUR):
            before = [row for row in rows if row["user_id"] == user and row["at"] < at]
            ended = max((row["at"] for row in before if row["event_name"] == "b"), default=None)
            begun = max((row["at"] for row in before if row["event_name"] == "a"), default=None)
            is_over = ended is not None and not (begins_again and begun is not None and begun > ended)
            if not is_over and any(at - row["at"] <= spine.seen_within_ms for row in before):
                want.append((user, at))
    assert got == want
    by_instant = Counter(T0 + at for _, at in want)
    assert spine.rows_by_instant(log_of(rows), T0 + until) == by_instant
    some = spine.rows(log_of(rows), T0 + 8 * HOUR, T0 + 3 * HOUR - 1).to_pylist()
    assert len(some) == sum(count for at, count in by_instant.items() if T0 + 3 * HOUR <= at < T0 + 8 * HOUR)


@settings(max_examples=80, deadline=None)
@given(events)
def test_a_row_brings_along_what_was_last_said_and_for_how_long_its_key_is_known(rows):
    spine = Every(LOG, "user_id", step_ms=HOUR, seen_within_ms=90 * HOUR, keeps=("content_id",), days_known="days")
    spine.check()
    found = spine.rows(log_of(rows), T0 + 40 * HOUR)
    assert tuple(found.column_names) == spine.columns
    for row in found.to_pylist():
        at = round(row["event_timestamp"].timestamp() * 1000) - T0
        before = [
            (one["at"], f"e{number:04d}", one["content_id"])
            for number, one in enumerate(rows)
            if one["user_id"] == row["user_id"] and one["at"] < at
        ]
        said = [content for _, _, content in sorted(before, key=lambda one: one[:2]) if content is not None]
        assert row["content_id"] == (said[-1] if said else None)
        assert row["days"] == (at - min(before)[0]) // DAY


def test_a_row_for_each_event_that_is_meant():
    chance = random.Random(3)
    rows = [
        {"event_name": chance.choice("ab"), "at": chance.randrange(DAY), "user_id": chance.choice(["ann", "bob", None]),
         "content_id": chance.choice(["x", "y", None]), "amount": None}
        for _ in range(60)
    ]  # fmt: skip
    spine = PerEvent(LOG, "user_id", Is("event_name", "a"), keeps=("content_id",), lead_ms=1)
    got = spine.rows(log_of(rows), T0 + 20 * HOUR).to_pylist()
    want = sorted(
        (row["user_id"], row["at"], f"e{number:04d}", row["content_id"])
        for number, row in enumerate(rows)
        if row["event_name"] == "a" and row["user_id"] is not None and row["at"] - 1 < 20 * HOUR
    )
    assert [
        (row["user_id"], round(row["event_timestamp"].timestamp() * 1000) - T0 + 1, row["event_id"], row["content_id"])
        for row in got
    ] == want
    by_hour = Counter(T0 + (at - 1) // HOUR * HOUR for _, at, _, _ in want)
    assert spine.rows_by_instant(log_of(rows), T0 + 20 * HOUR) == by_hour
    some = spine.rows(log_of(rows), T0 + 9 * HOUR, T0 + 3 * HOUR)
    assert some.num_rows == sum(count for at, count in by_hour.items() if T0 + 3 * HOUR <= at < T0 + 9 * HOUR)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (Label("x", Count(), LOG, ()), "by which column"),
        (Label("x", Count(), LOG, ("user",)), "no entity has the key"),
        (Label("x", Count(), LOG, ("user_id", "amount")), "no text column of the source deeds"),
        (Label("x", Count(Is("event_name", "c")), LOG, ("user_id",)), "unknown event c; the nearest is"),
        (Label("x", Sum("amont"), LOG, ("user_id",)), "unknown column amont; the nearest is amount"),
        (Label("x", Slope(Count(), block_ms=HOUR), LOG, ("user_id",)), "a horizon has none"),
    ],
)
def test_a_label_that_cannot_be_is_refused(label, said):
    with pytest.raises(Exception, match=said) as refused:
        label.check(HORIZON)
    assert "\n" not in str(refused.value)


def test_a_spine_that_cannot_be_is_refused():
    with pytest.raises(DeclarationError, match="no column contents; the nearest is content_id"):
        PerEvent(LOG, "user_id", keeps=("contents",)).check()
    with pytest.raises(DeclarationError, match="give that too"):
        Every(LOG, "user_id", begun_by=Is("event_name", "a")).check()
    with pytest.raises(DeclarationError, match="after their event"):
        PerEvent(LOG, "user_id", lead_ms=-1).check()
    with pytest.raises(DeclarationError, match="no column contents; the nearest is content_id"):
        Every(LOG, "user_id", keeps=("contents",)).check()
    with pytest.raises(DeclarationError, match="called alike"):
        Every(LOG, "user_id", keeps=("content_id",), days_known="content_id").check()
