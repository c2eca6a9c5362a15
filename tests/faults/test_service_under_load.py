"""The service under a constant load while what it stands on fails: no request fails, and soon all is right again.

Nothing here asks when the machine was busy with other things. Callers do what HTTP lets them: a GET whose connection
failed is asked again.
"""

import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.disk import Disk, small_disk
from tests.faults.load import Answer, Load
from tests.faults.processes import processes_below
from tests.faults.road import wait_until
from tests.serving import platform, registry
from tests.serving.own_redis import OwnRedis
from tests.serving.service_process import ServiceProcess

pytestmark = [pytest.mark.fault, pytest.mark.timeout(1200)]

RATE_PER_S = 15
RIGHT_WITHIN_S = 10
REPLICAS = 2
PAGE = "/v1/recommendations?profile_id=profile-adult"
FEATURES = (
    "/v1/features?group=user_viewing_history&profile_id=profile-adult",
    "/v1/features?group=content_popularity&content_id=title-05",
    "/v1/features?group=qoe_signals&cdn_region=fastly%2FUS",
)
# A machine that starts processes again is busy: budgets that it keeps.
BUDGETS = {"store_budget_ms": 500, "deadline_ms": 3000}

# Looking through all processes takes time that those that start would otherwise have.
until = partial(wait_until, pause_s=0.2)


@dataclass
class World:
    """A running service and what it stands on; `calm`: what it answers undisturbed."""

    service: ServiceProcess
    redis: OwnRedis
    disk: Disk | None
    tracking_uri: str
    calm: dict[str, object] = field(default_factory=dict)

    def load(self) -> Load:
        return Load(self.service.address, [PAGE, *FEATURES], RATE_PER_S, {})

    def settle(self) -> None:
        """Wait until all is there again, and remember what is answered then."""
        until(lambda: len(self.processes("ServeReplica:reel:ingress")) == REPLICAS)
        until(lambda: bool(self.processes("ServeReplica:reel:models")))
        with httpx.Client(base_url=self.service.address, timeout=30) as client:
            until(lambda: client.get(PAGE).json()["source"] == "model")
            for question in (PAGE, *FEATURES):
                body = client.get(question).raise_for_status().json()
                self.calm[question] = Answer(question, 0, 0, 200, body, 0).told

    def is_right(self, answer: Answer) -> bool:
        return answer.status == 200 and answer.told == self.calm[answer.question]

    def processes(self, name: str) -> list[psutil.Process]:
        """Those below the service whose command says so."""
        return processes_below(self.service.pid, name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed, so the service was not disturbed on Redis")
    folder = tmp_path_factory.mktemp("under-load")
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    registry.make_recommender(folder / "first", seed=1)
    registry.publish(tracking_uri, folder / "first")
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "logs", kib=4096))
        own_redis = OwnRedis(binary, folder)
        stack.callback(own_redis.kill)
        stack.callback(own_redis.process.send_signal, signal.SIGCONT)
        settings = {
            "online_store_url": own_redis.url,
            "mlflow_tracking_uri": tracking_uri,
            "models": ["recommendation"],
            "model_refresh_s": 0.5,
            "as_of": "watermark",
            "port": 0,
            "replicas": REPLICAS,
            "predictions": {"folder": str(folder / "logs" / "predictions"), "flush_s": 0.3},
            **BUDGETS,
        }
        entering = () if disk is None else disk.entering
        service = ServiceProcess(folder, settings, {"REEL_SALT": platform.SALTS}, before=entering)
        with service:
            yield World(service, own_redis, disk, tracking_uri)
        shutil.rmtree(service.ray_folder, ignore_errors=True)


@pytest.fixture
def calm(world: World) -> World:
    world.settle()
    return world


def failed(answers: Sequence[Answer]) -> list[Answer]:
    assert len(answers) > RATE_PER_S, "hardly anything was asked"
    return [one for one in answers if one.is_failed]


def test_a_killed_replica_costs_nobody_anything(calm: World) -> None:
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        calm.processes("ServeReplica:reel:ingress")[0].kill()
        assert load.until(calm.is_right, RIGHT_WITHIN_S) < RIGHT_WITHIN_S
        answers = load.stop()
    assert failed(answers) == []
    assert {one.lost_connections for one in answers} == {0}, "HAProxy asks another"


