"""All eight feature groups from silver: how long an event takes, whatever their number, and what one more day costs.

    python -m tests.benchmarks.backfill [--rows N ...] [--days N] [--buckets N] [--new SHARE]

For each number of events: silver of some days is written (not measured), all but the newest `--new` of it; `reel
features` builds everything from it (`events_per_s`); the rest of silver is written, and `reel features` brings
everything up to date (`incremental_vs_full`, its time over that of the whole build). `flatness` is the greatest time
an event took over the least. Memory is of all processes of the station and its Ray (`peak_gb`).

A platform grows by its people: the more events, the more accounts and titles, of as much activity each, over the same
days and channels, and into the more buckets its tables are cut. All sizes are built one after the other in one process
with one Ray, which a small build has warmed up: starting them is no event's cost. A build of few events takes so little
time that whatever else the machine does shows in it: there the median of three counts.

What was built is checked in the same run: DuckDB counts some features of all entities at random boundaries from
silver's own files, and finds none that differs.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import yaml

from features.groups import group
from pipelines.feature_tables import Target
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import live_files
from pipelines.settings import load_settings
from pipelines.settings_section import PROJECT_ROOT
from tests.benchmarks.bench import SALT, Run
from tests.benchmarks.silver_rows import DAY_MS, FIRST_MS, Platform
from tests.benchmarks.warm_builds import WarmBuilds, warm_builds

BOUNDARIES = 5
EVENTS_PER_BUCKET = 500_000
FIRST_EVENTS, FIRST_DAYS = 20_000, 3
FEW_EVENTS, BUILDS_OF_FEW = 2_000_000, 3
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Sample:
    """A feature that DuckDB can count, of a group with boundaries: `value` over rows of `table` in its window."""

    group: str
    entity: str
    feature: str
    table: str
    value: str
    window_ms: int
    hop_ms: int


SAMPLES = (
    Sample("churn_signals", "user_id", "support_contact_count", "silver.user",
           "count(*) FILTER (event_name = 'support.contacted')", 28 * DAY_MS, DAY_MS),
    Sample("churn_signals", "user_id", "payment_failure_count", "silver.user",
           "count(*) FILTER (event_name = 'payment.failed')", 28 * DAY_MS, DAY_MS),
    Sample("content_popularity", "content_id", "completion_rate", "silver.playback",
           "avg(CAST(completion_percent > 90 AS INT)) FILTER (event_name = 'playback.stopped')", 7 * DAY_MS, HOUR_MS),
    Sample("channel_performance", "channel_id", "avg_tune_duration", "silver.live",
           "avg(view_duration_ms)", 7 * DAY_MS, HOUR_MS),
)  # fmt: skip


def mismatches(lakehouse: Lakehouse, days: int, seed: int) -> tuple[int, int]:
    """(values that differ from DuckDB's, values compared), at random boundaries of the last 30 days."""
    rng = np.random.default_rng(seed)
    wrong = compared = 0
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'; SET memory_limit = '2GB'; SET threads = 2")
        for sample in SAMPLES:
            step_ms = Target(group(sample.group), sample.entity).group.cadence.step_ms
            newest = (FIRST_MS + days * DAY_MS - 2 * DAY_MS) // step_ms
            for boundary in rng.integers(newest - 30 * DAY_MS // step_ms, newest, BOUNDARIES) * step_ms:
                counted, differing = compare(database, lakehouse, sample, int(boundary))
                compared, wrong = compared + counted, wrong + differing
    return wrong, compared


def compare(
    database: duckdb.DuckDBPyConnection, lakehouse: Lakehouse, sample: Sample, boundary_ms: int
) -> tuple[int, int]:
    """(entities compared, of which other than DuckDB's) at one boundary."""
    since_ms = (boundary_ms - sample.window_ms) // sample.hop_ms * sample.hop_ms
    stored = Target(group(sample.group), sample.entity).name
    found = database.execute(
        f"""
        WITH counted AS (
            SELECT {sample.entity} AS key, {sample.value} AS value FROM {files(lakehouse, sample.table)}
            WHERE epoch_ms(event_timestamp) >= {since_ms} AND epoch_ms(event_timestamp) < {boundary_ms} GROUP BY 1
        ), stored AS (
            SELECT {sample.entity} AS key, {sample.feature} AS value FROM {files(lakehouse, stored)}
            WHERE epoch_ms(event_timestamp) = {boundary_ms}
        )
        SELECT count(*), count(*) FILTER (
            (counted.value IS NULL) <> (stored.value IS NULL)
            OR abs(counted.value - stored.value) > 1e-9 * abs(counted.value)
        ) FROM counted JOIN stored USING (key)
        """
    ).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def files(lakehouse: Lakehouse, name: str) -> str:
    """A table's files, as DuckDB reads them."""
    table = lakehouse.existing(name)
    assert table is not None, f"{name} was not built"
    paths = [file.file_path.removeprefix("file://") for file in live_files(table)]
    return f"read_parquet({paths!r}, union_by_name = true)"


@dataclass(frozen=True)
class Figures:
    """Of one number of events."""

    events: int
    full: Run
    incremental: Run
    wrong: int
    compared: int


@dataclass(frozen=True)
class Sized:
    """A platform of some events, in a folder."""

    platform: Platform
    config: Path

    @classmethod
    def of(cls, folder: Path, events: int, days: int, buckets: int) -> "Sized":
        """With its titles, and no event yet."""
        folder.mkdir(exist_ok=True)
        config = folder / "config.yaml"
        tree = {
            "work_dir": str(folder),
            "kafka": {"bootstrap_servers": f"embedded:{folder / 'log.db'}"},
            "lakehouse": {"event_partition": "hour", "buckets": buckets},
        }
        config.write_text(yaml.safe_dump(tree))
        platform = Platform(load_settings(config, {}), events, days)
        platform.describe_titles()
        return cls(platform, config)


def buckets_of(events: int) -> int:
    """Into how many buckets whoever runs a platform of this size cuts its tables: 2, 4, 8, …"""
    return max(2, 1 << (-(-events // EVENTS_PER_BUCKET) - 1).bit_length())


def measure(builds: WarmBuilds, events: int, options: argparse.Namespace) -> Figures:
    """Both builds of some events; of few the one whose full build took neither the least nor the most time."""
    measured = [measure_once(builds, events, options) for _ in range(BUILDS_OF_FEW if events < FEW_EVENTS else 1)]
    return sorted(measured, key=lambda one: one.full.seconds)[len(measured) // 2]


def measure_once(builds: WarmBuilds, events: int, options: argparse.Namespace) -> Figures:
    """Both builds of some events, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="reel-backfill-") as name:
        buckets = options.buckets or buckets_of(events)
        one = Sized.of(Path(name), events, options.days, buckets)
        tell(f"{events:,} events: writing silver of {options.days} days")
        written = one.platform.fill(0, 1 - options.new)
        tell(f"{events:,} events: building everything, {buckets} buckets")
        full = builds.build(one.config)
        tell(f"{events:,} events: built in {full.seconds:.1f} s; writing the newest {options.new:.0%} and building it")
        one.platform.fill(1 - options.new, 1)
        incremental = builds.build(one.config)
        tell(f"{events:,} events: brought up to date in {incremental.seconds:.1f} s; asking DuckDB")
        wrong, compared = mismatches(Lakehouse.open(one.platform.settings), options.days, seed=7)
        figures = Figures(written, full, incremental, wrong, compared)
        say(figures)
        return figures


def tell(what: str) -> None:
    """A line about what is being done, which takes a while."""
    print(f"{datetime.now():%H:%M:%S} {what}", flush=True)


def say(one: Figures) -> None:
    """A line about one number of events, while the others are still measured."""
    anew = {name: what for name, what in one.incremental.report["did"].items() if "anew" in name or "whole" in name}
    print(
        f"{one.events:,} events: {one.full.seconds:.1f} s, {one.events / one.full.seconds:,.0f} events/s, "
        f"{one.full.peak_bytes / 2**30:.2f} GB; then {one.incremental.seconds:.1f} s, "
        f"{one.incremental.peak_bytes / 2**30:.2f} GB ({anew}); {one.wrong} of {one.compared:,} values differ",
        flush=True,
    )


def result(figures: Sequence[Figures]) -> dict[str, Any]:
    """What the last line says."""
    each = [one.full.seconds / one.events for one in figures]
    largest = figures[-1]
    return {
        "events_per_s": {str(one.events): round(one.events / one.full.seconds) for one in figures},
        "flatness": round(max(each) / min(each), 2),
        "incremental_vs_full": round(largest.incremental.seconds / largest.full.seconds, 3),
        "incremental_s": {str(one.events): round(one.incremental.seconds, 1) for one in figures},
        "peak_gb": round(max(max(one.full.peak_bytes, one.incremental.peak_bytes) for one in figures) / 2**30, 2),
        "values_checked": sum(one.compared for one in figures),
        "mismatches": sum(one.wrong for one in figures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000], help="events, 50000000 at most")
    parser.add_argument("--days", type=int, default=60, help="over which they are spread")
    parser.add_argument("--buckets", type=int, help="else one for each half million events")
    parser.add_argument("--new", type=float, default=0.01, help="share of the newest events that come afterwards")
    options = parser.parse_args()
    os.environ.setdefault("REEL_SALT", SALT)
    os.chdir(PROJECT_ROOT)
    with tempfile.TemporaryDirectory(prefix="reel-backfill-first-") as name:
        tell("warming up: a build of a few events, which is not counted")
        first = Sized.of(Path(name), FIRST_EVENTS, FIRST_DAYS, 2)
        first.platform.fill(0, 1)
        with warm_builds(first.config, Path(name) / "errors") as builds:
            figures = [measure(builds, one, options) for one in sorted(options.rows)]
    print(json.dumps(result(figures)))


if __name__ == "__main__":
    main()
