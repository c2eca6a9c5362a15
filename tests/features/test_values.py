"""What the engine does at its doors, and the aggregates that no group declares yet."""

import numpy as np
import pyarrow as pa
import pytest

from features.aggregates import Count, DistinctCount, Last, Mean, Mode, Ratio, Share, Sum, Trend, Vector
from features.backfill import backfill
from features.declarations import Feature, FeatureGroup, Source
from features.errors import DeclarationError, LogError
from features.groups import group
from features.packing import pack, unpack_values
from features.purposes import Purpose
from features.tiles import merge_tiles, tiles, values_from_tiles
from features.values import values_at
from features.windows import Cadence
from tests.features.random_log import random_log, random_questions

TIME = pa.timestamp("ms", tz="UTC")
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LOG = Source(
    "log",
    pa.schema(
        {
            "event_id": pa.string(), "event_timestamp": TIME, "who": pa.string(), "ms": pa.int64(), "ok": pa.bool_(),
            "tags": pa.list_(pa.string()), "hour": pa.int64(),
        }
    ),
)  # fmt: skip


def declare(cadence=Cadence.EVENT, ttl_ms=400 * DAY, delay_ms=0, **aggregates):
    """Group of features name=(aggregate, window)."""
    features = tuple(
        Feature(name, aggregate, window, "One.", "1", None) for name, (aggregate, window) in aggregates.items()
    )
    return FeatureGroup(
        "things", ("who",), LOG, cadence, ttl_ms, Purpose.ANALYTICS, "us", "Things.", features, delay_ms
    )


def log_of(*rows):
    """Rows (minute, changes) of one entity."""
    said = [
        {"event_id": f"e{place:02d}", "event_timestamp": int(minute * MINUTE), "who": "a"} | changes
        for place, (minute, changes) in enumerate(rows)
    ]
    return pa.Table.from_pylist(said, schema=LOG.schema)


def at(things, log, *minutes):
    table = values_at(things, "who", log, pa.array(["a"] * len(minutes)), np.array(minutes) * MINUTE)
    return [list(row.values())[:-1] for row in table.to_pylist()]


def test_an_empty_window_is_zero_or_null():
    things = declare(
        n=(Count(), HOUR), flagged=(Count(where="ok"), HOUR), total=(Sum("ms"), HOUR), mean=(Mean("ms"), HOUR),
        ratio=(Ratio(Sum("ms"), Count(where="ok")), HOUR), share=(Share("ms", "tags"), HOUR),
        mode=(Mode("ms", "tags"), HOUR), vector=(Vector("ms", "hour", 2), HOUR), seen=(DistinctCount("who"), HOUR),
        last=(Last("who", 2), HOUR),
    )  # fmt: skip
    log = log_of((0, {}))
    assert at(things, log, 180) == [[0, 0, 0, None, None, None, None, None, 0, None]]
    # One event without values is no empty window: it has a vector, and still no mean.
    assert at(things, log, 30) == [[1, 0, 0, None, None, None, None, [0.0, 0.0], 1, ["a"]]]


def test_aggregates_by_hand():
    log = log_of(
        (0, {"ms": 6, "ok": True, "tags": ["x", "y"], "hour": 1}),
        (1, {"ms": 0, "ok": False, "tags": ["z"], "hour": 0}),
        (1, {"ms": None, "ok": None, "tags": ["z"], "hour": None}),
        (2, {"ms": 3, "ok": True, "tags": ["y"], "hour": 1}),
        (3, {"ms": 6, "ok": None, "tags": None, "hour": 0}),
        (4, {"ms": 6, "ok": None, "tags": [], "hour": 2}),
    )
    things = declare(
        mean=(Mean("ms"), HOUR), rate=(Mean("ok"), HOUR), ratio=(Ratio(Sum("ms", "ok"), Count("ok")), HOUR),
        share=(Share("ms", "tags"), HOUR), by_count=(Share(None, "hour"), HOUR), mode=(Mode("ms", "tags"), HOUR),
        vector=(Vector("ms", "hour", 2, unit=3), HOUR),
    )  # fmt: skip
    assert at(things, log, 5) == [
        [21 / 5, 2 / 3, 4.5, [("x", 1 / 3), ("y", 2 / 3)], [("0", 0.4), ("1", 0.4), ("2", 0.2)], "y", [2.0, 3.0]]
    ]
    assert at(things, log, 1)[0][3:6] == [[("x", 0.5), ("y", 0.5)], [("1", 1.0)], "x"]


def test_a_share_of_many_keys_sums_to_one():
    keys = [f"k{number:02d}" for number in range(13)]
    things = declare(share=(Share("ms", "tags"), HOUR))
    (((shares),),) = at(things, log_of((0, {"ms": 10**9 + 7, "tags": keys})), 1)
    assert [key for key, _ in shares] == keys
    assert sum(share for _, share in shares) == pytest.approx(1, rel=1e-12)
    assert [share for _, share in shares] == pytest.approx([1 / 13] * 13, rel=1e-9)


