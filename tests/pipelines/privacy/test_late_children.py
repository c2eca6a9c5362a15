"""A profile that turns out to be a child's: its earlier rows lose their ids in every byte, and nothing else changes."""

import time

import pytest

from pipelines.lakehouse.scans import read_all
from pipelines.maintain import maintain
from pipelines.secrets import pseudonymizer
from tests.pipelines.privacy.bytes_scan import files_with
from tests.pipelines.privacy.world import DAY, HOUR, T0, World, hashed, token

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
FOUND_MS, GREW_UP_MS = T0 + DAY, T0 + 2 * DAY
IDS = ("user_id", "profile_id", "session_id", "device_id")
NOW = {"ingested_at": int(time.time() * 1_000_000), "topic": "t", "partition": 0, "cluster_id": "c", "source": "CLIENT"}
ALLOWED = dict.fromkeys(("consent_analytics", "consent_personalization", "consent_ad_targeting"), True)


def row(number, profile, at_ms):
    return {
        **NOW,
        **ALLOWED,
        "event_name": "tile.click",
        "event_id": f"event-{number}",
        "offset": number,
        "at_ms": at_ms,
        "user_id": hashed(f"owner-of-{profile}"),
        "profile_id": hashed(profile),
        "session_id": hashed(f"session-{number}"),
        "device_id": hashed(f"device-{number}"),
        "viewer_token": hashed(profile),
        "is_kids": False,
    }


def said(world, profile, is_kids, at_ms):
    who = {"user_id": hashed(f"owner-of-{profile}"), "profile_id": hashed(profile)}
    world.append("privacy.profiles", {**who, "is_kids": is_kids, "at_ms": at_ms})


@pytest.fixture(scope="module")
def world(ray_session, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", "the first salt of all,the salt of today")
        world = World(tmp_path_factory.mktemp("late"))
        assert pseudonymizer(world.settings).hash("x") == hashed("x")
        for profile in ("child", "adult", "grown"):
            said(world, profile, False, T0 - DAY)
        rows = [
            row(number, profile, T0 + number * HOUR)
            for number, profile in enumerate(["child", "adult", "grown"] * 24)  # three days
        ]
        for name in ("bronze.events", "silver.browse"):
            world.append(name, *rows[:40])
            world.append(name, *rows[40:])
        who = {"user_id": hashed("owner-of-child"), "at_ms": T0 + HOUR}
        answers = {"allows_analytics": True, "allows_ad_targeting": True, "allows_personalization": False}
        world.append("privacy.consents", {**who, **answers})
        assert "stripped" not in str(maintain(world.settings).did)
        for profile in ("child", "grown"):
            said(world, profile, True, FOUND_MS)
        said(world, "grown", False, GREW_UP_MS)
        world.did = maintain(world.settings).did
        world.rows = rows
        yield world


def is_late(one):
    found = one["profile_id"] == hashed("child")
    return found or (one["profile_id"] == hashed("grown") and one["at_ms"] <= GREW_UP_MS)


@pytest.mark.parametrize("name", ["bronze.events", "silver.browse"])
def test_rows_of_the_child_lead_nowhere_and_no_other_row_changes(world, name):
    stored = read_all(world.lakehouse.existing(name), world.specs[name].schema).to_pylist()
    by_id = {one["event_id"]: one for one in stored}
    assert len(stored) == len(by_id) == len(world.rows)
    for before in world.rows:
        after = by_id[before["event_id"]]
        if not is_late(before):
            assert {column: after[column] for column in (*IDS, "viewer_token", "is_kids", *ALLOWED)} == {
                column: before[column] for column in (*IDS, "viewer_token", "is_kids", *ALLOWED)
            }
            continue
        assert [after[column] for column in IDS] == [None] * 4
        assert after["is_kids"]
        assert after["viewer_token"] == token(before["profile_id"], before["at_ms"])
        allows = before["profile_id"] != hashed("child"), True  # the child's parents have withdrawn one answer
        assert (after["consent_personalization"], after["consent_analytics"]) == allows
    assert world.did[f"{name}: rows of children found late, stripped"] == sum(map(is_late, world.rows))


def test_no_byte_of_bronze_and_silver_tells_of_the_child(world):
    sessions = [one["session_id"] for one in world.rows if is_late(one)]
    names = [hashed("child"), hashed("owner-of-child"), *sessions]
    for layer in ("bronze", "silver"):
        assert files_with(world.folder / "warehouse" / layer, names) == {}


def test_there_is_nothing_left_to_do(world):
    assert "stripped" not in str(maintain(world.settings).did)
