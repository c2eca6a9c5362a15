"""A road of a test's own, from a shared backlog to tables of its own: real `reel` processes, and what came of them."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks, scan_tasks
from pipelines.lakehouse.tables import AUDIT
from pipelines.settings import Settings, load_settings
from tests.platform import SALT

SEEDS = int(os.environ.get("REEL_FAULT_SEEDS", "3"))
PATIENCE_S = 180.0  # for whatever is polled: a machine may be busy with other things
NO_DATABASE = "reel: null in every event: geo"  # a warning that the tests' settings give rise to
RAYS_OWN = "\x1b[33m(raylet)"  # Ray itself tells of every worker that it lost
TRIED_AGAIN = re.compile(r"^reel: .*; trying again in \d+ s$", re.MULTILINE)  # what is said of a failure that passes
ORIGIN = ("topic", "partition", "offset")
# What makes a row of a table one row: each may be there once.
KEYS = {
    "bronze.events": (*ORIGIN, "event_id", "event_name"),
    "quarantine.events": (*ORIGIN, "reason"),
    "privacy.profiles": ("profile_id", "event_timestamp", "is_kids"),
    "privacy.consents": ("user_id", "event_timestamp", "allows_analytics"),
    "privacy.erasures": ("request", "kind", "pseudonym"),
    "silver.titles": ("content_id", "event_timestamp"),
    "silver.subscriptions": ("user_id", "event_timestamp"),
    "silver.playback_sessions": ("playback_id", "event_count", "watch_ms", "is_ended"),
}
SILVER_KEY = ("event_id", "event_name")


@dataclass(frozen=True)
class Road:
    """Settings of one run of the stations, as the environment of a `reel` process and as seen from here."""

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        salt = self.folder / "salt"
        salt.write_text(SALT)
        salt.chmod(0o600)

    @property
    def catalog(self) -> Path:
        """The file of its catalog."""
        return self.folder / "catalog.db"

    @property
    def variables(self) -> dict[str, str]:
        """All of Reel's variables."""
        return {"REEL_WORK_DIR": str(self.folder)} | self.environment

    @property
    def settings(self) -> Settings:
        return load_settings(environ=self.variables)

    def start(self, *command: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start `reel`, as the leader of a group of its own; what it says goes to a file of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REEL_")}
        with (self.folder / f"said-{len(self.started)}").open("w") as output:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "pipelines.cli", *command],
                env=inherited | self.variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """What a process printed."""
        return (self.folder / f"said-{self.started.index(process)}").read_text()

    def times_tried_again(self, process: subprocess.Popen[bytes]) -> int:
        """How many failures a process has told of that pass."""
        return len(TRIED_AGAIN.findall(self.said(process)))

    def reel(self, *command: str) -> str:
        """Run `reel` to its good end; what it said."""
        process = self.start(*command)
        code = process.wait(PATIENCE_S)
        assert code == 0, self.said(process)
        return self.said(process)

    def refused(self, process: subprocess.Popen[bytes]) -> str:
        """The one line in which a process must have said why it failed."""
        code = process.wait(PATIENCE_S)
        said = self.said(process)
        lines = [line for line in said.splitlines() if not line.startswith((NO_DATABASE, RAYS_OWN))]
        assert (code, len(lines)) == (1, 1), said
        assert lines[0].startswith("reel: ")
        return lines[0]

    def consumed(self) -> dict[str, dict[str, int]]:
        """How far bronze has come: per topic and partition the next offset."""
        bronze = Lakehouse.open(self.settings).existing("bronze.events")
        found: dict[str, dict[str, int]] = progress_of(bronze).get("offsets", {}) if bronze is not None else {}
        return found

    def ingest_and_clean(self) -> None:
        """An undisturbed run, in this process."""
        ingest(self.settings)
        clean(self.settings)

    def versions(self) -> int:
        """How many commits all tables but the audit log have seen.

        Straight from the catalog's file; cheap enough to be polled.
        """
        if not self.catalog.exists():
            return 0
        with closing(sqlite3.connect(f"file:{self.catalog}?mode=ro", uri=True)) as connection:
            try:
                query = "SELECT metadata_location FROM iceberg_tables WHERE table_namespace || '.' || table_name != ?"
                found = connection.execute(query, [AUDIT]).fetchall()
            except sqlite3.OperationalError:  # not made yet, or busy
                return 0
        return sum(int(Path(location).name.partition("-")[0]) for (location,) in found)

    def contents(self) -> dict[str, Counter[Any]]:
        """Every table's rows by what makes each of them one, what was dropped, and how far each table has come."""
        lakehouse = Lakehouse.open(self.settings)
        found: dict[str, Counter[Any]] = {}
        for name in lakehouse.names():
            if name == AUDIT:
                continue  # it holds the runs, not what came of them
            table = lakehouse.existing(name)
            assert table is not None
            key = KEYS.get(name, SILVER_KEY)
            rows = read_tasks(TableFiles.of(table), scan_tasks(table), key)
            found[name] = Counter(zip(*(rows[column].to_pylist() for column in key), strict=True))
            progress = progress_of(table)
            if "offsets" in progress:
                found[f"{name}: consumed"] = Counter(
                    {
                        (topic, partition): offset
                        for topic, partitions in progress["offsets"].items()
                        for partition, offset in partitions.items()
                    }
                )
        bronze = lakehouse.existing("bronze.events")
        found["dropped"] = Counter(progress_of(bronze).get("dropped", {}) if bronze is not None else {})
        return found

    @cached_property
    def final_contents(self) -> dict[str, Counter[Any]]:
        """`contents` of a road that nothing more comes to, looked at once."""
        return self.contents()

    def origins(self) -> Counter[tuple[str, int, int]]:
        """Every offset in bronze or quarantine, and how often."""
        contents = self.contents()
        return Counter(
            row[: len(ORIGIN)] for name in ("bronze.events", "quarantine.events") for row in contents[name].elements()
        )

    def differences(self, calm: "Road") -> dict[str, tuple[int, int]]:
        """Per table how many rows this road lacks, and how many too many it has, against an undisturbed one's end."""
        ours, theirs = self.contents(), calm.final_contents
        compared = {
            name: ((theirs[name] - ours[name]).total(), (ours[name] - theirs[name]).total())
            for name in theirs.keys() | ours.keys()
            if name in theirs and name in ours
        }
        compared |= dict.fromkeys(theirs.keys() ^ ours.keys(), (-1, -1))  # a table that only one of them has
        return {name: counts for name, counts in compared.items() if counts != (0, 0)}


def kill(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of a `reel` process and of everything in its group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, gone when the block ends, however it ends."""
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def wait_until(
    condition: Callable[[], Any], process: subprocess.Popen[bytes] | None = None, *, pause_s: float = 0.02
) -> None:
    """Poll until `condition` holds, or `process` has ended. Fails the test when that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(pause_s)


def wait_for_moment(road: Road, process: subprocess.Popen[bytes], chance: random.Random, commits: int) -> None:
    """Until a random moment of the process's work: up to `commits` commits from now and a moment more."""
    wanted = road.versions() + chance.randrange(commits + 1)
    wait_until(lambda: road.versions() >= wanted, process)
    moment = time.monotonic() + chance.expovariate(3)
    wait_until(lambda: time.monotonic() >= moment, process)