def test_the_last_are_ordered_by_time_then_id():
    rows = [(2, {"who": "a", "event_id": "b"}), (2, {"event_id": "a"}), (1, {"event_id": "z"})]
    schema = LOG.schema.append(pa.field("what", pa.string()))
    log = log_of(*rows).append_column("what", pa.array(["third", "second", "first"]))
    source = Source("log", schema)
    features = (Feature("last", Last("what", 2), DAY, "One.", "1", None),)
    things = FeatureGroup(
        "things", ("who",), source, Cadence.EVENT, DAY, Purpose.ANALYTICS, "us", "Things.", features, 0
    )
    assert at(things, log, 2, 3) == [[["first"]], [["second", "third"]]]
    parts = [tiles(things, "who", log.slice(place, 1)) for place in range(3)]
    kept = merge_tiles(things, "who", parts)
    assert kept.equals(tiles(things, "who", log))
    assert [len(values) for values in kept["last_2_what"].to_pylist()] == [2], "a tile keeps no more than is asked for"


def test_a_trend_looks_at_the_same_hour_of_each_day_before():
    things = declare(cadence=Cadence.HOURLY, trend=(Trend(Count(), days=2), HOUR))
    day = 24 * 60
    log = log_of(*[(minute, {}) for minute in (0, 59, day, 2 * day, 2 * day + 1, 2 * day + 2, 2 * day + 60)])
    assert at(things, log, 2 * day + 60, 2 * day + 120, 60, day + 60) == [[2.0], [None], [None], [1.0]]


def test_sums_are_exact_where_running_totals_wrap_round():
    big = 2**62
    things = declare(total=(Sum("ms"), HOUR))
    log = log_of((0, {"ms": big}), (10, {"ms": big}), (20, {"ms": big}), (200, {"ms": 1}), (210, {"ms": 2}))
    assert at(things, log, 220, 5) == [[3], [big]]


def test_a_group_of_many_windows_agrees_on_every_path():
    """Windows of three hop lengths in one group: three tile lengths, one answer."""
    windows = (20 * MINUTE, 11 * HOUR, 3 * DAY, 40 * DAY)
    aggregates = {"n": Count(), "total": Sum("ms"), "share": Share("ms", "tags"), "seen": DistinctCount("who"),
                  "last": Last("who", 3, where="ok")}  # fmt: skip
    said = {f"{name}_{window}": (aggregate, window) for name, aggregate in aggregates.items() for window in windows}
    rng = np.random.default_rng(11)
    log = random_log(rng, LOG, ("who",), 800)
    names, instants = random_questions(rng, log, "who", 60)
    event = declare(delay_ms=2_000, **said)
    assert sorted(event.states_of_tile) == [5 * MINUTE, HOUR, DAY]
    for asked in instants[:20]:
        seen = log.filter(pa.array(np.asarray(log["event_timestamp"].cast(pa.int64())) < asked - 2_000))
        when = np.full(60, asked)
        exact = values_at(event, "who", log, names, when)
        kept = tiles(event, "who", seen)
        assert values_from_tiles(event, "who", kept, names, when).equals(exact)
        store = dict(pack(event, "who", kept))
        assert unpack_values(event, [store.get(name) for name in names.to_pylist()], int(asked)).equals(exact)
    daily = declare(cadence=Cadence.DAILY, delay_ms=3 * HOUR, **said)
    hourly = values_at(daily, "who", log, names, instants)
    assert values_from_tiles(daily, "who", tiles(daily, "who", log), names, instants).equals(hourly)


def test_microseconds_and_large_strings_are_taken():
    popularity = group("content_popularity")
    log = random_log(np.random.default_rng(1), popularity.source, popularity.entities, 50)
    stored = {pa.string(): pa.large_string(), TIME: pa.timestamp("us", tz="UTC")}
    schema = pa.schema([field.with_type(stored.get(field.type, field.type)) for field in log.schema])
    names, instants = random_questions(np.random.default_rng(2), log, "content_id", 50)
    expected = values_at(popularity, "content_id", log, names, instants)
    assert values_at(popularity, "content_id", log.cast(schema), names.cast(pa.large_string()), instants).equals(
        expected
    )
    start, end = 1_709_164_800_000, 1_709_164_800_000 + 100 * DAY
    assert backfill(popularity, "content_id", log.cast(schema), start, end).equals(
        backfill(popularity, "content_id", log, start, end)
    )


def test_wrong_questions_are_refused():
    things, log = declare(n=(Sum("ms"), HOUR)), log_of((0, {}))
    with pytest.raises(LogError, match=r"lacks the column\(s\) ms"):
        values_at(things, "who", log.drop_columns("ms"), pa.array(["a"]), [0])
    with pytest.raises(LogError, match=r"2 entities came with instants of shape \(1,\)"):
        values_at(things, "who", log, pa.array(["a", "b"]), [0])
    with pytest.raises(LogError, match="does not fit its declaration"):
        values_at(things, "who", log.set_column(3, "ms", pa.array(["much"])), pa.array(["a"]), [0])
    with pytest.raises(LogError, match=r"event_timestamp has 1 null"):
        values_at(things, "who", log.set_column(1, "event_timestamp", pa.array([None], TIME)), pa.array(["a"]), [0])
    with pytest.raises(DeclarationError, match="things has no entity 'whom'"):
        values_at(things, "whom", log, pa.array(["a"]), [0])
    with pytest.raises(DeclarationError, match="store its tiles, not boundary rows"):
        backfill(things, "who", log, 0, DAY)
    with pytest.raises(LogError, match="the tile table of things lacks"):
        merge_tiles(things, "who", [log])
