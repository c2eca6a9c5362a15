"""`kill -9` of the ingest at random moments of one import: every offset once in bronze, every event once in silver."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.feed import feed_simulation
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks, scan_tasks
from pipelines.settings import IngestSettings, KafkaSettings, RegistrySettings, Settings
from pipelines.simulator import SimulationConfig
from tests.platform import SALT

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("REEL_FAULT_SEEDS", "3"))
SMALL = IngestSettings(messages_per_task=1000, messages_per_commit=2000)


def settings(folder: Path, bootstrap: str) -> Settings:
    return Settings(
        work_dir=folder,
        kafka=KafkaSettings(bootstrap_servers=bootstrap, partitions=2),
        registry=RegistrySettings(url=str(folder.parent / "registry.db")),
        ingest=SMALL,
    )


def reel(folder: Path, bootstrap: str, *command: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "REEL_WORK_DIR": str(folder),
        "REEL_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "REEL_REGISTRY_URL": str(folder.parent / "registry.db"),
        "REEL_INGEST_MESSAGES_PER_TASK": "1000",
        "REEL_INGEST_MESSAGES_PER_COMMIT": "2000",
        "REEL_SALT": SALT,
    }
    with said(folder).open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *command],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def said(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / "output.txt"


def commits(folder: Path, bootstrap: str) -> int:
    table = Lakehouse.open(settings(folder, bootstrap)).existing("bronze.events")
    return len(table.metadata.snapshots) if table is not None else 0


def column(folder: Path, bootstrap: str, table: str, *columns: str) -> list[tuple]:
    found = Lakehouse.open(settings(folder, bootstrap)).existing(table)
    rows = read_tasks(TableFiles.of(found), scan_tasks(found), columns)
    return sorted(zip(*(rows[name].to_pylist() for name in columns), strict=True))


def test_an_ingest_killed_again_and_again_loses_and_doubles_nothing(own_broker, tmp_path):
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    platform = SimulationConfig(households=60, days=5, seed=3, heartbeat_s=300)
    feed_simulation(settings(killed, own_broker), platform, lambda n: None)
    calm_run = reel(calm, own_broker, "ingest")
    assert calm_run.wait(600) == 0, said(calm).read_text()

    chance, deaths = random.Random(11), 0
    while deaths < KILLS:
        before = commits(killed, own_broker)
        victim = reel(killed, own_broker, "ingest")
        # Most moments lie in its work: some after a commit or two, some before the first.
        patience = time.monotonic() + chance.uniform(2, 12)
        wanted = before + chance.randrange(3)
        while time.monotonic() < patience and victim.poll() is None and commits(killed, own_broker) <= wanted:
            time.sleep(chance.uniform(0.01, 0.2))
        finished = victim.poll() is not None
        if not finished:
            os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        deaths += 1
        if finished:
            break
    last = reel(killed, own_broker, "ingest")
    assert last.wait(600) == 0, said(killed).read_text()
    cleaned = reel(killed, own_broker, "clean")
    assert cleaned.wait(600) == 0, said(killed).read_text()

    place = ("topic", "partition", "offset")
    offsets = column(killed, own_broker, "bronze.events", *place)
    assert len(offsets) == len(set(offsets))
    for table in ("bronze.events", "quarantine.events"):
        assert column(killed, own_broker, table, *place) == column(calm, own_broker, table, *place)
    for table, key in (("privacy.profiles", "profile_id"), ("privacy.consents", "user_id")):
        assert column(killed, own_broker, table, key) == column(calm, own_broker, table, key)
    ids = [event_id for (event_id,) in column(killed, own_broker, "silver.playback", "event_id")]
    sent = {
        event_id
        for event_id, name in column(calm, own_broker, "bronze.events", "event_id", "event_name")
        if name.startswith("playback.")
    }
    assert ids == sorted(sent)
    assert deaths >= 1
