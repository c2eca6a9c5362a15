"""Features that a stream keeps up to date, asked for under a constant load while the stream, or its Kafka, fails.

No request fails, nothing that was served is taken back, and soon all that has happened meanwhile is served. In the end
every value is the one that the batch makes of the same log, from its beginning.

Nothing here asks when the machine was busy with other things.
"""

import itertools
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.build_features import build_features
from pipelines.contract.events import load_contract
from pipelines.kafka.broker import LocalBroker
from pipelines.kafka.produce import ensure_topics
from pipelines.stream.checkpoint import FILE as CHECKPOINT
from pipelines.stream.targets import TARGETS
from tests.conftest import start_or_skip
from tests.faults.load import Answer, Load
from tests.faults.processes import processes_below
from tests.faults.road import PATIENCE_S, Road, ended, wait_until
from tests.platform import DAY, HOUR, MINUTE, SALT, T0, consent, described, looked_around, send, title, watched
from tests.serving.service_process import ServiceProcess
from tests.stored import served, stored, tiles_of

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.timeout(600)]

RATE_PER_S = 15
RIGHT_WITHIN_S = 10
PARTITIONS = 2
PEOPLE = ("ann", "bob", "cal", "dan")
HISTORY = "/v1/features?group=user_viewing_history"
QUESTIONS = [f"{HISTORY}&{key}" for one in PEOPLE for key in (f"profile_id={one}-p", f"user_id={one}")]
# A machine that starts processes again is busy: budgets that it keeps.
BUDGETS = {"store_budget_ms": 500, "deadline_ms": 3000}


@dataclass
class World:
    """A service that answers from the store which a stream fills; `rounds`: what has happened so far."""

    broker: LocalBroker
    road: Road
    stream: subprocess.Popen[bytes]
    service: ServiceProcess
    batch: Road
    rounds: int = 1

    def load(self) -> Load:
        return Load(self.service.address, QUESTIONS, RATE_PER_S, {})

    def go_on(self) -> Callable[[Answer], bool]:
        """One more round, which is in Kafka then; whether an answer knows all of them, each once and in its order."""
        send(self.road.settings, *finished(self.rounds))
        self.rounds += 1
        titles = [title_at(place) for place in range(self.rounds)]
        return lambda answer: titles_in(answer) == titles

    def actors(self) -> list[psutil.Process]:
        return processes_below(self.stream.pid, "ray::Worker")

    def times_tried_again(self) -> int:
        return self.road.times_tried_again(self.stream)

    def wait_until_as_the_batch(self) -> None:
        """Until all values online, and their tiles, are those that the batch makes of the log, from its beginning."""
        self.batch.ingest_and_clean()
        build_features(self.batch.settings)
        # Not the stream's own: it does not read what no value is made of.
        _, at_ms = stored(self.batch.settings, TARGETS[0])
        expected = held(self.batch, at_ms)
        assert all(values for values, _ in expected.values()), "there is nothing to compare"
        wait_until(lambda: held(self.road, at_ms) == expected, self.stream, pause_s=0.2)
        assert held(self.road, at_ms) == expected, self.road.said(self.stream)


def held(road: Road, at_ms: int) -> dict[str, tuple[object, object]]:
    """What is online of every target of the stream: what is answered as of an instant, and the tiles of that."""
    return {one.name: (served(road.settings, one, at_ms), tiles_of(road.settings, one)) for one in TARGETS}


def titles_in(answer: Answer) -> list[str]:
    """Those that were finished, as an answer says; none where it has no values."""
    found: list[str] | None = None if answer.is_failed else answer.body["values"]["recent_titles"]
    return found or []


def finished(place: int) -> Iterator[dict[str, Any]]:
    """Everybody finishes one more title, the one at `place`, and does what else is streamed."""
    at_ms, content = T0 + place * HOUR, title_at(place)
    yield title(content, "drama")
    for person in PEOPLE:
        yield from watched(person, content, at_ms, cdn="fastly")
        yield from watched(person, "ch-1", at_ms + 20 * MINUTE, 20.0, content_type="live", cdn="akamai")
        yield from looked_around(person, content, at_ms + 30 * MINUTE)


def title_at(place: int) -> str:
    return f"vod-{place}"


