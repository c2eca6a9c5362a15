"""Demo: the whole road on a small simulated platform, from an empty folder; two questions, and an event that changes
the answers.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import unpack_values
from features.purposes import Purpose
from models.recommendation.task import TASK
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.cluster import connected
from pipelines.console import UNWRAPPED, progress_bar, say
from pipelines.demo_live import show_live
from pipelines.errors import JavaMissing, MavenMissing
from pipelines.evaluate import evaluate
from pipelines.feed import feed_simulation
from pipelines.ingest import ingest
from pipelines.kafka.broker import LocalBroker
from pipelines.kafka.embedded import PREFIX
from pipelines.lakehouse.lineage import reported
from pipelines.processes import find_free_port, why_not_free
from pipelines.publish import publish
from pipelines.report import StationReport
from pipelines.secrets import pseudonymizer
from pipelines.serve import serving
from pipelines.settings import Settings
from pipelines.simulator import SimulationConfig
from pipelines.tokens import new_token
from pipelines.train import train
from pipelines.training_set import build_training_set, latest_training_set
from serving.online_store import open_online_store

PLATFORM = SimulationConfig(households=400, days=28, seed=7, heartbeat_s=300)
EPOCHS = 15  # enough for a platform this small


def run_demo(settings: Settings, *, keep: bool) -> None:
    """Run every station once, then serve and ask; with `keep`, go on serving until stopped."""
    started = time.perf_counter()
    libs = settings.kafka_folder / "libs"
    settings = settings.model_copy(update={"work_dir": settings.work_dir / "demo"})
    LocalBroker(settings.kafka_folder).stop()  # of a demo that was killed
    shutil.rmtree(settings.work_dir, ignore_errors=True)
    with _event_log(settings, libs) as (bootstrap, source):
        say(f"events go through {source}")
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap})
        settings = settings.model_copy(update={"kafka": kafka})
        reports = _road(settings)
        serving_started = time.perf_counter()
        with serving(settings, port=_port(settings)) as (address, service):
            reports.append(
                StationReport("serve", wrote={"address": address}, seconds=time.perf_counter() - serving_started)
            )
            _ask(settings, address)
            _show_live(settings, address)
            _summary(reports, time.perf_counter() - started)
            with _mlflow_page(settings, keep=keep) as mlflow_page:
                say(f"API page  {address}/docs" + ("" if keep else "  (while it serves: make demo KEEP=1)"))
                say(f"token     {new_token(settings, 'demo')}")
                say(f"MLflow    {mlflow_page}")
                if keep:
                    for number in (signal.SIGINT, signal.SIGTERM):  # Ray has put handlers of its own there
                        signal.signal(number, signal.default_int_handler)
                    say("serving until you press Ctrl-C")
                    service.wait()


def _road(settings: Settings) -> list[StationReport]:
    uri = settings.tracking_uri
    reports = [_shown("simulate", lambda bar: feed_simulation(settings, PLATFORM, bar.advance))]
    with connected(settings):
        reports += [
            _shown("ingest", lambda bar: ingest(settings, on_plan=bar.plan, on_progress=bar.advance)),
            _shown("clean", lambda bar: clean(settings, on_progress=bar.reach)),
            _shown("features", lambda bar: build_features(settings, on_progress=bar.reach)),
            _shown(
                "training-set",
                lambda bar: build_training_set(settings, purpose=Purpose.PERSONALIZATION, on_progress=bar.reach),
            ),
            _shown(
                "train",
                lambda bar: _audited(
                    settings,
                    "train",
                    partial(
                        train,
                        TASK.name,
                        latest_training_set(settings.work_dir),
                        tracking_uri=uri,
                        storage=settings.work_dir / "checkpoints",
                        configuration={"epochs": EPOCHS, "seed": settings.training.seed},
                        on_progress=bar.reach,
                    ),
                ),
            ),
            _shown(
                "evaluate", lambda bar: _audited(settings, "evaluate", partial(evaluate, TASK.name, tracking_uri=uri))
            ),
            _shown("publish", lambda bar: _audited(settings, "publish", partial(publish, TASK.name, tracking_uri=uri))),
        ]
    return reports


def _audited(settings: Settings, station: str, work: Callable[[], StationReport]) -> StationReport:
    return reported(settings, station, work, TASK.purpose)


def _shown(title: str, station: Callable[[Any], StationReport]) -> StationReport:
    with progress_bar(title, shown=True) as bar:
        report = station(bar)
    say(f"{title:<13}{report.seconds:6.1f} s   {_headline(report)}")
    return report


def _headline(report: StationReport) -> str:
    """The two greatest counts of what was written, else the first two facts."""
    counts = {name: value for name, value in report.wrote.items() if isinstance(value, int)}
    greatest = sorted(counts, key=lambda name: -counts[name])[:2]
    facts = [f"{name} {counts[name]:,}" for name in greatest]
    return ", ".join(facts or [f"{name} {value}" for name, value in report.wrote.items()][:2])


@contextmanager
def _event_log(settings: Settings, libs: Path) -> Iterator[tuple[str, str]]:
    """(bootstrap servers, what they are): a Kafka broker of the demo's own, else the embedded log."""
    if settings.kafka.bootstrap_servers is not None:
        yield settings.kafka.bootstrap_servers, f"Kafka at {settings.kafka.bootstrap_servers}"
        return
    broker = LocalBroker(settings.kafka_folder, libs)
    try:
        address = broker.start()
    except (JavaMissing, MavenMissing) as missing:
        reason = " ".join(str(missing).split())
        yield (
            f"{PREFIX}{settings.work_dir / 'events.db'}",
            f"the embedded log, because there is no Kafka here: {reason}",
        )
        return
    try:
        yield address.bootstrap, f"Apache Kafka at {address.bootstrap}"
    finally:
        broker.stop()


