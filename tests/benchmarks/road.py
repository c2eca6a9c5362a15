"""The whole road on a simulated platform: events a second and peak memory of every station.

    python -m tests.benchmarks.road [--households N] [--days D]

Real Kafka where Java is, else the embedded log. Peak memory is that of all processes a station has (driver, Ray and
its workers), sampled every 50 ms, shared memory counted once. Counts are checked against the simulator's truth: a
fast road that lost an event would be worth nothing. The last line is one JSON object.
"""

import argparse
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from features.purposes import Purpose
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.cluster import connected
from pipelines.errors import JavaMissing, MavenMissing
from pipelines.evaluate import evaluate
from pipelines.feed import feed_simulation
from pipelines.ingest import ingest
from pipelines.kafka.broker import LocalBroker
from pipelines.kafka.embedded import PREFIX
from pipelines.report import StationReport
from pipelines.settings import Settings
from pipelines.settings_section import PROJECT_ROOT
from pipelines.simulator import SimulationConfig
from pipelines.train import train
from pipelines.training_set import build_training_set, latest_training_set

SAMPLE_S = 0.05


class PeakMemory:
    """The most memory that this process and all below it have used at once, in MB, since it was asked last."""

    def __init__(self) -> None:
        self._peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def take(self) -> float:
        """The peak since the last time."""
        peak, self._peak = self._peak, 0
        return peak / 1e6

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, _memory())
            time.sleep(SAMPLE_S)


def _memory() -> int:
    """Unshared memory of every process, and the largest shared part once: Ray's object store is mapped by all."""
    own, shared = 0, 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        own += memory.rss - memory.shared
        shared = max(shared, memory.shared)
    return own + shared


@contextmanager
def event_log(folder: Path) -> Iterator[str]:
    """Bootstrap servers of a broker of this run's own, or of the embedded log."""
    broker = LocalBroker(folder / "kafka", PROJECT_ROOT / ".reel" / "kafka" / "libs")
    try:
        address = broker.start()
    except (JavaMissing, MavenMissing):
        yield f"{PREFIX}{folder / 'log.db'}"
        return
    try:
        yield address.bootstrap
    finally:
        broker.stop()


def main() -> None:
    """Run the road and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--households", type=int, default=400)
    parser.add_argument("--days", type=int, default=14)
    options = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    peak = PeakMemory()
    stations: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="reel-road-") as name, event_log(Path(name)) as bootstrap:
        os.environ.setdefault("REEL_SALT", "a salt for benchmarks")
        settings = Settings(work_dir=Path(name), kafka={"bootstrap_servers": bootstrap})
        platform = SimulationConfig(households=options.households, days=options.days)

        def run(station: Callable[[], StationReport], events: Callable[[StationReport], int]) -> StationReport:
            peak.take()
            report = station()
            stations[report.station] = {
                "seconds": round(report.seconds, 2),
                "events_per_s": round(events(report) / report.seconds),
                "peak_mb": round(peak.take()),
            }
            print(json.dumps({report.station: stations[report.station]}))
            return report

        run(lambda: feed_simulation(settings, platform, lambda n: None), lambda r: int(r.wrote["messages"]))
        with connected(settings):
            read = run(lambda: ingest(settings), lambda r: int(r.read["messages"]))
            kept = run(lambda: clean(settings), lambda r: sum(int(n) for n in r.read.values()))
            run(lambda: build_features(settings), lambda r: int(r.read["silver.playback"]))
            run(
                lambda: build_training_set(settings, purpose=Purpose.PERSONALIZATION),
                lambda r: int(r.read["silver.playback"]),
            )
            run(
                lambda: train(
                    "recommendation",
                    latest_training_set(settings.work_dir),
                    tracking_uri=settings.tracking_uri,
                    storage=settings.work_dir / "checkpoints",
                    configuration={"epochs": 3},
                ),
                lambda r: int(r.read["train_labels"]) * 3,
            )
            run(
                lambda: evaluate("recommendation", tracking_uri=settings.tracking_uri),
                lambda r: int(r.read["test rows"]),
            )
        truth = json.loads((settings.work_dir / "truth" / "expected.json").read_text())
        assert read.read["messages"] == truth["expected"]["messages"], "ingest lost or doubled messages"
        playbacks = sum(facts["kept"] for event, facts in truth["events"].items() if event.startswith("playback."))
        assert kept.wrote["silver.playback"] == playbacks, "silver does not hold each kept playback event once"
    seconds = sum(station["seconds"] for station in stations.values())
    print(json.dumps({"events": read.read["messages"], "seconds": round(seconds, 2), "stations": stations}))


if __name__ == "__main__":
    main()