@pytest.fixture(scope="module", params=[1, 2], ids=["one-actor", "two-actors"])
def actors(request: pytest.FixtureRequest) -> int:
    """How many share the partitions and the people."""
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def local_broker(actors: int, kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker for each number of actors: nothing has happened in it yet."""
    broker = LocalBroker(tmp_path_factory.mktemp("kafka"), kafka_libs)
    start_or_skip(broker)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def world(
    ray_session: None,
    actors: int,
    local_broker: LocalBroker,
    own_broker: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("stream-under-load")
    # What is installed is compiled once. Where it may not be, every process would do it again, for seconds.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    variables = compiled | {
        "REEL_KAFKA_BOOTSTRAP_SERVERS": own_broker,
        "REEL_KAFKA_PARTITIONS": str(PARTITIONS),
        "REEL_REGISTRY_URL": str(folder / "registry.db"),
        "REEL_LAKEHOUSE_EVENT_PARTITION": "month",
        "REEL_LAKEHOUSE_BUCKETS": "2",
        "REEL_STREAM_CHECKPOINT_SECONDS": "2",
        "REEL_STREAM_ACTORS": str(actors),
        "REEL_RAY_NUM_CPUS": "2",
    }
    road, batch = (Road(folder / name, variables) for name in ("road", "batch"))
    ensure_topics(own_broker, load_contract(road.settings.schemas).topics, PARTITIONS)
    people = [said(person, T0 - DAY) for person in PEOPLE for said in (described, consent)]
    send(road.settings, *people, *finished(0))
    road.ingest_and_clean()
    build_features(road.settings)
    settings = {
        "online_store_url": road.settings.online_store_url,
        "mlflow_tracking_uri": f"sqlite:///{folder}/none.db",
        "models": [],
        "model_processes": "each",
        "as_of": "watermark",
        "port": 0,
        **BUDGETS,
    }
    with ended(road.start("stream")) as stream:
        with ServiceProcess(folder, settings, compiled | {"REEL_SALT": SALT}) as service:
            yield World(local_broker, road, stream, service, batch)
        stream.send_signal(signal.SIGTERM)
        assert stream.wait(PATIENCE_S) == 0, road.said(stream)
    shutil.rmtree(service.ray_folder, ignore_errors=True)


def right_after_s(world: World, load: Load, since_s: float) -> float:
    """When all answers know of what happens from now on, in seconds after an instant."""
    knows_all = world.go_on()
    return time.monotonic() - since_s + load.until(knows_all, RIGHT_WITHIN_S)


def require_steady(answers: Sequence[Answer], known_before: int, world: World) -> None:
    """No answer is a failure, or without its values, and who asks later is not told less."""
    assert len(answers) > RATE_PER_S, "hardly anything was asked"
    assert [one for one in answers if one.is_failed] == []
    every = [[title_at(place) for place in range(rounds)] for rounds in range(known_before, world.rounds + 1)]
    assert [one for one in answers if titles_in(one) not in every] == []
    for question in QUESTIONS:
        of_one = [one for one in answers if one.question == question]
        taken_back = [
            (before, after)
            for before, after in itertools.pairwise(of_one)
            if before.answered_s < after.asked_s and len(titles_in(after)) < len(titles_in(before))
        ]
        assert taken_back == []


def test_killed_actors_are_replaced_before_anybody_misses_them(world: World, actors: int) -> None:
    known, told = world.rounds, world.times_tried_again()
    with world.load() as load:
        load.until(world.go_on(), PATIENCE_S)
        # Before the first there is nothing to go on from, and all would be read again.
        wait_until((world.road.settings.stream_folder / CHECKPOINT).exists, world.stream)
        at_work = world.actors()
        assert len(at_work) == actors
        killed_s = time.monotonic()
        for actor in at_work:
            actor.kill()
        took_s = right_after_s(world, load, killed_s)
        answers = load.stop()
    assert world.times_tried_again() > told, "the stream has not noticed"
    assert took_s < RIGHT_WITHIN_S, world.road.said(world.stream)
    require_steady(answers, known, world)
    world.wait_until_as_the_batch()


def test_while_the_broker_is_away_what_was_known_is_served(world: World) -> None:
    known, told = world.rounds, world.times_tried_again()
    with world.load() as load:
        knew = world.go_on()
        load.until(knew, PATIENCE_S)
        killed_s = time.monotonic()
        world.broker.kill()
        wait_until(lambda: world.times_tried_again() > told, world.stream, pause_s=0.2)
        world.broker.start()
        back_s = time.monotonic()  # it accepts connections
        took_s = right_after_s(world, load, back_s)
        answers = load.stop()
    meanwhile = [one for one in answers if killed_s < one.asked_s and one.answered_s < back_s]
    assert len(meanwhile) > RATE_PER_S
    assert all(knew(one) for one in meanwhile)
    assert took_s < RIGHT_WITHIN_S, world.road.said(world.stream)
    require_steady(answers, known, world)
    world.wait_until_as_the_batch()
