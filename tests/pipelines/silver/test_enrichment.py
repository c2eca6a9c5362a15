"""What the catalogue and the subscriptions tell of an event, as of its instant: arithmetic by hand."""

import pyarrow as pa
import pytest

from pipelines.lakehouse import tables
from pipelines.silver.enrichment import Knowledge
from pipelines.silver.histories import History
from tests.pipelines.silver.bronze_rows import Row, table_of
from tests.platform import HOUR, T0

DOMAIN_COLUMNS = (
    *("content_type", "content_title", "content_genres", "content_series_id", "content_episode_number"),
    *("content_runtime_ms", "content_maturity_rating", "is_orphan", "channel_name", "subscription_tier"),
    "client_timestamp_reliable",
)
TITLES = [
    {"content_id": "vod-1", "event_timestamp": T0, "title": "Draft", "content_type": "vod", "genres": []},
    {
        "content_id": "vod-1", "event_timestamp": T0 + HOUR, "title": "Film", "content_type": "vod",
        "genres": ["Drama", "News"], "series_id": "s", "episode_number": 0, "runtime_ms": 0, "maturity_rating": "PG",
    },
    {"content_id": "live-1", "event_timestamp": T0, "title": "News 24", "content_type": "live"},
    {"content_id": "bare-1", "event_timestamp": T0},
]  # fmt: skip
SUBSCRIPTIONS = [
    {"user_id": "ann", "event_timestamp": T0, "subscription_tier": "basic"},
    {"user_id": "ann", "event_timestamp": T0 + HOUR, "subscription_tier": "premium", "valid_until": T0 + 2 * HOUR},
    {"user_id": "bob", "event_timestamp": T0, "subscription_tier": "basic", "valid_until": T0},
    {"user_id": "cat", "event_timestamp": T0, "subscription_tier": None},
]  # fmt: skip
EVENTS = pa.schema(
    [
        pa.field("event_timestamp", tables.TIMESTAMP),
        pa.field("client_timestamp", tables.TIMESTAMP),
        *(pa.field(name, pa.string()) for name in ("user_id", "content_id", "channel_id", "content_type")),
        pa.field("subscription_tier", pa.string()),
    ]
)


def numbered(rows: list[Row]) -> list[Row]:
    return [{"event_id": f"evt_{number}"} | one for number, one in enumerate(rows)]


KNOWLEDGE = Knowledge(
    History.of(table_of(numbered(TITLES), tables.TITLE_HISTORY), "content_id"),
    History.of(table_of(numbered(SUBSCRIPTIONS), tables.SUBSCRIPTIONS), "user_id"),
)
NOTHING = Knowledge(
    History.of(tables.TITLE_HISTORY.empty_table(), "content_id"),
    History.of(tables.SUBSCRIPTIONS.empty_table(), "user_id"),
)


def enriched(*events: Row, columns: tuple[str, ...] = DOMAIN_COLUMNS, knowledge: Knowledge = KNOWLEDGE) -> list[Row]:
    rows = table_of([{"event_timestamp": T0} | one for one in events], EVENTS)
    return knowledge.enrich(rows, columns).to_pylist()


def told(event: Row, *columns: str) -> tuple[object, ...]:
    """The columns of the event alone, which must be the same among others."""
    (alone,) = enriched(event)
    others = {"content_id": "live-1", "user_id": "ann", "content_type": "live"}, {"content_id": "bare-1"}
    assert enriched(others[0], event, others[1])[1] == alone
    return tuple(alone[name] for name in columns)


@pytest.mark.parametrize(
    ("content_id", "after_ms", "title", "genres", "is_orphan"),
    [
        ("vod-1", -1, None, None, True),  # announced a millisecond later
        ("vod-1", 0, "Draft", [], False),
        ("vod-1", HOUR - 1, "Draft", [], False),
        ("vod-1", HOUR, "Film", ["Drama", "News"], False),
        ("bare-1", 0, None, None, False),
        ("unknown", HOUR, None, None, True),
        ("", HOUR, None, None, True),
        (None, HOUR, None, None, None),  # it refers to no content
    ],
)
def test_content_is_as_it_was_known_at_the_event(content_id, after_ms, title, genres, is_orphan):
    event = {"content_id": content_id, "event_timestamp": T0 + after_ms}
    assert told(event, "content_title", "content_genres", "is_orphan") == (title, genres, is_orphan)


