"""Export of one person's rows out of everybody's: how long it takes, and how few files it opens.

The table is `silver.playback` of 30 days, cut by day and, as compaction leaves it, in files that are each a stretch of
time. A user has 2,000 events in 12 sittings of two hours on as many days; beside them stand the registry of profiles
and a table of features by user. Three people's exports are made whole, and the slowest counts. What they hold is
compared with DuckDB's answer from all files of all tables, whose filters it is kept from using.

    python -m tests.benchmarks.export [--rows N]

Default: 4,000,000 rows. The line before the last says what the full scan took, and which part of the rows was read.
On 2 cores, 100,000,000 rows take 4 minutes to write and 1.9 GB; an export then takes 4.6 s and opens 24 of 780 files.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contract.events import load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import ROWS_PER_ROW_GROUP, TableFiles, write_files
from pipelines.privacy.export import export
from pipelines.privacy.people import find_people
from pipelines.privacy.whereabouts import whereabouts
from pipelines.secrets import pseudonymizer
from pipelines.settings import LakehouseSettings, Settings

SALT = "a salt of the benchmarks"
DAYS, SITTINGS, EVENTS_PER_SITTING = 30, 12, 167
DAY_MS, SITTING_MS = 86_400_000, 7_200_000
FIRST_MS = 1_767_225_600_000  # 1 January 2026
FEATURES = "features.sample_by_user_id"
NAMES = ["playback.started", "playback.heartbeat", "playback.heartbeat", "playback.heartbeat", "playback.stopped"]
Ints = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    rows = parser.parse_args().rows
    os.environ["REEL_SALT"] = SALT
    with tempfile.TemporaryDirectory(prefix="reel-bench-") as name:
        settings = Settings(work_dir=Path(name), lakehouse=LakehouseSettings(event_partition="day"))
        users = max(10, rows // (SITTINGS * EVENTS_PER_SITTING))
        started = time.perf_counter()
        events = fill(settings, users)
        print(
            f"{events:,} events of {users:,} users in {size_mb(settings):,} MB, {time.perf_counter() - started:.0f} s"
        )
        print(json.dumps(measure(settings, events, [users // 3, users // 2, users - 1])))


def measure(settings: Settings, events: int, people: list[int]) -> dict[str, float]:
    """Export each of them; the slowest, and all that differs from DuckDB's answer."""
    found: list[dict[str, float]] = []
    mismatches, scan_s = 0, 0.0
    for number in people:
        made = export(settings, plain("user", number), settings.work_dir / f"export-{number}")
        silver = {one.layer: one for one in made.by_layer}["silver"]
        said = json.loads((made.folder / "export.json").read_text())
        exported = sorted(row_key(row) for place in said["held"] for row in place["rows"])
        began = time.perf_counter()
        expected = by_duckdb(settings, number)
        scan_s = time.perf_counter() - began
        mismatches += len(set(exported) ^ set(expected)) + abs(len(exported) - len(expected))
        found.append(
            {
                "events": events,
                "seconds": round(made.seconds, 2),
                "files_touched": silver.files_touched,
                "files_total": silver.files_total,
                "rows_found": made.rows,
            }
        )
    slowest = max(found, key=lambda one: one["seconds"])
    share = share_read(settings, people[0])
    print(f"a full scan by DuckDB takes {scan_s:.2f} s; {share:.1%} of the rows are in row groups that are read")
    return slowest | {"mismatches": mismatches}


def row_key(row: dict[str, object]) -> str:
    """What tells a row from all others: an event's id, or what else a table is unique by."""
    return str(row.get("event_id") or row.get("n") or row["profile_id"])


def by_duckdb(settings: Settings, number: int) -> list[str]:
    """The person's rows out of every file. A function of a column is compared, so that nothing is left out unread."""
    ids = [hashed("user", number), hashed("profile", 2 * number), hashed("profile", 2 * number + 1)]
    keys: list[str] = []
    for table, key in (("silver/playback", "event_id"), ("privacy/profiles", "profile_id"), ("features/*", "n")):
        files = str(settings.work_dir / "warehouse" / table / "data" / "**" / "*.parquet")
        names = ["user_id"] if key == "n" else ["user_id", "profile_id"]
        is_theirs = " OR ".join(f"list_contains(?, concat({name}, ''))" for name in names)
        query = f"SELECT CAST({key} AS VARCHAR) FROM read_parquet(?, hive_partitioning = false) WHERE {is_theirs}"
        keys += [one for (one,) in duckdb.execute(query, [files, *[ids] * len(names)]).fetchall()]
    return sorted(keys)


def share_read(settings: Settings, number: int) -> float:
    """Rows of the row groups that may hold the person, of all rows of playback."""
    lakehouse = Lakehouse.open(settings)
    user = plain("user", number)
    person = find_people(lakehouse, pseudonymizer(settings), [user])[user]
    table = lakehouse.existing("silver.playback")
    assert table is not None
    found = whereabouts(table, person)
    read = sum(len(one.row_groups) * ROWS_PER_ROW_GROUP for one in found.files)
    total = sum(task.file.record_count for task in table.scan().plan_files())
    return min(1.0, read / total)


