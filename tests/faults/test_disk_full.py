"""A full disk under the warehouse: one line, nothing half committed, and once there is room all of it, once.

The disk is a small filesystem in memory, in a mount namespace that this user may make; where the kernel does not let
him the tests skip.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk import Disk, small_disk
from tests.faults.road import PATIENCE_S, SEEDS, Road, ended, wait_until
from tests.joined import session_ray

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(3600)]
ENOUGH_KIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that is too small for anything."""
    with small_disk(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("this user may not mount a filesystem in a namespace of his own")
        yield disk


def road_onto(disk: Disk, make_road) -> Road:
    """A road whose warehouse lies on the disk, with a Ray of its own, which sees it."""
    road = make_road(REEL_LAKEHOUSE_WAREHOUSE=f"file://{disk.folder}", REEL_RAY_NUM_CPUS="2")
    for name in session_ray():
        del road.environment[name]
    return road


def test_a_full_disk_is_one_line_at_a_time_and_with_room_it_goes_on(backlog, make_road, disk):
    chance = random.Random(7)
    road = road_onto(disk, make_road)
    with ended(road.start("ingest", before=disk.entering)) as run:
        assert "No space left on device" in road.refused(run)
    with ended(road.start("ingest", "--follow", "--until-idle", "2", before=disk.entering)) as follower:
        size_kib = 64
        for _ in range(SEEDS):
            told = road.said(follower).count("; trying again in ")
            wait_until(lambda told=told: road.said(follower).count("; trying again in ") > told, follower)
            size_kib += chance.randrange(64, 1024)
            disk.resize(size_kib)
        disk.resize(ENOUGH_KIB)
        assert follower.wait(PATIENCE_S) == 0, road.said(follower)
    said = road.said(follower)
    assert "Traceback" not in said
    failures = [line for line in said.splitlines() if line.endswith(" s") and "; trying again in " in line]
    assert failures
    assert all("No space left on device" in line or "disk is full" in line for line in failures)
    disk.keep()
    assert road.differences(backlog.calm) == {}