def test_all_that_the_catalogue_says_is_told_zero_too():
    names = ("content_series_id", "content_episode_number", "content_runtime_ms", "content_maturity_rating")
    assert told({"content_id": "vod-1", "event_timestamp": T0 + HOUR}, *names) == ("s", 0, 0, "PG")
    assert told({"content_id": "vod-1"}, *names) == (None, None, None, None)


@pytest.mark.parametrize(
    ("content_id", "own", "content_type", "channel"),
    [
        ("vod-1", None, "vod", None),
        ("vod-1", "recording", "recording", None),  # the event's own comes first
        ("live-1", None, "live", "News 24"),
        ("live-1", "catchup", "catchup", "News 24"),  # it is still the channel's
        ("vod-1", "live", "live", None),  # the catalogue has no channel of that id
        ("bare-1", None, None, None),
        ("unknown", "vod", "vod", None),
        (None, None, None, None),
    ],
)
def test_content_type_and_channel(content_id, own, content_type, channel):
    event = {"content_id": content_id, "content_type": own}
    assert told(event, "content_type", "channel_name") == (content_type, channel)


@pytest.mark.parametrize(
    ("user", "own", "after_ms", "tier"),
    [
        ("ann", None, -1, None),
        ("ann", None, 0, "basic"),
        ("ann", None, HOUR - 1, "basic"),
        ("ann", None, HOUR, "premium"),
        ("ann", None, 2 * HOUR - 1, "premium"),
        ("ann", None, 2 * HOUR, None),  # it has run out, and what was before is over
        ("ann", "trial", HOUR, "trial"),  # the event's own statement
        ("bob", None, 0, None),  # valid until the instant it was said
        ("cat", None, HOUR, None),
        ("nobody", None, HOUR, None),
        (None, None, HOUR, None),
        (None, "trial", HOUR, "trial"),
    ],
)
def test_the_tier_is_the_one_in_force(user, own, after_ms, tier):
    event = {"user_id": user, "subscription_tier": own, "event_timestamp": T0 + after_ms}
    assert told(event, "subscription_tier") == (tier,)


def test_a_domain_of_channels_is_told_their_names():
    """No content id: the channel's own id is looked up, and only a channel has a name."""
    columns = ("channel_name", "subscription_tier")
    rows = enriched({"channel_id": "live-1"}, {"channel_id": "vod-1"}, {"channel_id": None}, columns=columns)
    assert [one["channel_name"] for one in rows] == ["News 24", None, None]
    assert "content_title" not in rows[0]
    assert "is_orphan" not in rows[0]


def test_only_columns_of_the_table_are_added():
    (row,) = enriched({"content_id": "vod-1", "user_id": "ann", "client_timestamp": T0}, columns=("event_id",))
    assert row.keys() == {*EVENTS.names}


def test_whether_the_clock_is_reliable_is_told():
    rows = enriched({"client_timestamp": T0 + HOUR}, {"client_timestamp": T0}, {})
    assert [one["client_timestamp_reliable"] for one in rows] == [False, True, None]


def test_when_nothing_is_known_yet_all_content_is_orphaned_and_the_rest_null():
    events = {"content_id": "vod-1", "user_id": "ann"}, {"content_type": "vod", "subscription_tier": "trial"}
    first, second = enriched(*events, knowledge=NOTHING)
    assert (first["is_orphan"], second["is_orphan"]) == (True, None)
    assert (first["content_type"], second["content_type"]) == (None, "vod")
    assert (first["subscription_tier"], second["subscription_tier"]) == (None, "trial")
    assert first["content_title"] is first["content_genres"] is first["channel_name"] is None


def test_texts_may_be_encoded_in_chunks_and_columns_absent():
    rows = [table_of([{"event_timestamp": T0 + HOUR, "user_id": user, "content_id": content}], EVENTS)
            for user, content in (("ann", "vod-1"), ("bob", None), (None, "live-1"))]  # fmt: skip
    encoded = [
        one.set_column(2, "user_id", one["user_id"].dictionary_encode()).drop_columns("content_type").set_column(
            3, "content_id", one["content_id"].dictionary_encode()
        )
        for one in rows
    ]  # fmt: skip
    found = KNOWLEDGE.enrich(pa.concat_tables(encoded), DOMAIN_COLUMNS).to_pylist()
    assert [one["content_type"] for one in found] == ["vod", None, "live"]
    assert [one["subscription_tier"] for one in found] == ["premium", None, None]
    assert [one["content_title"] for one in found] == ["Film", None, "News 24"]
