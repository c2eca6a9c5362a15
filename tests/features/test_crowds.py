"""Children in crowds, against a reading of the rule one viewer at a time, and by what two publications tell apart."""

from collections import defaultdict

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from features.crowds import CHILD, WITHDRAWN, among_many, counts, guarded, unguarded

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
            "guard": pa.array([None if child is None else CHILD for _, _, child, _ in rows], pa.int8()),
            "guarded_viewer": pa.array([child or "adult" for _, _, child, _ in rows], pa.string()),
            "guarded_known_at": pa.array([at for _, _, _, at in rows], TIMESTAMP),
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
    mask = counts(log_of(rows), "content_id", k)
    assert {place for place, is_counted in enumerate(mask) if is_counted} == counted(rows, k)


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
    assert among_many(log_of(nineteen), "content_id", 20).num_rows == 1
    twenty = [*nineteen, ("title-1", 6, "child-19", 1)]
    assert among_many(log_of(twenty), "content_id", 20).num_rows == 21
    elsewhere = [*nineteen, ("title-2", 6, "child-19", 1), ("title-1", HOUR_MS, "child-19", 1)]
    assert among_many(log_of(elsewhere), "content_id", 20).num_rows == 1
    assert unguarded(log_of(twenty)).num_rows == 1
    assert among_many(log_of(twenty), "content_id", 20).column_names == ["event_id", "event_timestamp", "content_id"]


def test_whose_a_row_of_a_log_is_told_by_its_event():
    events = log_of([("title-1", 5, "a", 7), ("title-1", 6, None, 1)])
    log = pa.table({"event_id": ["e0:from", "e1", "e0", "e9", "e1:from", "e0:other"]})
    found = guarded(log, [events])
    assert found["guard"].to_pylist() == [CHILD, None, CHILD, None, None, None]
    assert found["guarded_viewer"].to_pylist() == ["a", "adult", "a", None, "adult", None]
    known_ms = found["guarded_known_at"].cast(pa.int64()).to_pylist()
    assert known_ms == [7, 1, 7, None, 1, None]
    assert guarded(log, [events.slice(1)])["guard"].null_count == 6


def test_who_has_withdrawn_stays_where_many_counted():
    def viewers(adults, children, title):
        rows = [(title, 5, None, 1)] * (adults + 1) + [(title, 5, f"child-{one}", 1) for one in range(children)]
        log = log_of(rows)
        names = [f"{title}-{place}" for place in range(adults + 1)] + [row[2] for row in rows[adults + 1 :]]
        guard = [WITHDRAWN, *[None] * adults, *[CHILD] * children]
        log = log.set_column(3, "guard", pa.array(guard, pa.int8()))
        return log.set_column(4, "guarded_viewer", pa.array(names))

    def counted_rows(*log):
        return [among_many(pa.concat_tables(log), "content_id", 4).num_rows]

    assert counted_rows(viewers(2, 0, "a")) == [2], "of three viewers one goes"
    assert counted_rows(viewers(3, 0, "a")) == [4], "of four all stay"
    assert counted_rows(viewers(3, 0, "a"), viewers(2, 0, "b")) == [4 + 2]
    assert counted_rows(viewers(2, 3, "a")) == [2], "children who count nowhere are nobody here"
    assert counted_rows(viewers(2, 4, "a")) == [3 + 4]
