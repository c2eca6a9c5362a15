"""`features.statistics`: what the values of every feature looked like, day by day.

One row for each group, entity, feature and day. It holds what drift is computed from (counts by bucket, weights by
key), so that any two days can be compared without reading the features again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, LessThanOrEqual, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import Table

from features.statistics import QUANTILES, Description, Measure
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_tasks, scan_tasks
from pipelines.lakehouse.tables import TableSpec

STATISTICS_TABLE = "features.statistics"
QUANTILE_COLUMNS = tuple(f"p{round(100 * share):02}" for share in QUANTILES)
_COUNTS = ("count", "nulls", "entities", "outside", "distinct")
_KEYS = ("keys_weight", "keys_size")
_REALS = ("mean", "mean_length", "least", "greatest")


@dataclass(frozen=True)
class Subject:
    """What a row is about; `day` counts from 1970."""

    group: str
    entity: str
    feature: str
    day: int


def statistics_table() -> TableSpec:
    """`features.statistics`; `snapshot_id` and `fingerprint` are of the feature table and of its declaration."""
    whole, real = pa.int64(), pa.float64()
    schema = pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("group", "entity", "feature")),
            pa.field("day", pa.date32(), nullable=False),
            pa.field("measure", pa.string(), nullable=False),
            *(pa.field(name, whole, nullable=False) for name in _COUNTS),
            *(pa.field(name, real) for name in (*_REALS, *QUANTILE_COLUMNS)),
            pa.field("keys", pa.map_(pa.string(), real)),
            *(pa.field(name, real, nullable=False) for name in _KEYS),
            pa.field("buckets", pa.list_(whole)),
            pa.field("bucket_counts", pa.list_(whole)),
            pa.field("snapshot_id", whole, nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
        ]
    )
    return TableSpec(STATISTICS_TABLE, schema, (("day", "month"),))


def row_of(subject: Subject, one: Description, snapshot_id: int, fingerprint: str) -> dict[str, object]:
    """A description as a row of `features.statistics`."""
    quantiles = one.quantiles or (None,) * len(QUANTILES)
    return {
        "group": subject.group,
        "entity": subject.entity,
        "feature": subject.feature,
        "day": date_of(subject.day),
        "measure": str(one.measure),
        **{name: getattr(one, name) for name in (*_COUNTS, *_REALS, *_KEYS)},
        **dict(zip(QUANTILE_COLUMNS, quantiles, strict=True)),
        "keys": list(one.keys.items()),
        "buckets": one.buckets.tolist(),
        "bucket_counts": one.bucket_counts.tolist(),
        "snapshot_id": snapshot_id,
        "fingerprint": fingerprint,
    }


def replace_days(
    table: Table,
    made: lineage.Run,
    rows: Iterable[Mapping[str, object]],
    days_of: Mapping[tuple[str, str], range],
    record: Mapping[str, object],
    facts: Mapping[str, str],
) -> Table:
    """Put `rows` in the place of all that is kept of some days of some (group, entity), in one commit.

    Raises as `replace_files` does: two runs at once cannot both have planned from what is there.
    """
    spec = statistics_table()
    fresh = pa.Table.from_pylist(list(rows), schema=spec.schema)
    within = _within(min(days.start for days in days_of.values()), max(days.stop for days in days_of.values()) - 1)
    stale = scan_tasks(table, within)
    kept = _plain(read_tasks(TableFiles.of(table), stale, spec.schema.names)) if stale else spec.schema.empty_table()
    columns = (kept[name].to_pylist() for name in ("group", "entity", "day"))
    is_kept = [day_of(day) not in days_of.get((group, entity), ()) for group, entity, day in zip(*columns, strict=True)]
    together = pa.concat_tables([kept.filter(pa.array(is_kept, pa.bool_())), fresh])
    ordered = together.sort_by([(name, "ascending") for name in ("group", "entity", "feature", "day")])
    files = write_files(TableFiles.of(table), ordered)
    return made.wrote(replace_files(table, [task.file for task in stale], files, record, facts))


def read_days(lakehouse: Lakehouse, first_day: int, last_day: int) -> dict[Subject, Description]:
    """What is kept of some days, both ends included, by subject."""
    table = lakehouse.existing(STATISTICS_TABLE)
    if table is None:
        return {}
    within, names = _within(first_day, last_day), statistics_table().schema.names
    rows = read_tasks(TableFiles.of(table), scan_tasks(table, within), names, within)
    return dict(_read(row) for row in rows.to_pylist())


def last_day_kept(lakehouse: Lakehouse) -> int | None:
    """The newest day there is something of."""
    table = lakehouse.existing(STATISTICS_TABLE)
    if table is None:
        return None
    days = read_tasks(TableFiles.of(table), scan_tasks(table), ["day"])["day"].to_pylist()
    return max(map(day_of, days), default=None)


def date_of(day: int) -> date:
    """The date of a day counted from 1970."""
    return datetime.fromtimestamp(0, UTC).date() + timedelta(days=day)


def day_of(at: date) -> int:
    """Days since 1970."""
    return (at - date_of(0)).days


def _within(first_day: int, last_day: int) -> BooleanExpression:
    day = Reference("day")
    first, last = literal(date_of(first_day)), literal(date_of(last_day))
    return And(GreaterThanOrEqual(term=day, value=first), LessThanOrEqual(term=day, value=last))


def _plain(rows: pa.Table) -> pa.Table:
    """Rows as they were read in the types they are written in; Arrow cannot cast maps, and lists of rows are few."""
    return pa.Table.from_pylist(rows.to_pylist(), schema=statistics_table().schema)


def _read(row: dict[str, object]) -> tuple[Subject, Description]:
    said: dict[str, object] = {name: row[name] for name in (*_COUNTS, *_REALS, *_KEYS)}
    said["measure"] = Measure(str(row["measure"]))
    quantiles = tuple(row[name] for name in QUANTILE_COLUMNS if row[name] is not None)
    keys: dict[str, float] = dict(row["keys"] or ())  # type: ignore[call-overload]  # a list of pairs
    buckets, counts = (np.array(row[name] or (), dtype=np.int64) for name in ("buckets", "bucket_counts"))
    subject = Subject(str(row["group"]), str(row["entity"]), str(row["feature"]), day_of(row["day"]))  # type: ignore[arg-type]
    return subject, Description(**said, quantiles=quantiles, keys=keys, buckets=buckets, bucket_counts=counts)  # type: ignore[arg-type]
