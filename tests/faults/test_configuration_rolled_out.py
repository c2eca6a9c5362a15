"""`serve deploy` of a changed file onto a cluster that answers all the while: no request fails."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt
import pytest
import yaml

from serving.deploy import serve_config
from serving.ingress import free_ports, node_environment
from serving.online_store import open_online_store
from serving.settings import ServingSettings
from tests.faults.load import Load
from tests.faults.road import PATIENCE_S, wait_until
from tests.serving import platform
from tests.serving.service_process import PROJECT, processes_of

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]

SECRET = "0123456789abcdef" * 2
RATE_PER_S = 10
QUESTIONS = (
    "/v1/recommendations?profile_id=profile-adult&k=3",
    "/v1/features?group=content_popularity&content_id=title-05",
)
MORE = "/v1/recommendations?profile_id=profile-adult&k=50"
BIN = Path(sys.executable).parent


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """A Ray cluster of one node with its dashboard, whose address it is."""
    folder = Path(tempfile.mkdtemp(prefix="reel-", dir="/tmp"))  # sockets' paths are limited to 107 letters
    port, dashboard_port = free_ports(2)
    options = ("--port", str(port), "--dashboard-port", str(dashboard_port), "--temp-dir", str(folder))
    with (folder.parent / f"{folder.name}.out").open("w") as output:
        node = subprocess.Popen(
            [BIN / "ray", "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats", *options],
            env=os.environ | environment, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{dashboard_port}"
    finally:
        node.terminate()
        node.wait(60)
        deadline = time.monotonic() + 60
        while processes_of(folder):
            assert time.monotonic() < deadline, processes_of(folder)
            time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)
        Path(output.name).unlink()


def deploy(settings: ServingSettings, file: Path, address: str) -> None:
    file.write_text(yaml.safe_dump(serve_config(settings), sort_keys=False))
    deadline = time.monotonic() + PATIENCE_S
    while True:
        command = [BIN / "serve", "deploy", str(file), "--address", address]
        said = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
        if said.returncode == 0:
            return
        assert time.monotonic() < deadline, said.stdout + said.stderr
        time.sleep(1)


def test_a_changed_file_is_rolled_out_without_a_failed_request(tmp_path: Path) -> None:
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        platform.fill(store)
    (port,) = free_ports(1)
    settings = ServingSettings.model_validate(
        {
            "online_store_url": f"lmdb://{tmp_path}/online",
            "mlflow_tracking_uri": f"sqlite:///{tmp_path}/none.db",
            "models": ["recommendation"],
            "as_of": "watermark",
            "port": port,
            "tokens": {"algorithm": "HS256"},
            "store_budget_ms": 2000,
            "deadline_ms": 5000,
        }
    )
    secrets = {"REEL_SALT": platform.SALTS, "REEL_TOKEN_SECRET": SECRET}
    claims = {"sub": "tests", "aud": "reel", "exp": int(time.time()) + 3600, "scope": "features recommendations"}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
    service = f"http://127.0.0.1:{port}"
    with (
        cluster(secrets | node_environment("haproxy", settings)) as address,
        httpx.Client(base_url=service, headers=headers, timeout=30) as client,
    ):

        def status_of_many() -> int:
            try:
                return client.get(MORE).status_code
            except httpx.TransportError:
                return 0  # nobody listens yet

        deploy(settings, tmp_path / "serve.yaml", address)
        wait_until(lambda: status_of_many() == 200, pause_s=0.2)
        with Load(service, QUESTIONS, RATE_PER_S, headers) as load:
            load.until(lambda one: not one.is_failed, 60)
            deploy(settings.model_copy(update={"max_k": 5}), tmp_path / "serve.yaml", address)
            wait_until(lambda: status_of_many() == 422, pause_s=0.2)  # those who answer now read the new file
            load.until(lambda one: not one.is_failed, 60, times=50)
            answers = load.stop()
    assert [one for one in answers if one.is_failed] == []
    assert {one.lost_connections for one in answers} == {0}