def _port(settings: Settings) -> int:
    """The configured port; a free one if somebody has it, for a demo must not end there."""
    return settings.serving.port if why_not_free(settings.serving.port) is None else find_free_port()


def _ask(settings: Settings, address: str) -> None:
    """Two questions: what next for a viewer the platform knows, and for one it has never seen."""
    with _client(settings, address) as client:
        for profile in (_known_profile(settings), "somebody-new"):
            answer = client.get("/v1/recommendations", params={"profile_id": profile, "k": 5}).raise_for_status().json()
            why = f", because {answer['reason']}" if answer.get("reason") else ""
            say(f"\nGET /v1/recommendations?profile_id={profile}&k=5   from: {answer['source']}{why}")
            for place, item in enumerate(answer["items"], start=1):
                say(f"  {place}. {item['title']}  ({', '.join(item['genres'])})")


def _show_live(settings: Settings, address: str) -> None:
    """The viewer that the platform knows finishes the title that it recommends most."""
    profile = _known_profile(settings)
    with _client(settings, address) as client:
        first = client.get("/v1/recommendations", params={"profile_id": profile, "k": 1}).raise_for_status().json()
        show_live(settings, client, profile, first["items"][0]["content_id"])


def _client(settings: Settings, address: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {new_token(settings, 'demo')}"}
    return httpx.Client(base_url=address, timeout=30, headers=headers)


def _known_profile(settings: Settings) -> str:
    """The simulated viewer who has finished most titles lately, among those of whom features are kept."""
    hasher = pseudonymizer(settings)
    viewers = pq.read_table(settings.work_dir / "truth" / "viewers.parquet", columns=["profile_id"])
    plain: list[str] = viewers["profile_id"].to_pylist()
    with open_online_store(settings.online_store_url, readonly=True) as store:
        (watermark,) = store.get_many("meta", ["watermark_ms"])
        kept = store.get_many(USER_VIEWING_HISTORY.stored_as("profile_id"), [hasher.hash(one) for one in plain])
    titles = unpack_values(USER_VIEWING_HISTORY, kept, int(watermark or 0))["recent_titles"].to_pylist()
    return max(zip(plain, titles, strict=True), key=lambda viewer: len(viewer[1] or []))[0]


def _summary(reports: list[StationReport], seconds: float) -> None:
    table = Table(title="\nthe road, station by station", title_justify="left", box=None)
    for column, justify in (("station", "left"), ("seconds", "right"), ("read", "left"), ("wrote", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for report in reports:
        first_read = next(iter(report.read.items()), ("", ""))
        table.add_row(report.station, f"{report.seconds:.1f}", _fact(first_read), _headline(report))
    table.add_row("all", str(timedelta(seconds=round(seconds))), "", "")
    Console(highlight=False, width=None if sys.stdout.isatty() else UNWRAPPED).print(table)


def _fact(fact: tuple[str, object]) -> str:
    name, value = fact
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}".strip()


@contextmanager
def _mlflow_page(settings: Settings, *, keep: bool) -> Iterator[str]:
    """MLflow's page, or how to open it when the demo does not stay."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.tracking_uri]
    if not keep:
        yield f"{os.path.relpath(sys.executable)} -m mlflow server --backend-store-uri {settings.tracking_uri}"
        return
    port = find_free_port()
    page = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(page.pid, signal.SIGTERM)  # with the processes it has started
        page.wait(30)


def _wait_for(address: str) -> None:
    """Return when the address answers, or after a minute: the page is worth waiting for, not failing for."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            httpx.get(address, timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.5)  # not listening yet
