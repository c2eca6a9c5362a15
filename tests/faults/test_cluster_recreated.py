"""A cluster, or a topic, that was made anew under its old name: its offsets mean something else, so it stops."""

import json
import re
import shutil

import pytest

from pipelines.ingest import ingest
from pipelines.kafka.broker import LocalBroker
from pipelines.kafka.offsets import ClusterChangedError
from tests.conftest import start_or_skip
from tests.faults.topics import Topics, offsets

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_the_same_topics_on_a_new_cluster_at_the_old_address(make_road, kafka_libs, tmp_path):
    broker = LocalBroker(tmp_path / "kafka", kafka_libs)
    try:
        topics = Topics(start_or_skip(broker).bootstrap, str(tmp_path / "registry.db"))
        road = make_road(
            REEL_KAFKA_BOOTSTRAP_SERVERS=topics.bootstrap,
            REEL_REGISTRY_URL=topics.registry,
            REEL_KAFKA_TOPICS='["test"]',
        )
        topics.make("test", "user.events")
        topics.send("test", topics.messages(5))
        ingest(road.settings)
        broker.kill()
        shutil.rmtree(broker.folder / "data")
        assert broker.start().bootstrap == topics.bootstrap

        topics.make("test", "user.events")
        topics.send("test", topics.messages(9))
        line = road.refused(road.start("ingest"))
        assert re.search(r"\w+\.events was filled from Kafka cluster \S+, this is \S+;", line)
        assert road.origins() == offsets("test", 0, range(5))
    finally:
        broker.kill()


@pytest.mark.parametrize("length", [5, 30], ids=["shorter", "longer"])
def test_a_topic_that_was_made_anew(topics, make_road, length):
    name = topics.make_new()
    road = make_road(REEL_KAFKA_TOPICS=json.dumps([name]))
    topics.send(name, topics.messages(8))
    ingest(road.settings)
    topics.delete(name)
    topics.make(name)
    topics.send(name, topics.messages(length))
    with pytest.raises(ClusterChangedError, match=re.escape(f"another topic of the name {name}: it was")) as stopped:
        ingest(road.settings, accept_lost=True)
    assert "\n" not in str(stopped.value)
    assert not stopped.value.passes
    assert road.origins() == offsets(name, 0, range(8))
