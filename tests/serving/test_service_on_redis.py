"""The service on Redis and behind Serve's own proxy: a store that stops answering, dies, and comes back."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jwt
import pytest

from tests.serving import platform
from tests.serving.own_redis import OwnRedis
from tests.serving.platform import KIDS_TITLES, POPULAR
from tests.serving.service_process import PROJECT, ServiceProcess, processes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUDGET_MS = 300
SECRET = "0123456789abcdef0123456789abcdef"


def bearer(subject: str, scope: str = "features recommendations") -> dict[str, str]:
    claims = {"sub": subject, "aud": "reel", "exp": time.time() + 600, "scope": scope}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed, so the service was not tested on Redis")
    server = OwnRedis(binary, tmp_path_factory.mktemp("own-redis"))
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.kill()


@pytest.fixture(scope="module")
def client(own_redis: OwnRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "online_store_url": own_redis.url,
        "mlflow_tracking_uri": f"sqlite:///{folder}/none.db",
        "as_of": "watermark",
        "port": 0,
        "ingress": "python",
        "store_budget_ms": BUDGET_MS,
        "tokens": {"algorithm": "HS256"},
        "requests_per_s": 25,
    }
    environment = {"REEL_SALT": platform.SALTS, "REEL_TOKEN_SECRET": SECRET}
    with ServiceProcess(folder, settings, environment) as service:
        assert service.announcement.endswith("(ingress: python)")
        with httpx.Client(base_url=service.address, timeout=30, headers=bearer("tests")) as client:
            yield client
        assert service.stop(signal.SIGINT) == 0
    assert not (folder / "none.db").exists(), "looking for a model made a database"
    shutil.rmtree(service.ray_folder, ignore_errors=True)


def recommend(client: httpx.Client, profile: str) -> tuple[str, str, list[str]]:
    answer = client.get("/v1/recommendations", params={"profile_id": profile}).raise_for_status().json()
    return answer["source"], answer["reason"], [item["content_id"] for item in answer["items"]]


def test_it_answers_from_redis(client: httpx.Client) -> None:
    assert recommend(client, "profile-adult") == ("popular", "model_unavailable", POPULAR[:10])
    assert recommend(client, "profile-kid") == ("popular", "kids_profile", KIDS_TITLES)
    parameters = {"group": "user_viewing_history", "profile_id": "profile-adult"}
    answer = client.get("/v1/features", params=parameters).raise_for_status().json()
    assert answer["values"]["recent_titles"] == platform.ADULT_HISTORY


def test_who_has_no_token_for_it_gets_no_answer_and_who_asks_too_often_is_told_when(client: httpx.Client) -> None:
    parameters = {"profile_id": "profile-adult"}
    with httpx.Client(base_url=client.base_url, timeout=30) as other:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer rubbish"}, 401),
            ({"Authorization": f"Bearer {'a' * 30_000}"}, 401),
            (bearer("portal", scope="features"), 403),
            (bearer("portal"), 200),
        ):
            answer = other.get("/v1/recommendations", params=parameters, headers=headers)
            assert (answer.status_code, "Traceback" in answer.text) == (status, False)
        assert other.get("/healthz").status_code == 200
        assert other.get("/openapi.json").status_code == 200
        busy, statuses = bearer("busy"), set()
        deadline = time.monotonic() + 120
        while 429 not in statuses:
            assert time.monotonic() < deadline
            asked = [other.build_request("GET", "/v1/recommendations", params=parameters, headers=busy)] * 100
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(other.send, asked))
            statuses |= {one.status_code for one in answers}
        assert statuses == {200, 429}
        assert all(one.headers["Retry-After"] == "1" for one in answers if one.status_code == 429)
        measured = [line for line in other.get("/metrics").text.splitlines() if 'cause="rate_limited"' in line]
        assert sum(float(line.rpartition(" ")[2]) for line in measured) >= sum(
            one.status_code == 429 for one in answers
        )
        assert other.get("/v1/recommendations", params=parameters, headers=bearer("quiet")).status_code == 200


def test_a_store_that_stops_answering_costs_its_budget_and_no_more(client: httpx.Client, own_redis: OwnRedis) -> None:
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        took_s = []
        for _ in range(5):
            started = time.monotonic()
            assert recommend(client, "profile-adult") == ("popular", "store_slow", KIDS_TITLES)
            took_s.append(time.monotonic() - started)
        assert min(took_s) < 3 * BUDGET_MS / 1000, "the least disturbed of them"
        parameters = {"group": "content_popularity", "content_id": "title-05"}
        answer = client.get("/v1/features", params=parameters).raise_for_status().json()
        assert (answer["reason"], answer["degraded"], answer["found"]) == ("store_slow", True, False)
        assert client.get("/readyz").json()["status"] == "degraded"
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    assert recommend(client, "profile-adult")[1] == "model_unavailable"


def test_a_store_that_dies_and_comes_back(client: httpx.Client, own_redis: OwnRedis) -> None:
    own_redis.kill()
    assert recommend(client, "profile-adult") == ("popular", "store_unavailable", KIDS_TITLES)
    assert client.get("/healthz").status_code == 200
    own_redis.start()
    deadline = time.monotonic() + 60
    while (reason := recommend(client, "profile-adult")[1]) == "model_slow":  # the machine is busy
        assert time.monotonic() < deadline
    assert reason == "model_unavailable"
    assert client.get("/readyz").json()["status"] == "ready"


def test_a_service_killed_outright_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    settings = {
        "online_store_url": f"lmdb://{tmp_path}/online",
        "mlflow_tracking_uri": f"sqlite:///{tmp_path}/none.db",
        "port": 0,
        "ingress": "haproxy",
    }
    service = ServiceProcess(tmp_path, settings, {"REEL_SALT": "salt"})
    with service:
        port = int(service.address.rpartition(":")[2])
        service.stop(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while is_listening(port) or processes_of(service.ray_folder):
            assert time.monotonic() < deadline, "something of a dead service is still there"
            time.sleep(0.5)
    shutil.rmtree(service.ray_folder, ignore_errors=True)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_told_to_stop_while_it_starts_it_stops(tmp_path: Path) -> None:
    settings = {"online_store_url": f"lmdb://{tmp_path}/s", "mlflow_tracking_uri": f"sqlite:///{tmp_path}/m", "port": 0}
    (tmp_path / "serving.json").write_text(json.dumps(settings))
    ray_folder = Path(tempfile.mkdtemp(prefix="reel-", dir="/tmp"))
    starting = subprocess.Popen(
        [sys.executable, "-m", "serving", "--config", str(tmp_path / "serving.json")],
        env=os.environ | {"REEL_SALT": "salt", "RAY_TMPDIR": str(ray_folder)},
        cwd=PROJECT,
    )
    deadline = time.monotonic() + 120
    while not any(ray_folder.iterdir()):  # Ray has begun to start
        assert time.monotonic() < deadline
        time.sleep(0.05)
    starting.terminate()
    assert starting.wait(120) == 0
    assert processes_of(ray_folder) == []
    shutil.rmtree(ray_folder, ignore_errors=True)
