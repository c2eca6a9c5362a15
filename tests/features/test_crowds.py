"""Children in crowds, against a reading of the rule one viewer at a time, and by what two publications tell apart."""

from collections import defaultdict

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from features.crowds import in_crowds, with_children, with_crowds, without_children

HOUR_MS = 3_600_000
TIMESTAMP = pa.timestamp("ms", tz="UTC")

rows = st.lists(
    st.tuples(
        st.sampled_from(["title-1", "title-2"]),
        st.sampled_from([0, 1, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1, 2 * HOUR_MS]),
        st.one_of(st.none(), st.sampled_from("abcdefg")),  # the child; None: a grown-up
        st.integers(0, 4),  # when it became known
    ),
    max_size=40,
)


def log_of(rows):
    return pa.table(
        {
            "event_id": pa.array([f"e{place}" for place in range(len(rows))], pa.string()),
            "event_timestamp": pa.array([at for _, at, _, _ in rows], TIMESTAMP),
            "content_id": pa.array([title for title, _, _, _ in rows], pa.string()),
            "child": pa.array([child for _, _, child, _ in rows], pa.string()),
            "child_known_at": pa.array([None if child is None else at for _, _, child, at in rows], TIMESTAMP),
        }
    )


def counted(rows, k):
    """Places of the rows that count: the rule, cell by cell and viewer by viewer."""
    cells = defaultdict(list)
    for place, (title, at, child, known) in enumerate(rows):
        if child is not None:
            cells[title, at // HOUR_MS].append((known, child, place))
    kept = {place for place, (_, _, child, _) in enumerate(rows) if child is None}
    for few in cells.values():
        first = {}
        for known, child, _ in sorted(few):
            first.setdefault(child, known)
        order = sorted(first, key=lambda child: (first[child], child))
        for start in range(0, len(order) - k + 1, k):
            crowd = order[start : start + k]
            full = max(first[child] for child in crowd)
            kept |= {place for known, child, place in few if child in crowd and known <= full}
    return kept


@settings(deadline=None)
@given(rows, st.integers(1, 4))
def test_only_whole_crowds_count(rows, k):
    mask = in_crowds(log_of(rows), "content_id", k)
    assert {place for place, counts in enumerate(mask) if counts} == counted(rows, k)


@settings(deadline=None)
@given(rows, st.integers(2, 4), st.integers(0, 4))
def test_two_publications_differ_by_whole_crowds_or_by_grown_ups(rows, k, until):
    """What is known by an instant, published then and again later: an hour gains k viewers or none."""
    now = [row for row in rows if row[3] <= until]
    before = {now[place] for place in counted(now, k) if now[place][2] is not None}
    after = {rows[place] for place in counted(rows, k) if rows[place][2] is not None}
    assert before <= after
    gained = defaultdict(set)
    for title, at, child, _ in after - before:
        gained[title, at // HOUR_MS].add(child)
    assert all(len(children) >= k for children in gained.values())


def test_nineteen_are_no_crowd_and_twenty_are():
    nineteen = [("title-1", 5, f"child-{number}", 1) for number in range(19)] + [("title-1", 5, None, 1)]
    assert with_crowds(log_of(nineteen), "content_id", 20).num_rows == 1
    twenty = [*nineteen, ("title-1", 6, "child-19", 1)]
    assert with_crowds(log_of(twenty), "content_id", 20).num_rows == 21
    elsewhere = [*nineteen, ("title-2", 6, "child-19", 1), ("title-1", HOUR_MS, "child-19", 1)]
    assert with_crowds(log_of(elsewhere), "content_id", 20).num_rows == 1
    assert without_children(log_of(twenty)).num_rows == 1
    assert with_crowds(log_of(twenty), "content_id", 20).column_names == ["event_id", "event_timestamp", "content_id"]


def test_whose_a_row_of_a_log_is_told_by_its_event():
    events = log_of([("title-1", 5, "a", 7), ("title-1", 6, None, 1)])
    log = pa.table({"event_id": ["e0:from", "e1", "e0", "e9", "e1:from", "e0:other"]})
    found = with_children(log, [events])
    assert found["child"].to_pylist() == ["a", None, "a", None, None, None]
    assert [None if one is None else one.timestamp() for one in found["child_known_at"].to_pylist()] == [
        0.007, None, 0.007, None, None, None,
    ]  # fmt: skip
    nobody = with_children(log, [events.slice(1)])
    assert nobody["child"].null_count == 6
