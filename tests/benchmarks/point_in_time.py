"""The point-in-time join against its peers: 3 groups, 9 windowed aggregates, at the instants of a spine.

    python -m tests.benchmarks.point_in_time [--rows N] [--spine N] [--viewers N] [--buckets N]

    exact    nine sums, means and counts over 1, 7 and 28 days, straight from a log of N events, sorted and cut into
             buckets once (sort_s): against DuckDB's window functions on the same files
    stored   three groups' values at boundaries, N rows together: against Feast on its DuckDB store on the same rows

Every time is from reading the spine's Parquet to the written result, spine and tables cut alike, workers warm; both
peers' answers are compared cell by cell. `spine_rows_per_s` is of the exact join; `vs_floor` its time over that of only
reading the columns it reads. Ray's overhead is against the same functions in one process; 1, 2 and 4 node processes
must give the same rows.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from features.declarations import FeatureGroup
from features.purposes import Purpose
from features.sorted_log import columns_read
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.point_in_time.exchange import Plan, join_here
from pipelines.point_in_time.join import Request, planned, run_plan
from pipelines.point_in_time.left import parts_of
from pipelines.settings import LakehouseSettings, Settings
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.peers.asof import duckdb_windows, feast_duckdb
from tests.benchmarks.spine import EXACT, STORED, VIEWER, WINDOWS, Data

REPEATS = 3
OBJECT_STORE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Bench:
    """What is measured."""

    data: Data
    settings: Settings

    @property
    def spine(self) -> Path:
        """The spine, cut by bucket."""
        return self.data.folder / "spine"

    def plan(self, groups: tuple[FeatureGroup, ...], *, cut: bool = True) -> Plan:
        """Features of all groups, for the spine cut by bucket, or for any."""
        lakehouse = Lakehouse.open(self.settings)
        schema = pq.read_schema(self.data.folder / "spine.parquet")
        request = Request(
            [group.name for group in groups], Purpose.PERSONALIZATION, groups=groups, cut_by=VIEWER if cut else None
        )
        return planned(lakehouse, schema, request, lambda _: self.data.log_table(lakehouse))

    def join(self, plan: Plan, name: str, *, cut: bool = True) -> tuple[float, Path]:
        """Seconds of the join on Ray, the median of several, and where its result is."""
        left = self.spine if cut else self.data.folder / "spine.parquet"
        seconds = []
        for repeat in range(REPEATS):
            output = self.data.folder / f"{name}-{repeat}"
            began = time.perf_counter()
            run_plan(plan, parts_of(left, whole_files=cut), output)
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds), output

    def join_in_one_process(self, plan: Plan) -> float:
        """Seconds of the same functions without Ray."""
        output = self.data.folder / "alone"
        output.mkdir()
        began = time.perf_counter()
        join_here(plan, parts_of(self.spine, whole_files=True), output)
        return time.perf_counter() - began

    def floor(self) -> tuple[float, int]:
        """Seconds that only reading takes, with as many threads as there are workers, and the bytes that are read."""
        table = self.data.log_table(Lakehouse.open(self.settings))
        files = [path.removeprefix("file://") for paths in table.paths for path in paths]
        columns = columns_read(EXACT, VIEWER)
        wanted = [(path, columns) for path in files] + [(str(path), None) for path in sorted(self.spine.iterdir())]

        def read(one: tuple[str, list[str] | None]) -> int:
            path, columns = one
            with pq.ParquetFile(path, read_dictionary=[VIEWER]) as file:
                file.read(columns=columns, use_threads=False)
                chunks = (file.metadata.row_group(group).column(place) for group in range(file.num_row_groups)
                          for place in range(file.metadata.num_columns))  # fmt: skip
                return sum(chunk.total_compressed_size for chunk in chunks
                           if columns is None or chunk.path_in_schema in columns)  # fmt: skip

        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                touched = sum(pool.map(read, wanted))
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds), touched


def read_result(path: Path, names: list[str]) -> pa.Table:
    """A result in the order of the spine's rows."""
    return pq.read_table(path, columns=["row", *names]).sort_by("row").select(names)


