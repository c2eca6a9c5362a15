"""Children in published aggregates, from silver to the offline store: in crowds of k, at once or bit by bit."""

import pytest

from features.groups import GROUPS
from pipelines.build_features import build_features
from pipelines.feature_tables import Target
from tests.silver import Silver

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
HOUR_MS = 3_600_000
T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
K = 20


def viewing(viewer, title, at_ms, *, is_kids, ingested_ms):
    """Half a minute of watching, from its start to its stop."""
    ids = (
        {} if is_kids else {"user_id": f"user-{viewer}", "profile_id": f"profile-{viewer}", "session_id": f"s-{viewer}"}
    )
    common = {
        **ids,
        "viewer_token": viewer,
        "is_kids": is_kids,
        "content_id": title,
        "content_type": "vod",
        "playback_id": f"{viewer}-{title}-{at_ms}",
        "source": "CLIENT",
        "ingested_at": ingested_ms * 1000,
    }
    return [
        {
            **common,
            "event_id": f"{name}-{viewer}-{title}-{at_ms}",
            "event_name": f"playback.{name}",
            "time": at_ms + after,
        }
        for name, after in (("started", 0), ("stopped", 30_000))
    ]


def children(title, numbers, ingested_ms):
    return [
        row
        for number in numbers
        for row in viewing(f"child-{number}", title, T0 + 60_000, is_kids=True, ingested_ms=ingested_ms)
    ]


@pytest.fixture(scope="module")
def published(ray_session, tmp_path_factory):
    """Viewers of each title in its first hour, published three times over bit by bit, and once at once."""
    first = [
        *viewing("adult", "one-short", T0, is_kids=False, ingested_ms=T0),
        *viewing("adult", "a-crowd", T0, is_kids=False, ingested_ms=T0),
        *children("one-short", range(K - 1), T0),
        *children("a-crowd", range(K), T0),
        *viewing("adult", "clock", T0 + 5 * HOUR_MS, is_kids=False, ingested_ms=T0),
    ]
    late = children("a-crowd", range(K, K + 3), T0 + 2)  # three more of whom nobody must learn
    later = [*children("one-short", [K], T0 + 3), *children("a-crowd", range(K + 3, 2 * K), T0 + 3)]
    folder = tmp_path_factory.mktemp("crowds")
    steps, whole = Silver(folder / "steps"), Silver(folder / "whole")
    found = []
    for rows in (first, late, later):
        steps.append({"silver.playback": rows})
        whole.append({"silver.playback": rows})
        build_features(steps.settings)
        found.append(viewers(steps))
    build_features(whole.settings)
    return found, viewers(whole)


def viewers(silver):
    """By title: viewers of the first hour, as published last."""
    (target,) = [Target(group, one) for group in GROUPS for one in group.entities if group.name == "content_popularity"]
    rows = silver.rows(target.name, target.group.row_schema(target.entity)).to_pylist()
    rows = [row for row in rows if row["event_timestamp"].timestamp() * 1000 == T0 + HOUR_MS]
    return {row["content_id"]: row["hourly_viewers"] for row in sorted(rows, key=lambda row: row["created_timestamp"])}


def test_nineteen_children_are_not_told_and_twenty_are(published):
    (first, _, _), _ = published
    assert first == {"one-short": 1, "a-crowd": 1 + K}


def test_late_children_are_told_when_they_are_a_crowd(published):
    (_, second, third), _ = published
    assert second == {"one-short": 1, "a-crowd": 1 + K}, "three more would be told by the difference"
    assert third == {"one-short": 1 + K, "a-crowd": 1 + 2 * K}


def test_at_once_is_as_bit_by_bit(published):
    steps, whole = published
    assert whole == steps[-1]
