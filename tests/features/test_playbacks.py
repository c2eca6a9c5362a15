import numpy as np
import pyarrow as pa
import pytest

from features.errors import LogError
from features.playbacks import VIEWING_LOG, viewing_log
from tests.features.worlds import PLAYBACK_SCHEMA, TITLES_SCHEMA, make_world, playback_table, titles_table

MINUTE = 60_000


def log_of(*events, titles=()):
    """Log of (name, minute, changes) events of one playback, by default."""
    rows = [
        {
            "event_id": f"evt_{place:03d}", "event_name": f"playback.{name}", "event_timestamp": int(minute * MINUTE),
            "profile_id": "p", "user_id": "u", "viewer_token": "p", "session_id": "s", "playback_id": "b",
            "content_id": "c", "content_type": "vod", "client_timestamp_reliable": False,
        } | (changes[0] if changes else {})
        for place, (name, minute, *changes) in enumerate(events)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=PLAYBACK_SCHEMA)
    return viewing_log(table, pa.Table.from_pylist(list(titles), schema=TITLES_SCHEMA)).to_pylist()


def watched(*events):
    return [(row["event_timestamp"].timestamp() / 60, row["watch_ms"] / MINUTE) for row in log_of(*events)]


def test_watch_time_is_known_event_by_event():
    assert watched(("requested", 0), ("started", 1), ("heartbeat", 2), ("quality_changed", 2.5), ("stopped", 4)) == [
        (1, 0), (2, 1), (2.5, 0.5), (4, 1.5),
    ]  # fmt: skip


def test_pauses_are_not_watched_and_say_nothing():
    assert watched(("started", 0), ("paused", 3), ("heartbeat", 5), ("seeked", 6), ("resumed", 9), ("stopped", 10)) == [
        (0, 0), (3, 3), (10, 1),
    ]  # fmt: skip


def test_without_a_start_it_plays_from_its_first_heartbeat():
    assert watched(("seeked", 0), ("heartbeat", 1), ("heartbeat", 2), ("stopped", 3)) == [(2, 1), (3, 1)]
    assert watched(("requested", 0), ("stopped", 3)) == [(3, 0)]


def test_nothing_is_said_after_the_stop():
    assert watched(("started", 0), ("stopped", 2), ("heartbeat", 3), ("started", 4), ("stopped", 5)) == [(0, 0), (2, 2)]


def test_a_start_sent_twice_starts_once():
    log = log_of(("started", 0), ("started", 1), ("stopped", 2))
    assert [(row["is_start"], row["is_stop"]) for row in log] == [(True, False), (False, True)]


def test_without_an_id_a_playback_is_session_content_and_gap():
    anonymous = {"playback_id": None}
    events = [("started", 0, anonymous), ("heartbeat", 30, anonymous), ("heartbeat", 60.001, anonymous)]
    # 30 minutes are no gap, a little more is: the third event opens another playback, and says nothing yet.
    assert watched(*events, ("heartbeat", 61.001, anonymous)) == [(0, 0), (30, 30), (61.001, 1)]
    # Another session or title in between is another playback.
    other = ("heartbeat", 10, anonymous | {"session_id": "t"}), ("heartbeat", 11, anonymous | {"content_id": "d"})
    assert watched(*events[:2], *other) == [(0, 0), (30, 30)]
    # A start after a stop begins another one, however soon.
    again = ("started", 0, anonymous), ("stopped", 1, anonymous), ("started", 2, anonymous), ("stopped", 5, anonymous)
    assert watched(*again) == [(0, 0), (1, 1), (2, 0), (5, 3)]


def test_kids_are_told_apart_by_their_token():
    kid = {"playback_id": None, "profile_id": None, "user_id": None, "session_id": None, "viewer_token": "k1"}
    log = log_of(("started", 0, kid), ("heartbeat", 1, kid | {"viewer_token": "k2"}), ("heartbeat", 2, kid))
    assert [(row["viewer_token"], row["watch_ms"]) for row in log] == [("k1", 0), ("k1", 2 * MINUTE)]


def test_order_is_by_time_then_id_whatever_the_order_of_the_table():
    log = log_of(("stopped", 2, {"event_id": "z"}), ("resumed", 2, {"event_id": "y"}), ("started", 0), ("paused", 1))
    assert [(row["event_id"], row["watch_ms"]) for row in log] == [("evt_002", 0), ("evt_003", MINUTE), ("z", 0)]


@pytest.mark.parametrize(
    ("percent", "content_type", "is_complete", "is_finished"),
    [
        (100.0, "vod", True, True), (90.1, "vod", True, True), (90.0, "vod", False, True), (50.0, "vod", False, True),
        (49.9, "vod", False, False), (0.0, "vod", False, False), (None, "vod", None, False), (95.0, "live", None, True),
    ],
)  # fmt: skip
def test_completion(percent, content_type, is_complete, is_finished):
    changes = {"completion_percent": percent, "content_type": content_type}
    start, stop = log_of(("started", 0), ("stopped", 1, changes))
    assert (stop["is_complete"], stop["is_finished"]) == (is_complete, is_finished)
    assert (start["is_complete"], start["is_finished"]) == (None, False)


