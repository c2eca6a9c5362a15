"""The stream against the road: the same events through both give the same served values, killed or not."""

import json
import os
import shutil
import signal
import time

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from features.columns import milliseconds
from features.decision import decide
from features.finished_playbacks import finished_playbacks
from features.purposes import Purpose
from features.windows import DAY_MS, floor_ms
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.contract.registry import open_registry
from pipelines.ingest import ingest
from pipelines.kafka.offsets import OffsetRange
from pipelines.kafka.produce import Producer
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from pipelines.lakehouse.tables import PLAYBACK_SESSIONS
from pipelines.messages import MessageDecoder
from pipelines.secrets import pseudonymizer
from pipelines.settings import StreamSettings
from pipelines.simulator import SimulationConfig, simulate
from pipelines.stream import running
from pipelines.stream.scores import session_scores
from pipelines.stream.shelves import ORDER
from pipelines.stream.station import Streamer
from pipelines.stream.targets import LONGEST_DELAY_MS, TARGETS
from pipelines.viewing import KnownPeople
from serving.online_store import open_online_store
from tests.platform import SALT, Platform
from tests.stored import served, stored, tiles_of

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]
PLATFORM = SimulationConfig(households=20, days=5, seed=3, heartbeat_s=120)
each_target = pytest.mark.parametrize("target", TARGETS, ids=[one.name for one in TARGETS])


class StoppedHereError(Exception):
    """As if the process had been killed: nothing is written any more."""


class Worlds:
    """One log of events, and work folders that begin alike: features are built from its first part."""

    def __init__(self, folder):
        self.log, self.read_to = Platform(folder), {}
        batches = list(simulate(PLATFORM, folder / "truth"))
        cut = len(batches) // 2
        self.produce(batches[:cut])
        self.road(self.log.settings)
        self.built_ms = newest_ms(self.log.settings)
        self.produce(batches[cut:])
        self.batch, self.steady, self.disturbed = (self.copy(name) for name in ("batch", "steady", "disturbed"))

    def produce(self, batches):
        registry = open_registry(self.log.settings.registry_location)
        with Producer(self.log.bootstrap, self.log.contract, registry) as producer:
            producer.schema_id(self.log.contract.event("qoe.session_scored"))  # as every copy will know it
            for batch in batches:
                for name, table in batch.tables.items():
                    producer.produce(name, table)
                for rubbish in batch.rubbish:
                    producer.produce_rubbish(rubbish)

    def road(self, settings):
        ingest(settings)
        clean(settings)
        build_features(settings)

    def new_scores(self):
        """The messages of `qoe.metrics` that have come since this was last asked."""
        bounds = self.log.log.available(["qoe.metrics"]).bounds["qoe.metrics"]
        ranges = [OffsetRange("qoe.metrics", one, self.read_to.get(one, 0), end) for one, (_, end) in bounds.items()]
        self.read_to = {span.partition: span.end for span in ranges}
        values = [value for part in self.log.log.read(ranges, 1 << 20) for value in part.values]
        decoder = MessageDecoder(self.log.settings.registry_location, str(self.log.settings.schemas))
        return [row for _, rows, _ in decoder.decode(values).events for row in rows.to_pylist()]

    def copy(self, name):
        """Settings of a folder with its own catalog, registry and online store."""
        folder = self.log.folder / name
        shutil.copytree(
            self.log.folder, folder, ignore=shutil.ignore_patterns("warehouse", "truth", "log.db*", "batch", "steady")
        )
        stream = StreamSettings(actors=2, batch_ms=1, batch_messages=1_000, checkpoint_seconds=0.2)
        return self.log.settings.model_copy(update={"work_dir": folder, "stream": stream})


def newest_ms(settings):
    """Of all events that the values online were made of; the store's watermark is the delay later."""
    return stored(settings, TARGETS[0])[1] - LONGEST_DELAY_MS - 1


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
        worlds.told = worlds.new_scores()
        patch.setattr(running, "_FINISH_EVERY_S", 0.0)  # also between one event and one that comes late
        disturbed_run(worlds.disturbed)
        worlds.told_again = worlds.new_scores()
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


