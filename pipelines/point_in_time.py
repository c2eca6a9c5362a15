"""The point-in-time join across a cluster: features of one entity, brought to rows that are cut by another.

    parts[p]            rows wherever they are, each with a key and an instant
    ask[p][b]           (row, key, instant) of part p whose key falls in bucket b
    answer[b][p]        bucket b's features for part p's rows, valued as of each row's instant
    parts[p] + answer   the same rows, in the same order, none dropped: null where nothing was known

Only keys and instants travel one way and values the other; the rows themselves stay where they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from pyiceberg.table import FileScanTask

from features.declarations import FeatureGroup
from features.point_in_time import as_of_join
from pipelines.cluster import as_list
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import bucket_of, read_tasks, scan_of_bucket

ROW = "__row"
KEY = "__key"
INSTANT = "__instant"


def attach(
    parts: Sequence[ray.ObjectRef[Any]],
    key: str,
    instant: str,
    values_of: Callable[[int, pa.Table], pa.Table],
    buckets: int,
) -> list[ray.ObjectRef[Any]]:
    """Add columns to every part: `values_of(bucket, asked)` gives them for rows of (key, instant), row for row."""
    count = len(parts)
    asking = ray.remote(_ask).options(num_returns=buckets)
    answering = ray.remote(_answer).options(num_returns=count)
    placing = ray.remote(_place)
    asked = [as_list(asking.remote(part, key, instant, buckets)) for part in parts]
    shared = ray.put(values_of)
    answered = [as_list(answering.remote(shared, bucket, *(one[bucket] for one in asked))) for bucket in range(buckets)]
    return [placing.remote(part, *(answered[bucket][p] for bucket in range(buckets))) for p, part in enumerate(parts)]


def stored_values(
    table: TableFiles, files: Sequence[FileScanTask], group: FeatureGroup, entity: str, features: dict[str, str]
) -> Callable[[int, pa.Table], pa.Table]:
    """Values from the offline store: `features` maps a feature of the group to the column it becomes."""

    def values_of(bucket: int, asked: pa.Table) -> pa.Table:
        columns = [entity, "event_timestamp", "created_timestamp", "last_event_timestamp", *features]
        right = read_tasks(table, scan_of_bucket(files, bucket), columns)
        joined = as_of_join(
            asked,
            right.rename_columns(
                {entity: KEY} | {name: features.get(name, name) for name in columns if name != entity}
            ),
            key=KEY,
            left_time=INSTANT,
            ttl_ms=group.ttl_ms,
            cadence=group.cadence,
            delay_ms=group.delay,
            columns=list(features.values()),
        )
        return joined.select(list(features.values()))

    return values_of


def _ask(part: pa.Table, key: str, instant: str, buckets: int) -> list[pa.Table] | pa.Table:
    # Rows without a key ask nothing; `_place` leaves them null.
    bucket = bucket_of(part[key], buckets)
    rows = pa.table({ROW: pa.array(np.arange(part.num_rows)), KEY: part[key], INSTANT: part[instant]})
    cut = [rows.filter(pa.array(bucket == wanted)) for wanted in range(buckets)]
    return cut if buckets > 1 else cut[0]


def _answer(values_of: Callable[[int, pa.Table], pa.Table], bucket: int, *asked: pa.Table) -> list[pa.Table] | pa.Table:
    together = pa.concat_tables(asked)
    values = values_of(bucket, together.select([KEY, INSTANT]))
    answers, start = [], 0
    for one in asked:
        answers.append(values.slice(start, one.num_rows).append_column(ROW, one[ROW]))
        start += one.num_rows
    return answers if len(answers) > 1 else answers[0]


def _place(part: pa.Table, *answers: pa.Table) -> pa.Table:
    together = pa.concat_tables(answers)
    place = np.full(part.num_rows, -1, dtype=np.int64)
    place[together[ROW].to_numpy()] = np.arange(together.num_rows)
    values = together.drop_columns([ROW]).take(pa.array(place, mask=place < 0))
    for name in values.column_names:
        part = part.append_column(name, values[name])
    return part
