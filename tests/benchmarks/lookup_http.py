"""The HTTP half of `lookup`: Reel's service, Feast's own `feast serve`, and a handler that returns a constant."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt

from features.entities import entity as entity_of
from features.pseudonyms import Pseudonymizer
from features.services import View
from serving.online_store import open_online_store
from tests.benchmarks.load import Order, loaded
from tests.pipelines.feast.stocked import Stock
from tests.serving.conftest import free_port
from tests.serving.service_process import ServiceProcess

SALT, SECRET = "the salt of a benchmark", "0123456789abcdef0123456789abcdef"
CLIENTS = 8
STARTS_WITHIN_S = 120


def put_people(url: str, stock: Stock, views: Sequence[View]) -> None:
    """The people once more, as the service knows them: under their pseudonyms, grown up and willing."""
    people = Pseudonymizer((SALT,))
    allows = json.dumps(dict.fromkeys(("allows_analytics", "allows_personalization"), True)).encode()
    with open_online_store(url) as store:
        for view in views:
            if not entity_of(view.entity).is_personal:
                continue
            rows = [(people.hash(name), value) for name, value in stock.packed[view.name]]
            store.put_many(view.name, rows)
            owned = json.dumps({"is_kids": False, "user_id": people.hash("somebody")}).encode()
            store.put_many("profiles", [(name, owned) for name, _ in rows])
            store.put_many("consents", [(name, allows) for name, _ in rows])
        store.put_many("consents", [(people.hash("somebody"), allows)])


@contextmanager
def reel_serving(folder: Path, url: str, module: str = "serving") -> Iterator[ServiceProcess]:
    """`python -m serving` on a store, or what is to be compared with it under the same settings."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    settings = {
        "online_store_url": url,
        "mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db",
        "as_of": "watermark",
        "port": 0,
        "store_budget_ms": 5000,
        "tokens": {"algorithm": "HS256", "secret_file": str(secret)},
    }
    with ServiceProcess(folder, settings, {"REEL_SALT": SALT}, module) as service:
        yield service


@contextmanager
def feast_serving(folder: Path) -> Iterator[str]:
    """`feast serve` in a repository's folder, one worker; its address."""
    port = free_port()
    command = ["-m", "feast.cli.cli", "-c", str(folder), "serve", "-p", str(port), "--no-access-log"]
    # A worker is replaced after 1,000 requests else, and some fail meanwhile.
    command += ["--max-requests", "1000000000", "--max-requests-jitter", "0"]
    with (folder / "feast.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + STARTS_WITHIN_S
            while not _answers(f"{address}/health"):
                assert server.poll() is None, (folder / "feast.log").read_text()
                assert time.monotonic() < deadline, "feast serve did not start"
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def question(views: Sequence[View], rows: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The body that both servers are sent."""
    return {
        "entities": {column: list(keys) for column, keys in rows.items()},
        "features": [f"{view.name}:{feature.name}" for view in views for feature in view.group.features],
        "full_feature_names": True,
    }


def look_up(address: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What `CLIENTS` clients get of `/get-online-features` that ask as soon as they are answered."""
    return loaded(Order(address, _post("/get-online-features", body), seconds, CLIENTS))


def one_key(profile: str) -> str:
    """A request for one group's features of one profile."""
    return _get(f"/v1/features?group=user_viewing_history&profile_id={profile}")


def constant() -> str:
    """A request that a constant answers."""
    return _get("/healthz")


def values(address: str, body: dict[str, Any]) -> dict[str, list[Any]]:
    """By column, what the server at `address` says."""
    answer = httpx.post(f"{address}/get-online-features", json=body, headers=_headers(), timeout=60)
    said = answer.raise_for_status().json()
    vectors = zip(said["metadata"]["feature_names"], said["results"], strict=True)
    return {name: vector["values"] for name, vector in vectors}


def _headers() -> dict[str, str]:
    told = {"sub": "benchmark", "aud": "reel", "exp": int(time.time()) + 3600, "scope": "features"}
    return {"Authorization": f"Bearer {jwt.encode(told | {'purpose': 'personalization'}, SECRET, 'HS256')}"}


def _get(path: str) -> str:
    return _request("GET", path, {}, "")


def _post(path: str, body: dict[str, Any]) -> str:
    text = json.dumps(body)
    return _request("POST", path, {"Content-Type": "application/json", "Content-Length": str(len(text))}, text)


def _request(method: str, path: str, headers: Mapping[str, str], body: str) -> str:
    lines = [f"{name}: {value}" for name, value in ({"Host": "benchmark"} | _headers() | dict(headers)).items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", body])


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).is_success
    except httpx.TransportError:
        return False
