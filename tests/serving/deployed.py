"""The service as a cluster has it: a Ray cluster of its own, and the application put there by `serve deploy`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import jwt
import psutil
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from serving.ingress import free_ports
from tests.serving.service_process import PROJECT

CONFIGS = PROJECT / "configs" / "deploy"
READY_WITHIN_S = 600
INNER_PORTS = ("METRICS_PORT", "STATS_PORT")


def manifest() -> dict[str, Any]:
    """The RayService."""
    return yaml.safe_load((CONFIGS / "rayservice.yaml").read_text())


def containers() -> list[dict[str, Any]]:
    """Those of the head and of the workers."""
    cluster = manifest()["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [one for group in groups for one in group["template"]["spec"]["containers"]]


class IdentityProvider:
    """A key, its JWKS as a file, and tokens signed with it."""

    def __init__(self, folder: Path, issuer: str) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._issuer = issuer
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [{**public, "kid": "one", "use": "sig"}]}))

    def bearer(self, *scopes: str, subject: str = "tests") -> dict[str, str]:
        claims = {"sub": subject, "aud": "reel", "iss": self._issuer, "exp": time.time() + 3600}
        token = jwt.encode({**claims, "scope": " ".join(scopes)}, self._key, "RS256", headers={"kid": "one"})
        return {"Authorization": f"Bearer {token}"}


class Cluster:
    """Ray with its dashboard, which is what `serve deploy` talks to; `environment` is what its nodes have."""

    def __init__(self, folder: Path, environment: dict[str, str], before: tuple[str, ...] = ()) -> None:
        """`before` leads the command that starts Ray."""
        # Ray's sockets lie in it, and their paths are limited to 107 letters.
        self.ray_folder = Path(tempfile.mkdtemp(prefix="reel-", dir="/tmp"))
        self._folder = folder
        gcs, dashboard, client, agent, metrics, self.port, self.grpc_port, *inner = free_ports(9)
        nodes = {one["name"]: one["value"] for one in containers()[0]["env"]}
        nodes |= {f"RAY_SERVE_HAPROXY_{name}": str(port) for name, port in zip(INNER_PORTS, inner, strict=True)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REEL_")}
        self._environment = (
            inherited | nodes | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(PROJECT)} | environment
        )
        self._dashboard = f"http://127.0.0.1:{dashboard}"
        self.address = f"http://127.0.0.1:{self.port}"
        self.gcs_address = f"127.0.0.1:{gcs}"
        self._log = (folder / "ray.log").open("w+")
        options = {
            "port": gcs, "dashboard-port": dashboard, "ray-client-server-port": client,
            "dashboard-agent-listen-port": agent, "metrics-export-port": metrics, "min-worker-port": 0,
            "max-worker-port": 0, "num-cpus": 8, "object-store-memory": 200_000_000, "node-ip-address": "127.0.0.1",
            "temp-dir": self.ray_folder, "include-dashboard": "true",
        }  # fmt: skip
        self._command = [*before, str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        self._command += [f"--{name}={value}" for name, value in options.items()]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command, cwd=PROJECT, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def deploy(self, **arguments: Any) -> None:
        """`serve deploy` of configs/deploy/serve.yaml, at ports of this cluster's own; then wait until it answers.

        What is given replaces arguments of the application.
        """
        config = yaml.safe_load((CONFIGS / "serve.yaml").read_text())
        config["http_options"]["port"], config["grpc_options"]["port"] = self.port, self.grpc_port
        (application,) = config["applications"]
        application["args"] = {name: one for name, one in (application["args"] | arguments).items() if one is not None}
        models = [f"model_{model}" for model in application["args"]["models"]]
        application["deployments"] = [one for one in application["deployments"] if one["name"] in ("ingress", *models)]
        file = self._folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [str(Path(sys.executable).with_name("serve")), "deploy", str(file), "--address", self._dashboard]
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            done = subprocess.run(
                command, cwd=PROJECT, env=self._environment, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
            assert time.monotonic() < deadline, done.stderr + self.said()
            if self._process.poll() is not None:  # a node that takes more than 30 s to start gives up
                self._process = self._start()
            time.sleep(0.2)  # the dashboard is not there yet
        self.wait_until_running()

    def status(self) -> dict[str, Any]:
        """What Serve says of the application: `status`, `message`, `deployments`."""
        found = httpx.get(f"{self._dashboard}/api/serve/applications/", timeout=30).raise_for_status().json()
        application: dict[str, Any] = found["applications"]["reel"]
        return application

    def wait_until_running(self) -> None:
        """Until all of the application is as it was told to be, and HTTP answers."""
        deadline = time.monotonic() + READY_WITHIN_S
        while (status := self.status())["status"] != "RUNNING":
            assert status["status"] != "DEPLOY_FAILED", status
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.address}/healthz", timeout=30).is_success:
                    return
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def processes(self, part: str) -> list[psutil.Process]:
        """Processes of this Ray whose command line has `part` in it."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if part in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait_until_whole(self, *wanted: tuple[str, int]) -> None:
        """Until there are so many processes of each kind as there should be, and Serve is content."""
        deadline = time.monotonic() + READY_WITHIN_S
        while any(len(self.processes(part)) < count for part, count in wanted) or self.status()["status"] != "RUNNING":
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.1)

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        started = self.processes("") if self._process.poll() is None else []
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        for process in started:  # those that are left
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.wait(10)
        self._log.close()
        shutil.rmtree(self.ray_folder, ignore_errors=True)