def mismatches(ours: pa.Table, theirs: pa.Table) -> int:
    """Cells that differ, null being equal to null."""
    differing = 0
    for name in ours.column_names:
        mine, other = ours[name].cast(pa.float64()), theirs[name].cast(pa.float64())
        same = pa.compute.equal(mine, other).fill_null(False)
        both_null = pa.compute.and_(mine.is_null(), other.is_null())
        differing += len(mine) - pa.compute.sum(pa.compute.or_(same, both_null)).as_py()
    return differing


@contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """A Ray of several node processes with 2 processors between the first two, one more each for others."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2 if nodes == 1 else 1, **node_arguments()})
    for _ in range(nodes - 1):
        made.add_node(num_cpus=1, **node_arguments())
    ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        made.shutdown()


def node_arguments() -> dict[str, Any]:
    return {"object_store_memory": OBJECT_STORE_BYTES // 4, "include_dashboard": False}


@contextmanager
def one_machine() -> Iterator[None]:
    """Ray as `reel` starts it."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    data = bench.data
    names = [f"{group}__d{days}" for group in ("watched", "scored", "seen") for days in WINDOWS]
    with one_machine():
        data.make_log(options.rows)
        data.make_rows(options.rows // 3)
        data.make_spine(options.spine)
        began = time.perf_counter()
        data.sort_log(Lakehouse.open(bench.settings))
        sort_s = time.perf_counter() - began
        data.sort_rows(Lakehouse.open(bench.settings))
    exact, stored = bench.plan(EXACT), bench.plan(STORED)
    with one_machine():
        bench.join(exact, "warm")
        memory = PeakMemory(os.getpid())
        exact_s, exact_at = bench.join(exact, "exact")
        stored_s, stored_at = bench.join(stored, "stored")
        exchanged_s, exchanged_at = bench.join(bench.plan(EXACT, cut=False), "exchanged", cut=False)
        peak_gb = memory.take() / 2**30
    alone_s = bench.join_in_one_process(exact)
    floor_s, touched = bench.floor()
    ours = read_result(exact_at, names)
    assert read_result(exchanged_at, names).equals(ours), "a spine that is not cut got other values"
    log = data.log_table(Lakehouse.open(bench.settings))
    files = [path.removeprefix("file://") for paths in log.paths for path in paths]
    windows_at = data.folder / "windows.parquet"
    windows_s = duckdb_windows(files, data.folder / "spine.parquet", WINDOWS, windows_at)
    wrong = mismatches(ours, read_result(windows_at, names))
    feast_at = data.folder / "feast.parquet"
    views = {group.name: data.folder / group.name for group in STORED}
    feast_s = feast_duckdb(views, data.folder / "spine.parquet", data.folder, feast_at)
    hourly = [f"hourly_{name}" for name in names]
    wrong += mismatches(read_result(stored_at, hourly), read_result(feast_at, hourly))
    nodes = {}
    for count in (1, 2, 4):
        with cluster(count):
            seconds, at = bench.join(exact, f"nodes-{count}")
        assert read_result(at, names).equals(ours), f"{count} nodes gave other values"
        nodes[str(count)] = round(options.spine / seconds)
    return {
        "spine_rows_per_s": round(options.spine / exact_s),
        "stored_rows_per_s": round(options.spine / stored_s),
        "uncut_rows_per_s": round(options.spine / exchanged_s),
        "sort_s": round(sort_s, 2),
        "vs_feast_duckdb": round(feast_s / stored_s, 2),
        "vs_duckdb_windows": round(windows_s / exact_s, 2),
        "vs_duckdb_windows_with_sort": round(windows_s / (exact_s + sort_s), 2),
        "vs_floor": round(exact_s / floor_s, 2),
        "ray_vs_one_process": round(exact_s / alone_s, 2),
        "rows_per_s_by_nodes": nodes,
        "bytes_touched": touched,
        "mismatches": wrong,
        "peak_gb": round(peak_gb, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="events of the log, and stored rows")
    parser.add_argument("--spine", type=int, default=1_000_000, help="rows that ask")
    parser.add_argument("--viewers", type=int, default=200_000)
    parser.add_argument("--buckets", type=int, default=16)
    options = parser.parse_args()
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with tempfile.TemporaryDirectory(prefix="reel-pit-") as name:
        settings = Settings(work_dir=Path(name) / "reel", lakehouse=LakehouseSettings(buckets=options.buckets))
        bench = Bench(Data(Path(name), options.viewers, options.buckets), settings)
        print(json.dumps(measure(bench, options)))


if __name__ == "__main__":
    main()
