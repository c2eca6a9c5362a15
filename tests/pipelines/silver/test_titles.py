"""The catalogue's history: in whatever order and pieces it is announced, it comes to the same."""

import random
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.clean import Cleaning
from pipelines.lakehouse import tables
from pipelines.silver.titles import announce
from tests.pipelines.silver.bronze_rows import Lake, Row, row, table_of
from tests.platform import HOUR, T0

DESCRIPTION = ("title", "content_type", "genres", "runtime_ms", "maturity_rating", "series_id", "episode_number")
AVAILABILITY = ("is_available", "available_markets", "available_until")


def announcement(number: int, content: str, at_ms: int, by: str, dice: random.Random) -> Row:
    """What one event says; a description may leave things unsaid, and then they are unknown."""
    common = {"event_id": f"evt_{number}", "event_timestamp": at_ms, "content_id": content, "announced_by": by}
    if by == "availability.changed":
        return common | {
            "is_available": dice.choice((True, False)),
            "available_markets": dice.choice((None, [], ["GB", "US"])),
            "available_until": dice.choice((None, T0 + HOUR)),
        }
    return common | {
        "title": dice.choice((None, "", f"Title {number}")),
        "content_type": dice.choice((None, "vod", "live")),
        "genres": dice.choice((None, [], ["Drama", "News"])),
        "runtime_ms": dice.choice((None, 0, number)),
        "maturity_rating": dice.choice((None, "PG")),
        "series_id": dice.choice((None, "series")),
        "episode_number": dice.choice((None, 0, 3)),
    }


BY = st.sampled_from(("title.added", "title.updated", "availability.changed"))
announcements = st.lists(
    st.tuples(st.sampled_from(("c1", "c2")), st.sampled_from((0, 1, 1, HOUR)), BY, st.integers(0, 2**16)), max_size=10
).map(
    lambda said: [
        announcement(number, content, T0 + offset_ms, by, random.Random(seed))
        for number, (content, offset_ms, by, seed) in enumerate(said)
    ]
)


def folded(rows: list[Row]) -> list[Row]:
    """Title by title, in the order of time and id: each row says what was last said of everything."""
    known: dict[str, Row] = {}
    history = []
    for one in sorted(rows, key=lambda one: (one["content_id"], one["event_timestamp"], one["event_id"])):
        said = AVAILABILITY if one["announced_by"] == "availability.changed" else DESCRIPTION
        state = known.setdefault(one["content_id"], dict.fromkeys((*DESCRIPTION, *AVAILABILITY)))
        state |= {name: one.get(name) for name in said}
        history.append(
            {name: one[name] for name in ("event_id", "event_timestamp", "content_id", "announced_by")} | state
        )
    return sorted(history, key=lambda one: one["event_id"])


def plain(history: pa.Table) -> list[Row]:
    rows = history.to_pylist()
    for one in rows:
        for name in ("event_timestamp", "available_until"):
            one[name] = one[name] and round(one[name].timestamp() * 1000)
    return sorted(rows, key=lambda one: one["event_id"])


@settings(deadline=None, max_examples=150)
@given(rows=announcements, order=st.randoms(use_true_random=False), cuts=st.sets(st.integers(1, 14), max_size=4))
def test_any_order_and_any_cut_come_to_the_same_history(rows, order, cuts):
    sent = [*rows, *order.sample(rows, len(rows) // 3)]  # some are sent again
    order.shuffle(sent)
    ends = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    history, added, repeated = tables.TITLE_HISTORY.empty_table(), 0, 0
    for start, end in pairwise(ends):
        before = history
        told = announce(history, table_of(sent[start:end], tables.TITLE_HISTORY))
        history = told.rows if told.is_rewritten else pa.concat_tables([history, told.rows])
        added, repeated = added + told.added, repeated + told.duplicates
        if not told.is_rewritten:
            assert told.rows.num_rows == told.added
        changed = {one["event_id"]: one for one in plain(history)}
        assert told.is_rewritten is any(changed[one["event_id"]] != one for one in plain(before))
    assert plain(history) == folded(rows)
    assert (added, repeated) == (len(rows), len(sent) - len(rows))


def test_columns_that_no_announcement_has_are_null():
    fresh = table_of([{"event_id": "e", "event_timestamp": T0, "content_id": "c"}], tables.TITLE_HISTORY)
    told = announce(tables.TITLE_HISTORY.empty_table(), fresh.select(["event_id", "event_timestamp", "content_id"]))
    (found,) = plain(told.rows)
    assert {name for name, value in found.items() if value is not None} == {"event_id", "event_timestamp", "content_id"}


@pytest.mark.usefixtures("ray_session")
def test_a_process_that_goes_on_cleaning_keeps_the_history_right(tmp_path: Path):
    """Late announcements have the table written anew, again and again; each is in it once."""
    lake = Lake(tmp_path)
    cleaning = Cleaning(lake.settings)

    def said(name: str, number: int, at_ms: int, **columns: object) -> Row:
        place = {"topic": "catalog.changes", "content_id": "vod-1"}
        return row(name, number, at_ms, None, **place) | columns

    sent = [
        said("title.added", 1, T0 + 2 * HOUR, title="Second", content_type="vod"),
        said("availability.changed", 2, T0 + HOUR, is_available=True, available_markets=["GB"]),
        said("title.added", 3, T0, title="First", content_type="live"),
        said("availability.changed", 4, T0 + 3 * HOUR, is_available=False, available_markets=[]),
        said("title.updated", 5, T0 + 1, title="First, mended", content_type="vod"),
    ]
    for number, one in enumerate(sent, start=1):
        lake.receive([one])
        assert cleaning.run().wrote["silver.titles"] == 1
        history = table_of([], tables.TITLE_HISTORY)
        stored = pa.Table.from_pylist(lake.rows("silver.titles"), history.schema)
        assert plain(stored) == folded([row | {"announced_by": row["event_name"]} for row in sent[:number]])
