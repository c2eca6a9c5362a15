"""The stream against the road: the same events through both give the same served values, killed or not."""

import os
import shutil
import signal

import pytest

from features.packing import unpack, unpack_values
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.contract.registry import open_registry
from pipelines.ingest import ingest
from pipelines.kafka.produce import Producer
from pipelines.settings import StreamSettings
from pipelines.simulator import SimulationConfig, simulate
from pipelines.stream.station import Streamer
from pipelines.stream.worker import TARGETS
from serving.online_store import open_online_store
from tests.platform import SALT, Platform

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]
PLATFORM = SimulationConfig(households=20, days=5, seed=3, heartbeat_s=120)
each_target = pytest.mark.parametrize("target", TARGETS, ids=[one.name for one in TARGETS])


class StoppedHereError(Exception):
    """As if the process had been killed: nothing is written any more."""


class Worlds:
    """One log of events, and work folders that begin alike: features are built from its first part."""

    def __init__(self, folder):
        self.log = Platform(folder)
        batches = list(simulate(PLATFORM, folder / "truth"))
        cut = len(batches) // 2
        self.produce(batches[:cut])
        self.road(self.log.settings)
        self.produce(batches[cut:])
        self.batch, self.steady, self.disturbed = (self.copy(name) for name in ("batch", "steady", "disturbed"))

    def produce(self, batches):
        registry = open_registry(self.log.settings.registry_location)
        with Producer(self.log.bootstrap, self.log.contract, registry) as producer:
            for batch in batches:
                for name, table in batch.tables.items():
                    producer.produce(name, table)
                for rubbish in batch.rubbish:
                    producer.produce_rubbish(rubbish)

    def road(self, settings):
        ingest(settings)
        clean(settings)
        build_features(settings)

    def copy(self, name):
        """Settings of a folder with its own catalog, registry and online store."""
        folder = self.log.folder / name
        shutil.copytree(
            self.log.folder, folder, ignore=shutil.ignore_patterns("warehouse", "truth", "log.db*", "batch", "steady")
        )
        stream = StreamSettings(actors=2, batch_ms=1, batch_messages=1_000, checkpoint_seconds=0.2)
        return self.log.settings.model_copy(update={"work_dir": folder, "stream": stream})


def stored(settings, target):
    """The packed values of a target by key, and the store's watermark."""
    group = target.group.stored_as(target.entity)
    with open_online_store(settings.online_store_url, readonly=True) as store:
        keys = sorted(store.keys(group))
        (watermark,) = store.get_many("meta", ["watermark_ms"])
        return dict(zip(keys, store.get_many(group, keys), strict=True)), int(watermark)


def served(settings, target, at_ms):
    """What is answered for each key."""
    packed, _ = stored(settings, target)
    table = unpack_values(target.group, list(packed.values()), at_ms)
    return dict(zip(packed, table.to_pylist(), strict=True))


def tiles_of(settings, target):
    packed, _ = stored(settings, target)
    rows = unpack(target.group, target.entity, list(packed.items())).to_pylist()
    return {(row[target.entity], row["tile_ms"], row["tile_start"]): row for row in rows}


def disturbed_run(settings):
    """Stopped twice without another word, once with an actor killed; then to the end."""
    for most in (3, 4):
        seen = []

        def stop_here(batch, seen=seen, most=most):
            seen.append(batch)
            if len(seen) == most:
                raise StoppedHereError

        with pytest.raises(StoppedHereError):
            Streamer(settings, on_batch=stop_here).run(until_idle_s=0.2)
    batches = []

    def kill_an_actor(batch):
        batches.append(batch)
        if len(batches) == 2:
            os.kill(streamer.process_ids[1], signal.SIGKILL)

    streamer = Streamer(settings, on_batch=kill_an_actor)
    streamer.run(until_idle_s=0.2)
    assert len(batches) > 2, "it was killed in the middle"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        worlds = Worlds(tmp_path_factory.mktemp("stream"))
        worlds.road(worlds.batch)
        worlds.report = Streamer(worlds.steady).run(until_idle_s=0.2)
        disturbed_run(worlds.disturbed)
        yield worlds


@each_target
def test_every_value_is_the_batchs(worlds, target):
    _, at_ms = stored(worlds.batch, target)
    assert stored(worlds.steady, target)[1] == at_ms
    theirs, ours = (served(settings, target, at_ms) for settings in (worlds.batch, worlds.steady))
    assert ours == theirs
    assert len(ours) > 3


@each_target
def test_every_tile_is_the_batchs(worlds, target):
    assert tiles_of(worlds.steady, target) == tiles_of(worlds.batch, target)


@each_target
def test_stopped_and_killed_and_begun_again_it_comes_to_the_same(worlds, target):
    assert tiles_of(worlds.disturbed, target) == tiles_of(worlds.steady, target)


def test_it_counts_what_is_in_no_value(worlds):
    assert worlds.report.did["cannot be read"] > 0, "rubbish stops nothing"
    assert worlds.report.did["duplicate event ids"] > 0