def fill(settings: Settings, users: int) -> int:
    """Write all tables; how many events."""
    lakehouse = Lakehouse.open(settings)
    playback = lakehouse.table(tables.silver_domain(load_contract(settings.schemas), "playback", "day"))
    events = 0
    for day in range(DAYS):
        files = []
        for rows in playback_rows(day, users):
            files += write_files(TableFiles.of(playback), rows)
            events += rows.num_rows
        playback = commit_files(playback, files, None)
    numbers = np.arange(users * 2)
    registry = pa.table(
        {
            "profile_id": [hashed("profile", one) for one in numbers.tolist()],
            "user_id": [hashed("user", one // 2) for one in numbers.tolist()],
            "is_kids": pa.array(np.zeros(users * 2, dtype=np.bool_)),
            "event_timestamp": pa.array(np.full(users * 2, FIRST_MS * 1000)).cast(tables.TIMESTAMP),
        }
    )
    profiles = lakehouse.table(tables.profiles())
    commit_files(profiles, write_files(TableFiles.of(profiles), registry), None)
    schema = pa.schema([("user_id", pa.string()), ("event_timestamp", tables.TIMESTAMP), ("n", pa.int64())])
    features = lakehouse.table(tables.TableSpec(FEATURES, schema, (("user_id", "bucket[16]"),)))
    weeks = np.arange(users * 4)
    values = pa.table(
        {
            "user_id": sorted(hashed("user", one // 4) for one in weeks.tolist()),
            "event_timestamp": pa.array((FIRST_MS + weeks % 4 * 7 * DAY_MS) * 1000).cast(tables.TIMESTAMP),
            "n": pa.array(weeks + 1),
        }
    )
    commit_files(features, write_files(TableFiles.of(features), values), None)
    return events


def playback_rows(day: int, users: int) -> Iterator[pa.Table]:
    """A day's events in the order of time, in the portions that become files."""
    rng = np.random.default_rng([7, day])
    active = np.flatnonzero(rng.random(users) < SITTINGS / DAYS)
    start_ms = FIRST_MS + day * DAY_MS + rng.integers(DAY_MS - SITTING_MS, size=len(active))
    of = np.repeat(np.arange(len(active)), EVENTS_PER_SITTING)
    times_ms = start_ms[of] + rng.integers(SITTING_MS, size=len(of))
    order = np.argsort(times_ms, kind="stable")
    of, times_ms = of[order], times_ms[order]
    profiles = active * 2 + rng.integers(2, size=len(active))
    people = {
        "user_id": [hashed("user", one // 2) for one in profiles.tolist()],
        "profile_id": [hashed("profile", one) for one in profiles.tolist()],
        "session_id": [hashed(f"session-{day}", one) for one in profiles.tolist()],
    }
    for start in range(0, len(of), ROWS_PER_ROW_GROUP):
        yield _events(day, people, of[start:][:ROWS_PER_ROW_GROUP], times_ms[start:][:ROWS_PER_ROW_GROUP], start)


def _events(day: int, people: dict[str, list[str]], of: Ints, times_ms: Ints, start: int) -> pa.Table:
    size = len(of)
    rng = np.random.default_rng([8, day, start])
    columns = {name: pa.DictionaryArray.from_arrays(pa.array(of), pa.array(ids)) for name, ids in people.items()}
    stamps = pa.array(times_ms * 1000).cast(tables.TIMESTAMP)
    return pa.table(
        {
            **columns,
            "viewer_token": columns["profile_id"],
            "event_id": [f"evt-{day}-{number}" for number in range(start, start + size)],
            "event_name": _words(NAMES, rng.integers(len(NAMES), size=size)),
            "event_timestamp": stamps,
            "client_timestamp": stamps,
            "content_id": _words([f"vod-{number}" for number in range(2000)], rng.zipf(1.3, size) % 2000),
            "content_type": _words(["vod"], np.zeros(size, dtype=np.int64)),
            "platform": _words(["tv"], np.zeros(size, dtype=np.int64)),
            "geo_country": _words(["GB", "FR", "DE"], of % 3),
            "is_kids": pa.array(np.zeros(size, dtype=np.bool_)),
            "position_ms": pa.array(rng.integers(7_200_000, size=size)),
            "bitrate_kbps": pa.array(rng.choice([400, 1200, 3000, 6000], size).astype(np.int32)),
            "buffer_health_ms": pa.array(rng.integers(30_000, size=size)),
        }
    )


def _words(words: list[str], places: Ints) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), pa.array(words))


def plain(kind: str, number: int) -> str:
    return f"{kind}-{number}"


def hashed(kind: str, number: int) -> str:
    return hashlib.sha256((plain(kind, number) + SALT).encode()).hexdigest()


def size_mb(settings: Settings) -> int:
    return sum(path.stat().st_size for path in (settings.work_dir / "warehouse").rglob("*.parquet")) >> 20


if __name__ == "__main__":
    main()
