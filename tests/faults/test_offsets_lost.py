"""Retention that deletes what was not read: it stops, says how much of what, and goes on only when told to."""

import json
import re

import pytest

from pipelines.ingest import ingest
from pipelines.kafka.offsets import OffsetsLostError
from tests.faults.topics import offsets

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_what_was_deleted_unread_is_said_and_nothing_is_read_until_that_is_accepted(topics, make_road):
    name = topics.make_new(partitions=2)
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    for partition in (0, 1):
        topics.send(name, topics.messages(20), partition)
    ingest(road.settings)
    for partition in (0, 1):
        topics.send(name, topics.messages(10), partition)
    topics.delete_before(name, 0, 25)
    before = offsets(name, 0, range(20)) | offsets(name, 1, range(20))
    for _ in range(2):  # asking again does not make it go on
        with pytest.raises(OffsetsLostError, match=re.escape(f"5 of {name}[0] (offsets 20 to 24).")) as stopped:
            ingest(road.settings)
        assert "\n" not in str(stopped.value)
        assert not stopped.value.passes
        assert road.origins() == before

    report = ingest(road.settings, accept_lost=True)
    assert report.did["lost: deleted before it was read"] == 5
    assert road.origins() == before | offsets(name, 0, range(25, 30)) | offsets(name, 1, range(20, 30))
    assert "lost: deleted before it was read" not in ingest(road.settings).did


def test_a_loss_of_all_there_was_is_accepted_once(topics, make_road):
    name = topics.make_new()
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    topics.send(name, topics.messages(4))
    ingest(road.settings)
    topics.send(name, topics.messages(4))
    topics.delete_before(name, 0, 8)
    with pytest.raises(OffsetsLostError, match=re.escape(f"4 of {name}[0] (offsets 4 to 7)")):
        ingest(road.settings)
    said = road.reel("ingest", "--accept-lost")
    assert re.search(r"lost: deleted before it was read +4 ", said)
    topics.send(name, topics.messages(2))
    ingest(road.settings)
    assert road.origins() == offsets(name, 0, range(4), range(8, 10))


def test_the_beginning_of_a_partition_gained_later_is_missed(topics, make_road):
    name = topics.make_new()
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    topics.send(name, topics.messages(3))
    ingest(road.settings)
    topics.grow(name, 2)
    topics.send(name, topics.messages(10), 1)
    topics.delete_before(name, 1, 4)
    with pytest.raises(OffsetsLostError, match=re.escape(f"4 of {name}[1] (offsets 0 to 3)")):
        ingest(road.settings)
    assert ingest(road.settings, accept_lost=True).did["lost: deleted before it was read"] == 4
    assert road.origins() == offsets(name, 0, range(3)) | offsets(name, 1, range(4, 10))


def test_what_was_deleted_before_a_topic_was_first_read_is_not_lost(topics, make_road):
    name = topics.make_new(partitions=3)
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    for partition in (0, 1):
        topics.send(name, topics.messages(10), partition)
    topics.delete_before(name, 0, 6)
    topics.delete_before(name, 1, 10)  # all there was: the partition is quiet, and empty
    ingest(road.settings)
    for partition in (1, 2):
        topics.send(name, topics.messages(2), partition)
    ingest(road.settings)
    assert road.origins() == (
        offsets(name, 0, range(6, 10)) | offsets(name, 1, range(10, 12)) | offsets(name, 2, range(2))
    )