def test_a_killed_proxy_is_there_again_before_callers_lose_patience(calm: World) -> None:
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        proxies = calm.processes("haproxy")
        assert proxies
        killed_s = time.monotonic()
        for one in proxies:
            one.kill()
        load.until(calm.is_right, RIGHT_WITHIN_S)
        answers = load.stop()
    assert failed(answers) == []
    noticed = [one.answered_s - killed_s for one in answers if one.lost_connections]
    assert noticed, "nobody noticed"
    assert max(noticed) < RIGHT_WITHIN_S, "who asked again was answered by then"


def test_without_the_models_process_features_are_right_and_pages_degraded(calm: World) -> None:
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        calm.processes("ServeReplica:reel:models")[0].kill()
        load.until(lambda one: not calm.is_right(one), 60, times=1)
        load.until(calm.is_right, 180)
        answers = load.stop()
    assert failed(answers) == []
    assert all(calm.is_right(one) for one in answers if one.question in FEATURES)
    wrong = [one for one in answers if not calm.is_right(one)]
    assert {(one.body["degraded"], one.body["source"]) for one in wrong} == {(True, "popular")}
    assert {one.body["reason"] for one in wrong} <= {"model_unavailable", "model_slow"}


def test_a_store_that_hangs_degrades_answers_while_it_hangs(calm: World) -> None:
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        calm.redis.process.send_signal(signal.SIGSTOP)
        load.until(lambda one: one.body.get("reason") == "store_slow", RIGHT_WITHIN_S, times=2)
        calm.redis.process.send_signal(signal.SIGCONT)
        assert load.until(calm.is_right, RIGHT_WITHIN_S) < RIGHT_WITHIN_S
        answers = load.stop()
    assert failed(answers) == []
    assert {one.body["degraded"] for one in answers if not calm.is_right(one)} == {True}


def test_a_store_that_died_degrades_answers_until_it_is_back(calm: World) -> None:
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        calm.redis.kill()
        load.until(lambda one: one.body.get("reason") == "store_unavailable", RIGHT_WITHIN_S, times=2)
        calm.redis.start()
        assert load.until(calm.is_right, RIGHT_WITHIN_S) < RIGHT_WITHIN_S
        answers = load.stop()
    assert failed(answers) == []
    # Between its start and its being filled it knows nobody: the answer is popular titles, or nothing, and no failure.
    assert {one.body.get("reason") for one in answers if one.body["degraded"]} >= {"store_unavailable"}


def test_a_full_disk_under_the_logs_costs_rows_of_the_logs_only(calm: World) -> None:
    if calm.disk is None:
        pytest.skip("this user may not mount a filesystem in a namespace of his own")
    disk, full = calm.disk, calm.disk.folder / "full"
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        until(lambda: bool(logged(disk)))
        disk.run("sh", "-c", f"cat /dev/zero > {full} 2>/dev/null || true")
        before = logged(disk)
        load.until(calm.is_right, RIGHT_WITHIN_S, times=4 * RATE_PER_S)
        assert logged(disk) == before
        disk.run("rm", str(full))
        until(lambda: logged(disk) > before)
        answers = load.stop()
    assert all(calm.is_right(one) for one in answers)


def logged(disk: Disk) -> set[str]:
    """Whole files of the log."""
    return set(disk.run("find", str(disk.folder), "-name", "*.parquet").split())


def test_a_new_champion_is_taken_without_a_failed_request(calm: World, tmp_path: Path) -> None:
    registry.make_recommender(tmp_path / "second", seed=2)
    with calm.load() as load:
        load.until(calm.is_right, RIGHT_WITHIN_S)
        version = registry.publish(calm.tracking_uri, tmp_path / "second")
        load.until(lambda one: one.question != PAGE or one.body["model_version"] == version, 120)
        answers = load.stop()
    assert failed(answers) == []
    pages = [one.body for one in answers if one.question == PAGE]
    assert {page["source"] for page in pages} == {"model"}
    assert {page["model_version"] for page in pages} == {"1", version}