def test_killed_and_begun_again_it_tells_the_same(worlds):
    """Every version of a playback as all events make it, in both; beside these only what late events put right."""
    rows = decided(worlds.batch, "silver.playback")
    over = session_scores(finished_playbacks(rows), pseudonymizer(worlds.batch))
    last_ms = newest_ms(worlds.batch)
    times_ms = milliseconds(over["event_timestamp"])
    holds = set(over["event_id"].to_pylist())
    expected = set(over["event_id"].filter(pa.array((times_ms > worlds.built_ms) & (times_ms <= last_ms))).to_pylist())
    told, told_again = ({row["event_id"] for row in some} for some in (worlds.told, worlds.told_again))
    assert len(worlds.told) == worlds.report.did["scores told"]
    assert len(expected) > 50
    assert expected <= told & told_again
    assert told & holds == told_again & holds
    # A playback that was over, as far as anybody could know, and of which earlier events came then.
    hasher, came = pseudonymizer(worlds.batch), pl.DataFrame(rows).sort(*ORDER)
    newest = pl.col("event_timestamp").cum_max().over("topic", "partition")
    late = came.filter(pl.col("event_timestamp") < newest)["playback_id"].drop_nulls().unique()
    corrected = {hasher.hash(one) for one in late}
    others = [row for row in [*worlds.told, *worlds.told_again] if row["event_id"] not in holds]
    assert {row["playback_id"] for row in others} <= corrected


def decided(settings, name):
    """The rows of a table of silver that say what may be known of viewers, for analytics, as of now."""
    lakehouse = Lakehouse.open(settings)
    table = lakehouse.existing(name)
    rows = read_all(table, table.schema().as_arrow())
    known, now_ms = KnownPeople.now(lakehouse).known, int(time.time() * 1000)
    return rows.filter(pa.array(decide(rows, Purpose.ANALYTICS, known, now_ms).allowed))


def sessions_of(settings):
    """What is online of playbacks, without what goes beyond the batch's columns."""
    with open_online_store(settings.online_store_url, readonly=True) as store:
        values = store.get_many("playback_sessions", sorted(store.keys("playback_sessions")))
    names = [name for name in PLAYBACK_SESSIONS.names if not name.startswith("chain") and name != "subscription_tier"]
    return [{name: row[name] for name in names} for value in values for row in json.loads(value)["sessions"]]


def as_texts(rows):
    return sorted(json.dumps(row, default=str) for row in rows)


def test_sessions_that_are_over_are_the_batchs(worlds):
    """Row by row, of all since yesterday whose viewers allow it: none is missing, none says anything else."""
    online = sessions_of(worlds.steady)
    batch = Lakehouse.open(worlds.batch).existing("silver.playback_sessions")
    rows = read_all(batch, PLAYBACK_SESSIONS)
    _, at_ms = stored(worlds.batch, TARGETS[0])
    since_ms = floor_ms(at_ms, DAY_MS) - DAY_MS
    last_ms = milliseconds(rows["last_event_at"])
    patience_ms = np.where(rows["is_ended"], 5_000, 30 * 60_000)
    is_there = (last_ms >= since_ms) & (last_ms + patience_ms <= newest_ms(worlds.batch))
    known, now_ms = KnownPeople.now(Lakehouse.open(worlds.batch)).known, int(time.time() * 1000)
    theirs = decide(rows.append_column("event_timestamp", rows["last_event_at"]), Purpose.ANALYTICS, known, now_ms)
    expected = rows.filter(pa.array(is_there & theirs.allowed)).select(online[0].keys()).to_pylist()
    assert as_texts(online) == as_texts(expected)
    assert len(online) > 30
    assert as_texts(sessions_of(worlds.disturbed)) == as_texts(online)


def test_what_is_told_twice_is_there_once(worlds):
    """Both streams' messages through ingest and clean."""
    ingest(worlds.batch)
    clean(worlds.batch)
    table = Lakehouse.open(worlds.batch).existing("silver.qoe")
    rows = read_all(table, table.schema().as_arrow())
    assert sorted(rows["event_id"].to_pylist()) == sorted(
        {row["event_id"] for row in (*worlds.told, *worlds.told_again)}
    )
