"""`kill -9` of the ingest at random moments: every offset once in bronze, every event once in silver."""

import random

import pytest

from tests.faults.road import SEEDS, ended, kill, wait_for_moment

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(7200)]
INGEST = ("ingest",)
FOLLOW = ("ingest", "--follow", "--until-idle", "1")  # which also cleans


def test_killed_again_and_again_it_loses_and_doubles_nothing(backlog, make_road):
    chance, deaths = random.Random(11), 0
    while deaths < SEEDS:
        road, is_done = make_road(), False
        while deaths < SEEDS and not is_done:
            command = FOLLOW if deaths % 2 == 0 else INGEST
            with ended(road.start(*command)) as victim:
                wait_for_moment(road, victim, chance, commits=12)
                is_done = victim.poll() is not None
                if is_done:
                    assert victim.returncode == 0, road.said(victim)
                else:
                    kill(victim)
                    deaths += 1
        road.ingest_and_clean()
        assert road.differences(backlog.calm) == {}
