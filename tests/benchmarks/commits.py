"""What a micro-batch's commit costs, and how that grows over many commits.

The table is bronze, each commit appends one small file and records progress, counts and inputs of 24 topics with 4
partitions each. As in `reel ingest --follow`, histories are tidied every 50 commits; `--untidy` shows what happens
without. Processor milliseconds, means over the first and the last tenth; tidying is part of the cost.

    python -m tests.benchmarks.commits [--commits N] [--untidy]
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from pipelines.contract.events import load_contract
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.expiry import tidy
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec, bronze_events
from pipelines.settings import Settings

TOPICS, PARTITIONS, MESSAGES_PER_COMMIT = 24, 4, 1000
COMMITS_PER_TIDYING = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--untidy", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Settings(work_dir=Path(folder)), options.commits, is_tidied=not options.untidy)))


def measure(settings: Settings, commits: int, *, is_tidied: bool) -> dict[str, float]:
    lakehouse = Lakehouse.open(settings)
    bronze = lakehouse.table(bronze_events(load_contract(settings.schemas), "day"))
    follower = lakehouse.table(TableSpec("silver.follower", pa.schema([pa.field("n", pa.int64())])))
    costs_ms = []
    for number in range(commits):
        new = write_files(TableFiles.of(bronze), one_row(number))
        started = time.process_time()
        bronze = commit_files(bronze, new, progress(number), facts(number))
        costs_ms.append((time.process_time() - started) * 1000)
        if is_tidied and number % COMMITS_PER_TIDYING == COMMITS_PER_TIDYING - 1:
            newest = bronze.current_snapshot()
            assert newest is not None
            follower = commit_files(follower, [], {"bronze_snapshot": newest.snapshot_id})  # clean, up to date
            started = time.process_time()
            tidy(lakehouse, settings, int(time.time() * 1000))
            costs_ms[-1] += (time.process_time() - started) * 1000
    rows = bronze.scan().count()
    assert rows == commits, f"{rows} rows after {commits} commits of one"
    tenth = max(1, commits // 10)
    first_ms, last_ms = statistics.fmean(costs_ms[:tenth]), statistics.fmean(costs_ms[-tenth:])
    metadata = Path(bronze.metadata_location.removeprefix("file://"))
    return {
        "commits": commits,
        "first_ms": round(first_ms, 1),
        "last_ms": round(last_ms, 1),
        "growth": round(last_ms / first_ms, 2),
        "metadata_kb_last": round(metadata.stat().st_size / 1024),
    }


def one_row(number: int) -> pa.Table:
    at = pa.array([datetime.fromtimestamp(1_767_600_000 + number, UTC)], TIMESTAMP)
    return pa.table(
        {
            "cluster_id": ["benchmark"],
            "topic": ["client.playback"],
            "partition": pa.array([0], pa.int32()),
            "offset": pa.array([number], pa.int64()),
            "ingested_at": at,
            "event_id": [f"evt_{number:032x}"],
            "event_name": ["playback.heartbeat"],
            "event_timestamp": at,
        }
    )


def progress(number: int) -> dict[str, object]:
    end = (number + 1) * MESSAGES_PER_COMMIT
    offsets = {f"client.topic-{topic}": dict.fromkeys(map(str, range(PARTITIONS)), end) for topic in range(TOPICS)}
    return {"cluster_id": "benchmark", "offsets": offsets}


def facts(number: int) -> dict[str, str]:
    span = [number * MESSAGES_PER_COMMIT, (number + 1) * MESSAGES_PER_COMMIT]
    offsets = {f"client.topic-{topic}": dict.fromkeys(map(str, range(PARTITIONS)), span) for topic in range(TOPICS)}
    return {
        "reel.run-id": f"{number:036d}",
        "reel.station": "ingest",
        "reel.code-version": "0.1.0-0123456789ab",
        "reel.inputs": json.dumps({"kafka": {"cluster_id": "benchmark", "offsets": offsets}}),
        "reel.counts": json.dumps({f"event of topic {topic}": MESSAGES_PER_COMMIT for topic in range(80)}),
    }


if __name__ == "__main__":
    main()
