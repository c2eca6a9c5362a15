"""A topic that gains partitions, between runs and while an ingest follows: each is read from its first message."""

import json
import threading

import pytest

from pipelines.follow import Follower
from pipelines.ingest import ingest
from tests.faults.road import wait_until
from tests.faults.topics import offsets

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_partitions_that_came_between_two_runs_are_read_from_their_beginnings(topics, make_road):
    name = topics.make_new()
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    topics.send(name, topics.messages(20))
    ingest(road.settings)
    topics.grow(name, 3)
    for partition in (0, 1, 2):
        topics.send(name, topics.messages(5), partition)
    ingest(road.settings)
    assert road.origins() == offsets(name, 0, range(25)) | offsets(name, 1, range(5)) | offsets(name, 2, range(5))


def test_partitions_that_come_while_it_follows_are_read_from_their_beginnings(topics, make_road):
    name = topics.make_new()
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    topics.send(name, topics.messages(20))
    follower = Follower(road.settings, on_batch=lambda batch: None)
    following = threading.Thread(target=follower.run)
    following.start()
    try:
        wait_until(road.consumed)
        topics.grow(name, 2)
        topics.send(name, topics.messages(7), 1)
        topics.send(name, topics.messages(3), 0)
        wait_until(lambda: road.consumed()[name] == {"0": 23, "1": 7})
    finally:
        follower.stopping.ask()
        following.join()
    assert road.origins() == offsets(name, 0, range(23)) | offsets(name, 1, range(7))
