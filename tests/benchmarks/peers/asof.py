"""Others' point-in-time joins on the same Parquet files, from reading them to the written result."""

import os
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq

DAY_MS = 86_400_000


def duckdb_windows(log: Sequence[str], spine: Path, windows: Sequence[int], output: Path) -> float:
    """Sum of x, mean of y and count over each window (days) before each row, by DuckDB; seconds.

    Its way is running totals by a window function, and one ASOF join for each window edge.
    """

    def inside(total: str, days: int) -> str:
        return f"(coalesce(head.{total}, 0) - coalesce(p{days}.{total}, 0))"

    edges = "".join(
        f", floor_div(t - {days * DAY_MS}, {3_600_000 if days <= 12 else DAY_MS}) as tail_{days}" for days in windows
    )
    joins = "".join(
        f" asof left join p p{days} on e.viewer = p{days}.viewer and e.tail_{days} > p{days}.ts" for days in windows
    )
    columns = {f"watched__d{days}": f"{inside('sx', days)}::bigint" for days in windows}
    columns |= {f"scored__d{days}": f"{inside('sy', days)} / nullif({inside('n', days)}, 0)" for days in windows}
    columns |= {f"seen__d{days}": f"{inside('n', days)}::bigint" for days in windows}
    chosen = ", ".join(f"case when head.n is not null then {sql} end as {name}" for name, sql in columns.items())
    with duckdb.connect() as connection:
        connection.execute("set threads = 2; set timezone = 'UTC'")
        connection.execute("create macro floor_div(a, b) as a - a % b")
        began = time.perf_counter()
        connection.execute(
            "create temp table p as select viewer, ts, max(n) as n, max(sx) as sx, max(sy) as sy from ("
            "select viewer, epoch_ms(event_timestamp) as ts, count(*) over w as n, sum(x) over w as sx,"
            " sum(y) over w as sy from read_parquet($log)"
            " window w as (partition by viewer order by event_timestamp range unbounded preceding)"
            ") group by viewer, ts",
            {"log": list(log)},
        )
        connection.execute(
            f"copy (with e as (select *{edges} from (select *, epoch_ms(event_timestamp) - 2000 as t"
            f" from read_parquet('{spine}')))"
            f' select e.viewer, e.event_timestamp, e."row", {chosen} from e'
            f" asof left join p head on e.viewer = head.viewer and e.t > head.ts{joins})"
            f" to '{output}' (format parquet, compression zstd)"
        )
        return time.perf_counter() - began


def feast_duckdb(views: dict[str, Path], spine: Path, folder: Path, output: Path) -> float:
    """The views' d1, d7 and d28 at each row, by Feast on its DuckDB store; seconds."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.data_format import ParquetFormat
    from feast.types import Float64
    from feast.value_type import ValueType

    os.environ["FEAST_USAGE"] = "False"
    configuration = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store=None,
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=configuration)
    viewer = Entity(name="viewer", join_keys=["viewer"], value_type=ValueType.STRING)
    declared = [
        FeatureView(
            name=name,
            entities=[viewer],
            ttl=timedelta(days=400),
            schema=[Field(name=f"d{days}", dtype=Float64) for days in (1, 7, 28)],
            source=FileSource(
                path=str(path / "*.parquet"),
                file_format=ParquetFormat(),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for name, path in views.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.apply([viewer, *declared])
        refs = [f"{name}:d{days}" for name in views for days in (1, 7, 28)]
        began = time.perf_counter()
        rows: pd.DataFrame = pq.read_table(spine).to_pandas()
        job = store.get_historical_features(rows, refs, full_feature_names=True)
        pq.write_table(job.to_arrow(), output, compression="zstd", compression_level=1)
        return time.perf_counter() - began
