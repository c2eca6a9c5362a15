import re

import pyarrow as pa
import pytest

from features.aggregates import (
    Count,
    Delta,
    DistinctCount,
    First,
    Last,
    Max,
    Mean,
    Mode,
    Percentile,
    Rate,
    Ratio,
    Share,
    Slope,
    Sum,
    Survival,
    TopShares,
    Trend,
    Vector,
)
from features.declarations import Feature, FeatureGroup, Source
from features.errors import DeclarationError, UnknownGroupError, UnknownSourceError
from features.filters import Is
from features.groups import GROUPS, group
from features.purposes import Purpose
from features.sources import source
from features.windows import Cadence

TIME = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    {
        "event_id": pa.string(), "event_timestamp": TIME, "event_name": pa.string(), "who": pa.string(),
        "ms": pa.int64(), "ok": pa.bool_(),
        "rate": pa.float64(), "tags": pa.list_(pa.string()),
    }
)  # fmt: skip
LOG = Source("log", SCHEMA, events=("tile.click", "tile.impression"))


def feature(**changed):
    said = {"name": "seen", "aggregate": Count(), "window_ms": 60_000, "description": "Seen.", "unit": "events"}
    return Feature(**(said | {"range": (0, 10)} | changed))


def declare(*features, **changed):
    said = {
        "name": "things", "entities": ("who",), "source": LOG, "cadence": Cadence.EVENT, "ttl_ms": 60_000,
        "purpose": Purpose.ANALYTICS, "owner": "us", "description": "Things.", "features": features or (feature(),),
    }  # fmt: skip
    return FeatureGroup(**(said | changed))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"name": "Seen"}, "feature 'Seen': a name is lower case"),
        ({"name": "event_timestamp"}, "that name is taken"),
        ({"window_ms": 0}, "window 0 ms is empty"),
        ({"window_ms": -1}, "window -1 ms is empty"),
        ({"unit": ""}, "description and unit"),
        ({"range": (1, 1)}, "range (1, 1) is bad"),
        ({"range": (0, float("nan"))}, "range (0, nan) is bad"),
        ({"aggregate": Rate(Count(), 0)}, "feature seen: a rate per 0 is none"),
        ({"aggregate": Ratio(Count(), Count(), per=0)}, "a ratio per 0 is none"),
        ({"aggregate": Mean("ms", unit=0)}, "a unit of 0 is none"),
        ({"aggregate": Percentile("ms", 50)}, "quantile 50 is bad"),
        ({"aggregate": Last("who", 0)}, "a limit of 0 keeps nothing"),
        ({"aggregate": TopShares("ms", "who", 0)}, "the top 0 is empty"),
        ({"aggregate": Vector("ms", "ms", 0)}, "0 buckets in units of 1 hold nothing"),
        ({"aggregate": Survival("ms", 0)}, "0 buckets hold nothing"),
        ({"aggregate": Trend(Count(), days=0)}, "a trend against 0 days is none"),
        ({"aggregate": Trend(Rate(Count(), 0))}, "a rate per 0 is none"),
        (
            {"aggregate": Delta(Count()), "window_ms": 300_000},
            "window 300000 ms has no halves; give a multiple of 600000",
        ),
        ({"aggregate": Delta(Count(), unit=0)}, "a unit of 0 is none"),
        ({"aggregate": Slope(Count(), 0)}, "blocks of 0 ms"),
        ({"aggregate": Slope(Count(), 40_000)}, "window 60000 ms is not 3 or more blocks of 40000 ms"),
        ({"aggregate": Slope(Count(), 20_000)}, "a block of 20000 ms is no multiple of 300000 ms"),
    ],
)
def test_a_wrong_feature_is_refused(change, line):
    with pytest.raises(DeclarationError, match=re.escape(line)):
        feature(**change)


