"""The service while its parts die, hang and change, under constant load: no request fails, and values stay right.

It runs as `serve deploy` starts it: HAProxy, two processes that answer, a Redis that keeps what it has acknowledged.
The undisturbed run is that of before: as nothing comes in, every answer that is not degraded has to be the same. The
callers are those of `tests.faults.callers`; what each fault cost is printed (`pytest -s`).
"""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.online_store import open_online_store
from tests.faults.callers import Callers
from tests.faults.keeping_redis import KeepingRedis, redis_binary
from tests.faults.road import SEEDS
from tests.faults.test_disk_full import Disk, small_disk
from tests.serving import platform, registry
from tests.serving.deployed import Cluster, IdentityProvider

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ISSUER = "https://identity.example.com/"
PATHS = {
    "features": "/v1/features?group=user_viewing_history&profile_id=profile-adult",
    "popularity": "/v1/features?group=content_popularity&content_id=title-05",
    "recommendations": "/v1/recommendations?profile_id=profile-adult",
}
DISK_KIB = 1 << 16
PATIENCE_S = 600.0


@dataclass
class Platform:
    """All of it, and how to break it."""

    cluster: Cluster
    redis: KeepingRedis
    disk: Disk
    provider: IdentityProvider
    tracking_uri: str
    models: Path
    version: str

    @property
    def headers(self) -> dict[str, str]:
        return self.provider.bearer("features", "recommendations", "models")

    def ask(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.cluster.address}{path}", headers=self.headers, timeout=60)

    @contextmanager
    def load(self) -> Iterator[Callers]:
        """Callers, whose answers have to be those of before; and at the end none of their requests has failed."""
        with Callers(self.cluster.address, self.headers, PATHS) as callers:
            wait_until(lambda: callers.good_since(0.0))
            for name in ("features", "popularity"):
                values = callers.last[name].answer["values"]
                callers.expect(name, lambda answer, values=values: answer["values"] == values)
            yield callers
        assert (callers.failed, callers.wrong) == ([], [])
        assert min(callers.answers.values()) > 0

    def predictions(self) -> dict[str, int]:
        """Counts of the process that happens to answer."""
        return self.ask("/v1/models").raise_for_status().json()["predictions"]


def wait_until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.05)


def recovered(callers: Callers, what: str) -> None:
    """Wait until everything is answered undegraded by whatever is there now, and say how long that took."""
    began = time.monotonic()
    wait_until(lambda: callers.good_since(began))
    print(
        f"{what}: right again after {time.monotonic() - began:.1f} s; {callers.answers.total()} answers, "
        f"{callers.degraded.total()} degraded, {callers.repeated.total()} sent again, {len(callers.failed)} failed",
        flush=True,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("under-load")
    provider = IdentityProvider(folder, ISSUER)
    redis = KeepingRedis(redis_binary(), folder)
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    registry.make_recommender(folder / "model", seed=1)
    version = registry.publish(tracking_uri, folder / "model")
    environment = {
        "REEL_SALT": platform.SALTS,
        "REEL_ONLINE_STORE_URL": redis.url,
        "REEL_MLFLOW_TRACKING_URI": tracking_uri,
        "REEL_SERVING_TOKENS_JWKS": str(provider.jwks),
        "REEL_WORK_DIR": str(folder / "disk"),
    }
    try:
        with open_online_store(redis.url) as store:
            platform.fill(store)
        with small_disk(folder / "disk") as disk, Cluster(folder, environment, before=disk.entering) as cluster:
            disk.resize(DISK_KIB)
            cluster.deploy(**ARGUMENTS)
            yield Platform(cluster, redis, disk, provider, tracking_uri, folder, version)
    finally:
        redis.end()


ARGUMENTS: dict[str, Any] = {
    "as_of": "watermark",  # the same values, however long it takes
    "models": ["recommendation"],
    "model_refresh_s": 0.5,
    "predictions": {"folder": "/nowhere", "share": 1.0, "flush_s": 0.2},
    "requests_per_s": None,
    "deadline_ms": 5000,  # the machine may be busy
}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_parts_that_are_killed(world: Platform, seed: int) -> None:
    """`kill -9` of a process that answers, of the one that runs the model, of HAProxy, and of Redis, in some order."""
    chance = random.Random(seed)
    faults = ["ServeReplica:reel:ingress", "ServeReplica:reel:model_recommendation", "haproxy", "redis"]
    chance.shuffle(faults)
    with world.load() as callers:
        for fault in faults:
            time.sleep(chance.uniform(0, 0.5))
            if fault == "redis":
                world.redis.kill()
                time.sleep(chance.uniform(0, 2))
                world.redis.start()
            elif fault == "haproxy":  # the newest: older ones only end their connections
                max(world.cluster.processes(fault), key=lambda process: process.create_time()).kill()
            else:
                chance.choice(world.cluster.processes(fault)).kill()
            recovered(callers, f"kill -9 {fault}")
            world.cluster.wait_until_whole(("ServeReplica:reel:ingress", 2), ("ServeReplica:reel:model", 1))


def test_a_store_that_is_slower_than_its_budget(world: Platform) -> None:
    with world.load() as callers:
        before = callers.degraded.total()
        for _ in range(10):
            world.redis.process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            world.redis.process.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        recovered(callers, "a store that answers after 200 ms, of 50")
        assert callers.degraded.total() > before


def test_a_full_disk_costs_predictions_and_no_answer(world: Platform) -> None:
    with world.load() as callers:
        world.disk.fill()
        wait_until(lambda: world.predictions()["dropped"] > 0)
        world.disk.free()
        written = world.predictions()["written"]
        wait_until(lambda: world.predictions()["written"] > written + 1)
        recovered(callers, "a full disk")
        assert callers.degraded["features"] == 0


def test_a_new_champion_is_rolled_out(world: Platform) -> None:
    registry.make_recommender(world.models / "model-2", seed=2)
    with world.load() as callers:
        assert callers.last["recommendations"].answer["model_version"] == world.version
        world.version = registry.publish(world.tracking_uri, world.models / "model-2")
        wait_until(lambda: callers.last["recommendations"].answer["model_version"] == world.version)
        recovered(callers, "a new champion")


def test_a_new_configuration_is_rolled_out(world: Platform) -> None:
    assert world.ask("/v1/recommendations?profile_id=profile-adult&k=60").status_code == 200
    with world.load() as callers:
        world.cluster.deploy(**ARGUMENTS | {"max_k": 50})
        wait_until(lambda: world.ask("/v1/recommendations?profile_id=profile-adult&k=60").status_code == 422)
        recovered(callers, "a new configuration")
