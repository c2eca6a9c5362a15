"""A platform of a benchmark's own: a folder, a real broker in it, and the `reel` command pointed at both."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.kafka.broker import LocalBroker
from pipelines.settings import Settings, load_settings
from pipelines.settings_section import PROJECT_ROOT
from tests.benchmarks.memory import PeakMemory

SALT = "a salt of the benchmarks"
BENCH_FOLDER = PROJECT_ROOT / ".reel" / "benchmarks"  # what is fetched once and kept: other engines


@dataclass(frozen=True)
class Run:
    """One finished `reel` command: its last report, and the most memory that it and all of its Ray used."""

    report: dict[str, Any]
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """The station's own time: without the start of Python and of Ray."""
        return float(self.report["seconds"])


class Command:
    """A `reel` command that runs; what it says goes into files beginning like `record`, its memory is watched."""

    def __init__(self, command: Sequence[str], record: Path) -> None:
        self._said, self._errors = record.with_suffix(".out"), record.with_suffix(".err")
        with self._said.open("wb") as said, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=PROJECT_ROOT, env=os.environ | {"REEL_SALT": SALT}, stdout=said, stderr=errors
            )
        self._memory = PeakMemory(self._process.pid)

    def finish(self) -> Run:
        """Wait for its end. Raises RuntimeError with its errors if it failed."""
        failed = self._process.wait()
        peak_bytes = self._memory.take()
        if failed:
            raise RuntimeError(self._errors.read_text()[-2000:])
        return Run(json.loads(self._said.read_text().splitlines()[-1]), peak_bytes)

    def stop(self) -> None:
        """Ask it to end, and wait until it and its Ray have."""
        self._process.terminate()
        self._process.wait()


@dataclass(frozen=True)
class Bench:
    """Where everything of this benchmark is."""

    folder: Path
    bootstrap: str

    @property
    def settings(self) -> Settings:
        """What the commands run with."""
        return load_settings(self._config, {})

    def start(self, *command: str) -> "Command":
        """`reel COMMAND --json` in a process of its own."""
        return Command(
            [sys.executable, "-m", "pipelines.cli", "--config", str(self._config), *command, "--json"],
            self.folder / f"{command[0]}-{time.monotonic_ns()}",
        )

    def reel(self, *command: str) -> Run:
        """`reel COMMAND --json`, to its end."""
        return self.start(*command).finish()

    @property
    def ledger(self) -> dict[str, Any]:
        """What the traffic that was sent must come to."""
        truth: dict[str, Any] = json.loads((self.folder / "traffic.json").read_text())
        return truth

    @property
    def _config(self) -> Path:
        return self.folder / "config.yaml"


@contextmanager
def own_bench(**settings: Any) -> Iterator[Bench]:
    """A bench in a temporary folder, gone afterwards; `settings` go over those of configs/local.yaml's kind."""
    with tempfile.TemporaryDirectory(prefix="reel-bench-") as name:
        folder = Path(name)
        broker = LocalBroker(folder / "kafka", PROJECT_ROOT / ".reel" / "kafka" / "libs")
        bootstrap = broker.start().bootstrap
        tree = {
            "work_dir": name,
            "kafka": {"bootstrap_servers": bootstrap},
            "lakehouse": {"event_partition": "hour"},
            **settings,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        try:
            yield Bench(folder, bootstrap)
        finally:
            broker.kill()
