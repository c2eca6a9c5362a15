"""`kill -9` of Ray's workers while they work for an ingest: what they had in hand is done again, once."""

import random
from contextlib import suppress

import psutil
import pytest

from tests.faults.road import SEEDS, ended, wait_for_moment, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(3600)]


def workers(doing: str) -> list[psutil.Process]:
    """Ray's workers of this session by what they do: `_call` a task, or `IDLE`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name() == f"ray::{doing}":
                found.append(process)
    return found


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_what_killed_workers_had_in_hand_is_done_again_once(backlog, make_road):
    chance, deaths = random.Random(2), 0
    while deaths < SEEDS:
        road = make_road()
        with ended(road.start("ingest")) as run:  # none of its workers lasts
            wait_for_moment(road, run, chance, commits=4)
            wait_until(lambda: kill_all(workers("_call")), run)
            assert "Ray gave up a task" in road.refused(run)
        with ended(road.start("ingest")) as run:  # now and then it loses one
            while run.poll() is None:
                wait_for_moment(road, run, chance, commits=4)
                alive = workers("_call") or workers("IDLE")
                if deaths < SEEDS and alive:
                    kill_all(chance.sample(alive, 1))
                    deaths += 1
            if run.returncode != 0:
                assert "Ray gave up a task" in road.refused(run)
        road.ingest_and_clean()
        assert road.differences(backlog.calm) == {}
