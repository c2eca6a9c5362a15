"""`kill -9` of an erasure at random moments: gone on with, it does what one does that nobody killed."""

import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.build_features import build_features
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.privacy.erase import erase
from pipelines.privacy.receipts import checked
from tests.faults.road import SEEDS, Road, ended, kill, wait_for_moment
from tests.pipelines.privacy.bytes_scan import files_with, online_keys
from tests.platform import DAY, HOUR, T0, Platform, consent, described, hashed, looked_around, title, watched

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200)]
KAFKA = ("log.db", "salt", "said-")
NOT_COMPARED = ("privacy.tombstones", "privacy.erasures", "privacy.audit")


def names_of(person: str) -> set[str]:
    return {hashed(one) for one in (person, f"{person}-p", f"{person}-session", f"{person}-device")}


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def held(platform: Platform, names: set[str]) -> dict[str, int]:
    """Rows of each table that name somebody."""
    found = {}
    for table in Lakehouse.open(platform.settings).names():
        count = sum(not names.isdisjoint(texts(row)) for row in platform.rows(table))
        found |= {table: count} if count and table not in NOT_COMPARED else {}
    return found


def others(platform: Platform, names: set[str]) -> dict[str, str]:
    """A checksum of each table's rows that name none of them."""
    found = {}
    for table in Lakehouse.open(platform.settings).names():
        rows = [row for row in platform.rows(table) if names.isdisjoint(texts(row))]
        lines = sorted(json.dumps(row, sort_keys=True, default=repr) for row in rows)
        found |= {table: hashlib.sha256("\n".join(lines).encode()).hexdigest()} if table not in NOT_COMPARED else {}
    return found


def test_killed_at_any_moment_it_is_gone_on_with(cluster: dict[str, str], tmp_path: Path):
    chance, deaths = random.Random(5), 0
    people = [f"person-{number}" for number in range(2 * SEEDS + 8)]
    platform, road = _built(tmp_path, people, cluster)
    while deaths < SEEDS:
        assert len(people) > 2, "the erasure was too fast for its killer again and again"
        gone = [people.pop(), people.pop()]
        names = set().union(*(names_of(one) for one in gone))
        expected, untouched = {one: held(platform, names_of(one)) for one in gone}, others(platform, names)
        assert all(len(tables) > 10 for tables in expected.values())

        with ended(road.start("privacy", "erase", *gone)) as victim:
            wait_for_moment(road, victim, chance, commits=28)
            if victim.poll() is None:
                kill(victim)
                deaths += 1
        _go_on(road, gone, victim)

        assert files_with(tmp_path, names, KAFKA) == {}
        assert names.isdisjoint(online_keys(tmp_path / "online"))
        assert others(platform, names) == untouched
        receipts = [checked(path) for path in (tmp_path / "privacy" / "receipts").glob("*.json")]
        counted = [{name: one["rows"] for name, one in each.content["tables"].items()} for each in receipts]
        assert all(one in counted for one in expected.values())


def _built(folder: Path, people: list[str], cluster: dict[str, str]) -> tuple[Platform, Road]:
    platform = Platform(folder)
    events = [title("t1", "drama"), title("t2", "news")]
    for number, person in enumerate(people):
        at = T0 + number * HOUR
        events += [described(person), consent(person, T0 - DAY)]
        events += [
            *watched(person, "t1", at),
            *looked_around(person, "t2", at + HOUR),
            *watched(person, "t2", at + DAY),
        ]
    platform.send(*events)
    road = Road(folder, cluster | {
        "REEL_KAFKA_BOOTSTRAP_SERVERS": platform.bootstrap,
        "REEL_KAFKA_PARTITIONS": "2",
        "REEL_LAKEHOUSE_EVENT_PARTITION": "month",
        "REEL_LAKEHOUSE_BUCKETS": "2",
    })  # fmt: skip
    road.ingest_and_clean()
    build_features(road.settings)
    return platform, road


def _go_on(road: Road, gone: list[str], victim: subprocess.Popen[bytes]) -> None:
    """What was asked for is on record unless the kill came before; then it is asked for again."""
    if "receipt /" in road.said(victim):
        return
    if not erase(road.settings, []).receipts:
        erase(road.settings, gone)
