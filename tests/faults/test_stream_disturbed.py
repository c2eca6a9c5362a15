"""The stream while it, its broker and its store are killed, and its disk is full: every value is the undisturbed run's.

`reel stream` runs in a process of its own, with a Ray of its own; events come in portions, and with each something
breaks. In the end what is stored is compared with what the road makes of the same events, undisturbed: `ingest`,
`clean`, `features` into another store. How long after each recovery all events were in values again is printed
(`pytest -s`).
"""

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.build_features import build_features
from pipelines.contract.events import load_contract
from pipelines.contract.registry import open_registry
from pipelines.kafka.broker import LocalBroker
from pipelines.kafka.produce import Producer, ensure_topics
from pipelines.simulator import EventBatch, SimulationConfig, simulate
from pipelines.stream.worker import TARGETS
from serving.errors import StoreUnavailableError
from serving.online_store import open_online_store
from tests.benchmarks.freshness import Stream
from tests.conftest import start_or_skip
from tests.faults.keeping_redis import KeepingRedis, redis_binary
from tests.faults.road import SEEDS, Road, ended, kill
from tests.faults.test_disk_full import Disk, small_disk
from tests.parity.test_stream import served, stored

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(3600)]

PLATFORM = SimulationConfig(households=10, days=4, seed=3, heartbeat_s=120)
DISK_KIB = 1 << 16
PATIENCE_S = 900.0  # a Ray is started again and again, and the machine may be busy
FAULTS = ("stream", "broker", "store")
OF_THE_STREAM = {"REEL_STREAM_ACTORS": "2", "REEL_STREAM_CHECKPOINT_SECONDS": "0.3", "REEL_RAY_NUM_CPUS": "2"}


@dataclass
class World:
    """The road whose stream is disturbed, one that is not, and what they stand on."""

    disturbed: Road
    calm: Road
    broker: LocalBroker
    bootstrap: str
    redis: KeepingRedis
    disk: Disk
    batches: list[EventBatch]

    def produce(self, batches: list[EventBatch]) -> None:
        settings = self.disturbed.settings
        registry = open_registry(settings.registry_location)
        with Producer(self.bootstrap, load_contract(settings.schemas), registry) as producer:
            for batch in batches:
                for name, table in batch.tables.items():
                    producer.produce(name, table)
                for rubbish in batch.rubbish:
                    producer.produce_rubbish(rubbish)

    def wait_until_caught_up(self) -> None:
        with open_online_store(self.redis.url) as store:
            stream = Stream(self.disturbed.settings, store)
            wait_until(lambda: self._has_caught_up(stream))

    @staticmethod
    def _has_caught_up(stream: Stream) -> bool:
        try:
            return stream.has_caught_up()
        except StoreUnavailableError:
            return False


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(ray_session: None, kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("disturbed")
    broker, redis = LocalBroker(folder / "kafka", kafka_libs), KeepingRedis(redis_binary(), folder)
    try:
        bootstrap = start_or_skip(broker).bootstrap
        shared = {
            "REEL_KAFKA_BOOTSTRAP_SERVERS": bootstrap, "REEL_REGISTRY_URL": str(folder / "registry.db"),
            "REEL_LAKEHOUSE_EVENT_PARTITION": "month", "REEL_LAKEHOUSE_BUCKETS": "2", "REEL_KAFKA_PARTITIONS": "2",
            "REEL_KAFKA_TIMEOUT_S": "3", "REEL_KAFKA_STALL_S": "3",
        }  # fmt: skip
        with small_disk(folder / "disk") as disk:
            disk.resize(DISK_KIB)
            live = {"REEL_ONLINE_STORE_URL": redis.url, "REEL_STREAM_FOLDER": str(disk.folder)} | OF_THE_STREAM
            disturbed, calm = Road(folder / "live", shared | live), Road(folder / "calm", shared)
            settings = disturbed.settings
            ensure_topics(bootstrap, load_contract(settings.schemas).topics, settings.kafka.partitions)
            batches = list(simulate(PLATFORM, folder / "truth"))
            half = len(batches) // 2
            world = World(disturbed, calm, broker, bootstrap, redis, disk, batches[half:])
            world.produce(batches[:half])
            disturbed.ingest_and_clean()
            build_features(settings)
            yield world
    finally:
        redis.end()
        broker.kill()


def test_every_value_is_that_of_the_undisturbed_run(world: World) -> None:
    chance = random.Random(11)
    faults = [fault for _ in range(SEEDS) for fault in chance.sample(FAULTS, len(FAULTS))]
    portions = len(faults) + 2
    cuts = [len(world.batches) * n // portions for n in range(portions + 1)]
    coming = iter([world.batches[first:last] for first, last in pairwise(cuts)])

    stream = world.disturbed.start("stream", before=world.disk.entering)
    try:
        world.wait_until_caught_up()
        for fault in faults:
            if fault != "broker":
                world.produce(next(coming))
                time.sleep(chance.expovariate(3))
            stream = disturb(world, fault, stream)
            began = time.monotonic()
            if fault == "broker":
                world.produce(next(coming))
            world.wait_until_caught_up()
            print(
                f"kill -9 of the {fault}: all in values {time.monotonic() - began:.1f} s after it was back", flush=True
            )

        world.disk.fill()
        told = world.disturbed.said(stream).count("No space left on device")
        world.produce(next(coming))
        wait_until(lambda: world.disturbed.said(stream).count("No space left on device") > told)
        world.produce(next(coming))
        world.wait_until_caught_up()
        print("a full disk under the checkpoint: values came all the same", flush=True)
        world.disk.free()
        stream.send_signal(signal.SIGTERM)
        assert stream.wait(PATIENCE_S) == 0, world.disturbed.said(stream)
        assert "Traceback" not in world.disturbed.said(stream)
    finally:
        with ended(stream):
            pass

    world.calm.ingest_and_clean()
    build_features(world.calm.settings)
    for target in TARGETS:
        _, at_ms = stored(world.calm.settings, target)
        theirs, ours = (served(road.settings, target, at_ms) for road in (world.calm, world.disturbed))
        assert ours == theirs, target.name
        assert len(ours) > 3


def disturb(world: World, fault: str, stream):  # type: ignore[no-untyped-def]
    """`kill -9` of it, and its new start; the stream that runs then."""
    if fault == "stream":
        kill(stream)
        return world.disturbed.start("stream", before=world.disk.entering)
    if fault == "store":
        world.redis.kill()
        time.sleep(1)
        world.redis.start()
        return stream
    world.broker.kill()
    time.sleep(1)
    assert world.broker.start().bootstrap == world.bootstrap
    return stream
