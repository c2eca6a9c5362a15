import re

import pyarrow as pa
import pytest

from features.aggregates import Count, DistinctCount, Last, Mean, Mode, Ratio, Share, Sum, Trend, Vector
from features.declarations import Feature, FeatureGroup, Source
from features.errors import DeclarationError, UnknownGroupError
from features.groups import GROUPS, group
from features.purposes import Purpose
from features.windows import Cadence

TIME = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    {
        "event_id": pa.string(), "event_timestamp": TIME, "who": pa.string(), "ms": pa.int64(), "ok": pa.bool_(),
        "rate": pa.float64(), "tags": pa.list_(pa.string()),
    }
)  # fmt: skip
LOG = Source("log", SCHEMA)


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
    ],
)
def test_a_wrong_feature_is_refused(change, line):
    with pytest.raises(DeclarationError, match=re.escape(line)):
        feature(**change)


@pytest.mark.parametrize(
    ("aggregate", "line"),
    [
        (Sum("minutes"), "group things, feature seen: unknown column minutes; log has event_id, event_timestamp"),
        (Count(where="ms"), "column ms is int64, where a Boolean is needed"),
        (Sum("rate"), "column rate is double, where a whole number or a Boolean is needed"),
        (Mean("who"), "column who is string"),
        (Ratio(Sum("ms"), Count(where="nothing")), "unknown column nothing"),
        (DistinctCount("ms"), "column ms is int64, where a string is needed"),
        (Last("tags", 3), "column tags is list<"),
        (Share(of="ms", by="rate"), "column rate is double, where a string, a whole number or a list"),
        (Mode(of="who", by="who"), "column who is string, where a whole number"),
        (Vector(of="ms", by="ok", buckets=2), "column ok is bool"),
        (Trend(Count()), "a trend against earlier days needs an hourly or daily cadence"),
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
        ({"entities": ("whom",)}, "entity whom is no text column of the source log"),
        ({"entities": ("ms",)}, "entity ms is no text column"),
        ({"entities": ()}, "at least one entity"),
        ({"ttl_ms": 0}, "ttl 0 ms"),
        ({"delay_ms": -1}, "delay -1 ms"),
        ({"owner": ""}, "owner and description"),
        ({"features": (feature(), feature(aggregate=Sum("ms")))}, "the name seen is given twice"),
        ({"features": (feature(name="who"),)}, "the name who is given twice"),
    ],
)
def test_a_wrong_group_is_refused(change, line):
    with pytest.raises(DeclarationError, match=re.escape(line)):
        declare(**change)


def test_a_log_has_a_time_and_an_id():
    with pytest.raises(DeclarationError, match="needs the column event_id"):
        Source("other", pa.schema({"event_timestamp": TIME}))


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
    assert [known.name for known in GROUPS] == ["user_viewing_history", "content_popularity"]
    assert group("content_popularity") is GROUPS[1]
    with pytest.raises(UnknownGroupError, match="'content_popularty'; the nearest is content_popularity"):
        group("content_popularty")
    with pytest.raises(UnknownGroupError, match="the nearest is"):
        group("")


def test_an_entity_that_a_group_has_not_is_refused():
    with pytest.raises(DeclarationError, match="content_popularity has no entity 'user_id'; it has content_id"):
        group("content_popularity").check_entity("user_id")
