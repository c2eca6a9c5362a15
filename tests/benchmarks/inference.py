"""What it takes to ask each model over HTTP: requests a second, latencies, and how much of them is the model's own.

    python -m tests.benchmarks.inference [--seconds N] [--clients N]

The service as its users run it (HAProxy, one process that answers, one that runs the models), with tiny models that
were trained for it and a small platform in LMDB. The load is made on the same machine, and counted with it. The floor
is `/healthz` of the same run, which asks nobody. Every answer is checked: it must come from the model.

`model_share` is the time that the model alone takes for the same question, asked in this process, as a share of the
median latency with one client; with one thread, as Ray gives a model's process. The cascade is asked last: once it is
published the recommender alone answers no more. The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from threadpoolctl import threadpool_limits

from models.cascade.cascade import Cascade, CascadeConfig
from models.cascade.catalogue import Catalogue, Offer
from models.cascade.folder import LOADERS as LOADERS_OF_PARTS
from models.cascade.folder import save
from models.content.titles import Title
from pipelines.assemble import LOADER, PARTS
from serving.hosting.questions import Accounts, Next, Routes, Titles
from serving.hosting.servables import LOADERS
from serving.online_store import open_online_store
from serving.settings import MODELS
from tests.models.ranker.planted import GENRES
from tests.serving import platform, registry
from tests.serving.service_process import ServiceProcess

CASCADE = "cascade"
CDNS = ["akamai", "cloudfront", "fastly"]
ASKED: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "healthz": ("GET", "/healthz", None),
    "recommendation": ("GET", "/v1/recommendations?profile_id=profile-adult", None),
    "cascade": ("GET", "/v1/recommendations?profile_id=profile-adult", None),
    "churn": ("GET", "/v1/churn?user_id=user-adult", None),
    "cdn": ("POST", "/v1/cdn/route", {"cdns": CDNS, "region": "US", "user_id": "user-adult"}),
    "anomaly": (
        "POST",
        "/v1/anomalies",
        {
            "metric": "tune_ins",
            "segment": {"channel": "ch-003"},
            "values": [{"at": "2026-05-04T12:00:00Z", "value": 5.0}],
        },
    ),
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="per endpoint and number of clients")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reel-inference-") as scratch:
        folder = Path(scratch)
        published(folder)
        settings = {
            "online_store_url": f"lmdb://{folder}/online",
            "mlflow_tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "as_of": "watermark",
            "port": 0,
            "store_budget_ms": 5000,
            "deadline_ms": 10_000,
        }
        with ServiceProcess(folder, settings, {"REEL_SALT": platform.SALTS}) as service:
            found = {
                name: measured(service.address, name, options.seconds, options.clients)
                for name in ASKED
                if name != CASCADE
            }
            publish_cascade(folder, service.address)
            found[CASCADE] = measured(service.address, CASCADE, options.seconds, options.clients)
        with threadpool_limits(1):
            for model in MODELS:
                found[model]["model_share"] = round(alone_ms(folder, model) / found[model]["p50_ms_1"], 3)
    print(json.dumps(found))


def published(folder: Path) -> None:
    """A platform in the store, and a champion of every model but the cascade."""
    with open_online_store(f"lmdb://{folder}/online") as store:
        platform.fill(store)
    for model in MODELS:
        if model == CASCADE:
            continue
        if model == "recommendation":
            registry.make_recommender(folder / model, seed=1)
        else:
            registry.train(model, folder / model)
        registry.publish(f"sqlite:///{folder}/mlflow.db", folder / model, model=model)


def publish_cascade(folder: Path, address: str) -> None:
    """The recommender with a content model and a ranker, published, and answering."""
    for model in ("content", "ranker"):
        registry.train(model, folder / model)
    titles = [
        Title(name, f"The {name}", "vod", (GENRES[n % len(GENRES)],), None) for n, name in enumerate(platform.TITLES)
    ]
    parts = {part: LOADERS_OF_PARTS[part](folder / model) for part, model in PARTS.items()}
    save(Cascade(Catalogue({one.content_id: Offer(one) for one in titles}), CascadeConfig(), **parts), folder / CASCADE)
    registry.publish_folder(f"sqlite:///{folder}/mlflow.db", folder / CASCADE, CASCADE, LOADER)
    method, path, _ = ASKED[CASCADE]
    while httpx.request(method, f"{address}{path}", timeout=60).raise_for_status().json()["model"] != CASCADE:
        time.sleep(0.2)


def measured(address: str, name: str, seconds: float, clients: int) -> dict[str, float]:
    """Latencies of one client, then latencies and requests a second of several."""
    alone = latencies_ms(address, name, seconds)
    with ThreadPoolExecutor(clients) as threads:
        together = np.concatenate(list(threads.map(lambda _: latencies_ms(address, name, seconds), range(clients))))
    found = {
        "rps": len(together) / seconds,
        "p50_ms_1": float(np.percentile(alone, 50)),
        "p99_ms_1": float(np.percentile(alone, 99)),
        f"p50_ms_{clients}": float(np.percentile(together, 50)),
        f"p99_ms_{clients}": float(np.percentile(together, 99)),
    }
    sys.stderr.write(f"{name}: {found}\n")
    return {key: round(value, 2) for key, value in found.items()}


def latencies_ms(address: str, name: str, seconds: float) -> np.ndarray:
    """Of one client that asks as soon as it is answered."""
    method, path, body = ASKED[name]
    times = []
    with httpx.Client(base_url=address, timeout=60) as client:
        ends = time.perf_counter() + seconds
        while (started := time.perf_counter()) < ends:
            answer = client.request(method, path, json=body).raise_for_status().json()
            times.append((time.perf_counter() - started) * 1000)
            assert name == "healthz" or answer["degraded"] is False, answer
    return np.array(times)


def alone_ms(folder: Path, model: str) -> float:
    """Median time that the model takes for the question, without anything around it."""
    servable = LOADERS[model](folder / model)
    question = question_of(model, servable)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        servable.answer([question])
        times.append((time.perf_counter() - started) * 1000)
    return float(np.median(times))


def question_of(model: str, servable: Any) -> Any:
    """The question that the request becomes; where features are known, those that are not are null."""
    ask: dict[str, Callable[[], Any]] = {
        "recommendation": lambda: Titles(platform.ADULT_HISTORY, 10),
        "cascade": lambda: Titles(platform.ADULT_HISTORY, 10),
        "churn": lambda: Accounts({name: [None] for name in servable.scorer.encoding.columns}),
        "cdn": lambda: Routes(
            {name: [None] * len(CDNS) for name in servable.model.encoding.columns}
            | {"cdn": CDNS, "region": ["US"] * len(CDNS)}
        ),
        "anomaly": lambda: Next("ch-003", platform.WATERMARK_MS, None, 5.0),
    }
    return ask[model]()


if __name__ == "__main__":
    main()