@pytest.mark.parametrize(
    ("aggregate", "line"),
    [
        (Sum("minutes"), "group things, feature seen: unknown column minutes; the nearest is "),
        (Count(where="ms"), "column ms is int64, where a Boolean is needed"),
        (Sum("rate"), "column rate is double, where a whole number or a Boolean is needed"),
        (Mean("who"), "column who is string"),
        (Ratio(Sum("ms"), Count(where="nothing")), "unknown column nothing"),
        (DistinctCount("ms"), "column ms is int64, where a string is needed"),
        (Last("tags", 3), "column tags is list<"),
        (Share(of="ms", by="rate"), "column rate is double, where a string, a whole number or a list"),
        (Mode(of="who", by="who"), "column who is string, where a whole number"),
        (Vector(of="ms", by="ok", buckets=2), "column ok is bool"),
        (Count(Is("tag", "x")), "unknown column tag; the nearest is tags, log has"),
        (Count(Is("ms", "x")), "column ms is int64, where a string is needed"),
        (
            Rate(Count(Is("event_name", "tile.clik")), 7),
            "unknown event tile.clik; the nearest is tile.click, log is made",
        ),
        (Mean("ms", weight="rate"), "column rate is double, where a whole number"),
        (Max("who"), "column who is string, where a whole number"),
        (Percentile("rate", 0.5), "column rate is double"),
        (Last("ms"), "column ms is int64, where a string"),
        (First("who", is_whole=True), "column who is string, where a whole number"),
    ],
)
def test_a_feature_that_does_not_fit_its_log_is_refused(aggregate, line):
    with pytest.raises(DeclarationError, match=re.escape(line)) as refused:
        declare(feature(aggregate=aggregate))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"name": "my things"}, "group 'my things'"),
        ({"entities": ("whom",)}, "entity whom is no text column of the source log; the nearest is who"),
        ({"entities": ("ms",)}, "entity ms is no text column"),
        ({"entities": ()}, "at least one entity"),
        ({"ttl_ms": 0}, "ttl 0 ms"),
        ({"delay_ms": -1}, "delay -1 ms"),
        ({"owner": ""}, "owner and description"),
        ({"features": (feature(), feature(aggregate=Sum("ms")))}, "the name seen is given twice"),
        ({"features": (feature(name="who"),)}, "the name who is given twice"),
        ({"source": "viewing_logg"}, "source 'viewing_logg' is no Source; the nearest is viewing_log"),
        (
            {
                "features": (
                    feature(aggregate=Count(Is("who", "a b"))),
                    feature(name="b", aggregate=Count(Is("who", "a-b"))),
                )
            },
            "two conditions are both stored as events_where_who_a_b",
        ),
    ],
)
def test_a_wrong_group_is_refused(change, line):
    with pytest.raises(DeclarationError, match=re.escape(line)):
        declare(**change)


def test_a_log_has_a_time_and_an_id():
    with pytest.raises(DeclarationError, match="needs the column event_id"):
        Source("other", pa.schema({"event_timestamp": TIME}))


def test_sources_are_found_by_name():
    assert source("viewing_log") is group("content_popularity").source
    with pytest.raises(UnknownSourceError, match="'session'; the nearest is sessions"):
        source("session")
    with pytest.raises(DeclarationError, match="by user_id, which is not read of silver"):
        Source("other", SCHEMA, reads={"silver.user": ("event_id",)})
    with pytest.raises(DeclarationError, match="source log does not say how its log is made"):
        LOG.log({})


def test_delay_is_the_cadence_s_unless_said():
    assert declare().delay == 2_000
    assert declare(cadence=Cadence.DAILY).delay == 10_800_000
    assert declare(delay_ms=0).delay == 0


def test_a_fingerprint_changes_with_what_is_computed_and_with_nothing_else():
    known = declare().fingerprint
    assert len(known) == 8
    assert declare(owner="them").fingerprint == known
    for other in (feature(window_ms=60_001), feature(name="heard"), feature(aggregate=Count(where="ok"))):
        assert declare(other).fingerprint != known


def test_groups_are_found_by_name():
    assert [known.name for known in GROUPS] == [
        "user_viewing_history", "user_interaction_signals", "content_popularity", "content_engagement",
        "channel_performance", "qoe_signals", "session_context", "churn_signals",
        "concurrent_viewers", "channel_load",
    ]  # fmt: skip
    assert group("content_popularity") is GROUPS[2]
    with pytest.raises(UnknownGroupError, match="'content_popularty'; the nearest is content_popularity"):
        group("content_popularty")
    with pytest.raises(UnknownGroupError, match="the nearest is"):
        group("")


def test_an_entity_that_a_group_has_not_is_refused():
    with pytest.raises(DeclarationError, match="content_popularity has no entity 'user_id'; it has content_id"):
        group("content_popularity").check_entity("user_id")
