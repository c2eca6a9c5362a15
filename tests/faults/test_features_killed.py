"""`kill -9` of a build of features between two commits: gone on with, all tables are those of an undisturbed build."""

import random
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from features.groups import GROUPS
from pipelines.build_features import build_features
from pipelines.feature_tables import Target
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from serving.online_store import open_online_store
from tests.benchmarks.silver_rows import Platform
from tests.faults.road import PATIENCE_S, SEEDS, Road, ended, kill, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200)]
TARGETS = [Target(group, entity) for group in GROUPS for entity in group.entities]
ROWS_BEFORE_TILES = [one.name for one in TARGETS if one.has_boundaries]
EVENTS, DAYS = 4_000, 2


@pytest.fixture
def calm(tmp_path, cluster):
    road = filled(tmp_path / "calm", cluster)
    build_features(road.settings)
    return road


def filled(folder: Path, cluster: dict[str, str]) -> Road:
    """A road with silver of two days and nothing else; always the same rows."""
    road = Road(folder, {
        "REEL_LAKEHOUSE_EVENT_PARTITION": "month",
        "REEL_LAKEHOUSE_BUCKETS": "2",
        **cluster,
    })  # fmt: skip
    platform = Platform(road.settings, EVENTS, DAYS)
    platform.describe_titles()
    platform.fill(0, 1)
    return road


def test_killed_between_the_rows_and_the_tiles_it_is_gone_on_with(calm, cluster, tmp_path):
    chance, deaths, tries = random.Random(3), 0, 0
    while deaths < SEEDS:
        tries += 1
        assert tries <= 3 * SEEDS, "the build was too fast for its killer again and again"
        road, is_done = filled(tmp_path / f"road-{tries}", cluster), False
        while deaths < SEEDS and not is_done:
            with ended(road.start("features")) as victim:
                is_done = not killed_between_commits(road, victim, let_pass=chance.randrange(2))
                if is_done:
                    assert victim.wait(PATIENCE_S) == 0, road.said(victim)
                deaths += not is_done
        build_features(road.settings)
        assert tables(road) == tables(calm)
        assert online(road) == online(calm)


def killed_between_commits(road: Road, victim: "subprocess.Popen[bytes]", let_pass: int) -> bool:
    """Kill it when a table's rows are there and the tiles they are made of are not, after the first few such moments.

    It is stopped to look, so that what was seen is what it is killed in. False if it came to its end before.
    """
    begun, passed = commits(road), set()

    def half_built() -> set[str]:
        try:
            now = commits(road)
        except sqlite3.OperationalError:  # it is writing to the catalog, or was stopped while it did
            return set()
        are_new = {name for name in ROWS_BEFORE_TILES if now[name] > begun[name]}
        return {name for name in are_new if now[f"{name}_tiles"] == begun[f"{name}_tiles"]} - passed

    while victim.poll() is None:
        wait_until(half_built, victim)
        with suppress(ProcessLookupError):
            victim.send_signal(signal.SIGSTOP)
        seen = half_built()
        if seen and len(passed) >= let_pass:
            kill(victim)
            return True
        passed.update(seen)
        victim.send_signal(signal.SIGCONT)
    return False


def commits(road: Road) -> "Counter[str]":
    """How many commits each table has seen; 0 of one that is not there."""
    with closing(sqlite3.connect(f"file:{road.catalog}?mode=ro", uri=True, timeout=1)) as connection:
        query = "SELECT table_namespace || '.' || table_name, metadata_location FROM iceberg_tables"
        found = connection.execute(query).fetchall()
    return Counter({name: int(Path(location).name.partition("-")[0]) for name, location in found})


def tables(road: Road) -> dict[str, list[str]]:
    """All rows of all tables of features."""
    lakehouse, found = Lakehouse.open(road.settings), {}
    for one in TARGETS:
        specs = [one.tile_spec(2), *([one.spec(2)] if one.has_boundaries else [])]
        for spec in specs:
            rows = read_all(lakehouse.existing(spec.name), spec.schema).to_pylist()
            found[spec.name] = sorted(map(repr, rows))
    # This platform has no playback of what is live.
    assert {name for name, rows in found.items() if not rows} == {"features.concurrent_viewers_by_channel_id"}
    return found


def online(road: Road) -> dict[str, dict[str, bytes | None]]:
    """All values of all groups in the online store."""
    found = {}
    with open_online_store(road.settings.online_store_url, readonly=True) as store:
        for one in TARGETS:
            name = one.group.stored_as(one.entity)
            keys = sorted(store.keys(name))
            found[name] = dict(zip(keys, store.get_many(name, keys), strict=True))
    return found