def test_titles_are_read_as_of_the_event():
    titles = [
        {"content_id": "c", "content_type": "live", "genres": ["Drama"], "event_timestamp": 2 * MINUTE},
        {"content_id": "c", "content_type": "vod", "genres": None, "event_timestamp": 4 * MINUTE},
        {"content_id": "d", "content_type": "vod", "genres": ["News"], "event_timestamp": 0},
    ]
    untyped = {"content_type": None}
    events = [(name, minute, untyped) for name, minute in (("started", 1), ("heartbeat", 3), ("heartbeat", 4))]
    log = log_of(*events, ("stopped", 5), titles=titles)
    assert [row["genres"] for row in log] == [["Drama"], ["Drama"], None, None]
    assert [row["content_type"] for row in log] == ["live", "live", "vod", "vod"]
    assert [row["genres"] for row in log_of(("started", 1, {"content_id": "unknown"}), titles=titles)] == [None]


@pytest.mark.parametrize(
    ("utc", "zone", "weekday"),
    [
        ("2024-03-30T22:59:59.999", "Europe/Paris", 5),  # winter time: 23:59 on Saturday
        ("2024-03-30T23:00:00.000", "Europe/Paris", 6),
        ("2024-03-31T21:59:59.999", "Europe/Paris", 6),  # summer time began that morning: 23:59 on Sunday
        ("2024-03-31T22:00:00.000", "Europe/Paris", 0),
        ("2024-11-04T04:59:59.999", "America/New_York", 6),  # back on winter time: 23:59 on Sunday
        ("2024-11-04T05:00:00.000", "America/New_York", 0),
        ("2024-02-29T12:00:00.000", None, 3),
        ("2024-02-29T12:00:00.000", "Pacific/Kiritimati", 4),
    ],
)
def test_weekday_is_local(utc, zone, weekday):
    instant = int(np.datetime64(utc, "ms").astype(np.int64))
    event = {"event_timestamp": instant, "time_zone": zone}
    assert [row["weekday"] for row in log_of(("started", 0, event))] == [weekday]
    elsewhere = {"event_timestamp": 0, "client_timestamp": instant, "time_zone": zone}
    reliable = log_of(("started", 0, elsewhere | {"client_timestamp_reliable": True}))
    assert [row["weekday"] for row in reliable] == [weekday]
    assert log_of(("started", 0, elsewhere | {"time_zone": None}))[0]["weekday"] == 3  # 1 January 1970


def test_wrong_tables_are_refused():
    playback, titles = PLAYBACK_SCHEMA.empty_table(), TITLES_SCHEMA.empty_table()
    assert viewing_log(playback, titles).equals(VIEWING_LOG.schema.empty_table())
    with pytest.raises(LogError, match=r"lacks the column\(s\) viewer_token"):
        viewing_log(playback.drop_columns("viewer_token"), titles)
    with pytest.raises(LogError, match="a time zone of the playback table is unknown"):
        log_of(("started", 0, {"time_zone": "Mars/Olympus"}))
    with pytest.raises(LogError, match=r"1 row\(s\) without event_timestamp"):
        log_of(("started", 0, {"event_timestamp": None}))


def test_microseconds_and_other_orders_give_the_same_log():
    rng = np.random.default_rng(3)
    worlds = [make_world(rng, f"w{number}") for number in range(40)]
    playback, titles = playback_table(worlds, rng), titles_table(worlds)
    expected = viewing_log(playback, titles)
    micro = pa.timestamp("us", tz="UTC")
    fine = pa.schema(
        [field.with_type(micro) if pa.types.is_timestamp(field.type) else field for field in playback.schema]
    )
    shuffled = playback.take(pa.array(rng.permutation(playback.num_rows))).cast(fine)
    assert viewing_log(
        shuffled, titles.cast(pa.schema([*list(titles.schema)[:-1], ("event_timestamp", micro)]))
    ).equals(expected)


def test_later_events_change_nothing_before_them():
    rng = np.random.default_rng(4)
    for number in range(60):
        worlds = [make_world(rng, f"w{number}")]
        playback, titles = playback_table(worlds, rng), titles_table(worlds)
        whole = viewing_log(playback, titles)
        now = int(rng.choice(np.asarray(playback["event_timestamp"].cast(pa.int64()))))
        is_past = pa.compute.less(playback["event_timestamp"].cast(pa.int64()), now)
        seen = viewing_log(playback.filter(is_past), titles)
        assert seen.equals(whole.filter(pa.compute.less(whole["event_timestamp"].cast(pa.int64()), now)))
