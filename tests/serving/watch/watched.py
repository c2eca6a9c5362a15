"""A service to be watched: two replicas, a Redis that can be slowed, tokens, gRPC, a collector of traces."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
from prometheus_client.parser import text_string_to_metric_families

from serving.tokens import Scope
from tests.collector import Collector
from tests.serving import platform, registry
from tests.serving.service_process import ServiceProcess

SECRET = "0123456789abcdef0123456789abcdef"
SCOPES = " ".join(Scope)
STORE_BUDGET_MS = 1500
IN_FLIGHT = 8
WITHIN_S = 90


def token(subject: str = "tests", scope: str = SCOPES, **claims: Any) -> str:
    told = {"sub": subject, "aud": "reel", "exp": time.time() + 3600, "scope": scope, "purpose": "personalization"}
    return jwt.encode(told | claims, SECRET, "HS256")


class SlowedLine:
    """A TCP proxy to `port` that keeps back what the server says for `delay_s`, or answers nobody while cut."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self._to = port
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for one in list(self._open):
            _close(one)

    def mend(self) -> None:
        self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_slowed: bool) -> None:
        try:
            while said := source.recv(65_536):
                if is_slowed:
                    time.sleep(self.delay_s)
                sink.sendall(said)
        except OSError:
            pass  # the other side, or `cut`, closed it
        for one in (source, sink):
            _close(one)

    def close(self) -> None:
        self._listener.close()
        self.cut()


def _close(one: socket.socket) -> None:
    with suppress(OSError):  # it was closed before
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@dataclass(frozen=True)
class Watched:
    """The running service and what it stands on. `client` has a token that is good for everything."""

    service: ServiceProcess
    line: SlowedLine
    collector: Collector
    client: httpx.Client
    model_version: str

    @property
    def grpc_address(self) -> str:
        return self.service.announcement.partition("gRPC ")[2].partition(" ")[0]

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """Every sample of one scrape: name, labels, value."""
        text = self.client.get("/metrics").raise_for_status().text
        families = text_string_to_metric_families(text)
        return [(one.name, one.labels, one.value) for family in families for one in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum over replicas, and over all labels that are not named."""
        return sum(value for one, has, value in self.samples() if one == name and labels.items() <= has.items())

    def settle(self) -> None:
        """Wait until a scrape shows what both replicas have answered up to now."""
        now_s = time.time()

        def are_fresh() -> bool:
            shown = [value for name, _, value in self.samples() if name == "reel_metrics_timestamp_seconds"]
            return sum(at_s > now_s for at_s in shown) >= 2

        until(are_fresh)

    def log(self) -> bytes:
        """All that Ray kept of what the processes said."""
        files = [file for file in self.service.ray_folder.rglob("*") if file.is_file() and "/logs/" in str(file)]
        return b"".join(file.read_bytes() for file in files) + self.service.errors().encode()

    def replicas(self) -> set[int]:
        """Processes that answer HTTP."""
        return self._processes(rb"ServeReplica:reel:ingress")

    def models(self) -> set[int]:
        """Processes that run models."""
        return self._processes(rb"ServeReplica:reel:(?!ingress)")

    def _processes(self, title: bytes) -> set[int]:
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = str(self.service.ray_folder).encode() in (process / "environ").read_bytes()
                if is_ours and re.search(title, (process / "cmdline").read_bytes()):
                    found.add(int(process.name))
            except OSError:
                continue  # it ended meanwhile, or is another user's
        return found


@contextmanager
def running(folder: Path, redis_url: str) -> Iterator[Watched]:
    """The service, answering with its model from both replicas."""
    line, collector = SlowedLine(int(redis_url.rpartition(":")[2].partition("/")[0])), Collector()
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    registry.make_recommender(folder / "model", seed=1)
    version = registry.publish(tracking_uri, folder / "model")
    settings = {
        "online_store_url": f"redis://127.0.0.1:{line.port}/9",
        "mlflow_tracking_uri": tracking_uri,
        "as_of": "watermark",
        "port": 0,
        "grpc_port": 0,
        "replicas": 2,
        "max_in_flight": IN_FLIGHT,
        "store_budget_ms": STORE_BUDGET_MS,
        "deadline_ms": 5000,
        "popular_refresh_s": 1,
        "models": ["recommendation"],
        "tokens": {"algorithm": "HS256"},
        "traces_url": collector.url,
    }
    environment = {"REEL_SALT": platform.SALTS, "REEL_TOKEN_SECRET": SECRET}
    headers = {"Authorization": f"Bearer {token()}"}
    try:
        with (
            ServiceProcess(folder, settings, environment) as service,
            httpx.Client(base_url=service.address, timeout=60, headers=headers) as client,
        ):
            watched = Watched(service, line, collector, client, version)
            until(lambda: client.get("/readyz").json()["models"] == {"recommendation": version})
            until(lambda: len({labels["replica"] for _, labels, _ in watched.samples()}) == 2)
            yield watched
    finally:
        line.close()
        collector.close()


def until(is_so: Any) -> None:
    """Wait for a condition, however slow the machine is."""
    deadline_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not become so"
        time.sleep(0.1)


def kill(pid: int) -> None:
    os.kill(pid, 9)
