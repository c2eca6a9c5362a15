"""Ten windowed sums and means at the instants of a left table, against DuckDB doing the same.

python -m tests.benchmarks.values_at [--events N] [--rows N] [--entities N]

Both get the same Arrow tables and give every row its values; the answers are compared for equality before any
figure is printed. DuckDB's way is running totals by a window function and one ASOF join for each window edge.
"""

import argparse
import json
import resource
import time

import duckdb
import numpy as np
import pyarrow as pa

from features.aggregates import Count, Mean, Sum
from features.declarations import Feature, FeatureGroup, Source
from features.purposes import Purpose
from features.timeline import Timeline
from features.windows import DAY_MS, Cadence

TIME = pa.timestamp("ms", tz="UTC")
START_MS, SPAN_MS = 1_704_067_200_000, 120 * DAY_MS
LOG = Source(
    "plain_log",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIME),
            ("viewer", pa.string()),
            ("x", pa.int64()),
            ("y", pa.int64()),
        ]
    ),
)
WINDOWS = (1, 7, 28)
FEATURES = [
    *((f"sum_x_{days}d", Sum("x"), days) for days in WINDOWS),
    *((f"mean_y_{days}d", Mean("y"), days) for days in WINDOWS),
    *((f"events_{days}d", Count(), days) for days in WINDOWS),
    ("sum_y_28d", Sum("y"), 28),
]
GROUP = FeatureGroup(
    name="plain",
    entities=("viewer",),
    source=LOG,
    cadence=Cadence.EVENT,
    ttl_ms=400 * DAY_MS,
    purpose=Purpose.ANALYTICS,
    owner="benchmarks",
    description="Sums and means.",
    features=tuple(Feature(name, what, days * DAY_MS, "One.", "1", (0, 1e18)) for name, what, days in FEATURES),
)


def make(events: int, rows: int, entities: int) -> tuple[pa.Table, pa.Array, np.ndarray]:
    rng = np.random.default_rng(1)
    names = pa.array([f"{number:064x}" for number in range(entities)])
    log = pa.table(
        {
            "event_id": pa.array(np.arange(events)).cast(pa.string()),
            "event_timestamp": pa.array(START_MS + rng.integers(0, SPAN_MS, events)).cast(TIME),
            "viewer": names.take(pa.array(rng.integers(0, entities, events))),
            "x": rng.integers(0, 3_600_000, events),
            "y": rng.integers(0, 100, events),
        }
    )
    return log, names.take(pa.array(rng.integers(0, entities, rows))), START_MS + rng.integers(0, SPAN_MS, rows)


def with_duckdb(log: pa.Table, viewers: pa.Array, instants: np.ndarray) -> tuple[pa.Table, float]:
    """Running totals per viewer; the value in a window is the total at its head less the total at its tail."""
    left = pa.table({"row": np.arange(len(instants)), "viewer": viewers, "t": instants - 2_000})
    edges = "".join(
        f", floor_div(t - {days * DAY_MS}, {3_600_000 if days <= 12 else DAY_MS}) as tail_{days}" for days in WINDOWS
    )
    joins = "".join(
        f" asof left join p p{days} on e.viewer = p{days}.viewer and e.tail_{days} > p{days}.ts" for days in WINDOWS
    )

    def inside(total: str, days: int) -> str:
        return f"(coalesce(head.{total}, 0) - coalesce(p{days}.{total}, 0))"

    columns = {f"sum_x_{days}d": f"{inside('sx', days)}::bigint" for days in WINDOWS}
    columns |= {f"mean_y_{days}d": f"{inside('sy', days)} / nullif({inside('n', days)}, 0)" for days in WINDOWS}
    columns |= {f"events_{days}d": f"{inside('n', days)}::bigint" for days in WINDOWS}
    columns["sum_y_28d"] = f"{inside('sy', 28)}::bigint"
    chosen = ", ".join(f"case when head.n is not null then {sql} end as {name}" for name, sql in columns.items())
    with duckdb.connect() as connection:
        connection.execute("set threads = 2; set timezone = 'UTC'")
        connection.execute("create macro floor_div(a, b) as a - a % b")
        connection.register("log", log)
        connection.register("left_rows", left)
        began = time.perf_counter()
        connection.execute(
            "create temp table p as select viewer, ts, max(n) as n, max(sx) as sx, max(sy) as sy from ("
            "select viewer, epoch_ms(event_timestamp) as ts, count(*) over w as n, sum(x) over w as sx,"
            " sum(y) over w as sy from log"
            " window w as (partition by viewer order by event_timestamp range unbounded preceding)"
            ") group by viewer, ts"
        )
        answer = connection.sql(
            f"with e as (select *{edges} from left_rows) select {chosen} from e"
            f" asof left join p head on e.viewer = head.viewer and e.t > head.ts{joins} order by e.row"
        ).to_arrow_table()
        return answer, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--entities", type=int, default=50_000)
    options = parser.parse_args()
    log, viewers, instants = make(options.events, options.rows, options.entities)

    began = time.perf_counter()
    timeline = Timeline.of_events(GROUP, "viewer", log)
    prepare_s = time.perf_counter() - began
    timeline.values_at(viewers.slice(0, 1), instants[:1])  # the running totals are made at first use
    first_s = time.perf_counter() - began
    probes = []
    for _ in range(3):
        began = time.perf_counter()
        ours = timeline.values_at(viewers, instants)
        probes.append(time.perf_counter() - began)
    probe_s = sorted(probes)[1]
    theirs, duckdb_s = with_duckdb(log, viewers, instants)
    mismatches = sum(ours[name].to_pylist() != theirs[name].to_pylist() for name, _, _ in FEATURES)
    assert mismatches == 0, "the engines differ; no figure is worth printing"
    print(f"{options.events:,} events of {options.entities:,} viewers, {options.rows:,} rows, {len(FEATURES)} features")
    print(f"Reel: sort and totals {first_s:.2f} s, then {probe_s:.3f} s; DuckDB: {duckdb_s:.2f} s altogether")
    figures = {
        "rows_per_s": round(options.rows / probe_s),
        "rows_per_s_with_sort": round(options.rows / (first_s + probe_s)),
        "sort_s": round(prepare_s, 3),
        "vs_duckdb": round(duckdb_s / (first_s + probe_s), 2),
        "mismatches": mismatches,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
