"""`kill -9` of the broker while an ingest follows: it says so, tries again, and misses nothing."""

import random
import re
import signal

import pytest

from tests.faults.road import PATIENCE_S, SEEDS, TRIED_AGAIN, ended, wait_for_moment, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(3600)]
OTHER_LINES = re.compile(r"batch  |follow  |  |reel: stopping after this batch|reel: null in every event: geo")


def test_a_follower_outlives_its_broker(backlog, make_road):
    chance = random.Random(5)
    # Small enough commits that the last kill still finds some to come.
    portion = {"REEL_INGEST_MESSAGES_PER_COMMIT": str(3_000 // SEEDS)}
    road = make_road(REEL_KAFKA_TIMEOUT_S="2", REEL_KAFKA_STALL_S="3", **portion)
    try:
        with ended(road.start("ingest", "--follow")) as follower:
            for _ in range(SEEDS):
                wait_for_moment(road, follower, chance, commits=4)
                told = road.times_tried_again(follower)
                backlog.broker.kill()
                wait_until(lambda told=told: road.times_tried_again(follower) > told, follower)
                assert backlog.broker.start().bootstrap == backlog.bootstrap
            while road.consumed() != backlog.calm.consumed():
                come = road.versions()
                wait_until(lambda come=come: road.versions() > come, follower)
            follower.send_signal(signal.SIGTERM)
            assert follower.wait(PATIENCE_S) == 0, road.said(follower)
    finally:
        backlog.broker.start()
    lines = road.said(follower).splitlines()
    assert [line for line in lines if not TRIED_AGAIN.match(line) and not OTHER_LINES.match(line)] == []
    assert road.differences(backlog.calm) == {}
