"""`quality.checks`: what every run found, kept."""

from collections.abc import Iterable
from datetime import datetime

import pyarrow as pa
from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks, scan_tasks
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.quality.metadata import newest_ms
from pipelines.quality.results import Check, Findings, Result, Status, Window, as_dict, instant

CHECKS_TABLE = "quality.checks"


def checks_table() -> TableSpec:
    """`quality.checks`: one row for each check, subject and run; a run is known by its `measured_at`."""
    schema = pa.schema(
        [
            pa.field("check", pa.string(), nullable=False),
            pa.field("subject", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("observed", pa.float64(), nullable=False),
            pa.field("threshold", pa.float64()),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("window_start", TIMESTAMP, nullable=False),
            pa.field("window_end", TIMESTAMP, nullable=False),
            pa.field("measured_at", TIMESTAMP, nullable=False),
        ]
    )
    return TableSpec(CHECKS_TABLE, schema, (("measured_at", "month"),))


def rows_of(findings: Findings) -> pa.Table:
    """The findings as rows of `quality.checks`."""
    measured = instant(findings.measured_ms)
    rows = [
        {
            **as_dict(one),
            "window_start": instant(one.window.start_ms),
            "window_end": instant(one.window.end_ms),
            "measured_at": measured,
        }
        for one in findings.results
    ]
    return pa.Table.from_pylist(rows, schema=checks_table().schema)


def newest_findings(lakehouse: Lakehouse) -> Findings | None:
    """What the newest recorded run found; None if there was none."""
    table = lakehouse.existing(CHECKS_TABLE)
    measured_ms = newest_ms(table, "measured_at")
    if table is None or measured_ms is None:
        return None
    newest = EqualTo(term=Reference("measured_at"), value=literal(measured_ms * 1000))
    rows = read_tasks(TableFiles.of(table), scan_tasks(table, newest), checks_table().schema.names, newest)
    return Findings(measured_ms, list(_results(rows)))


def _results(rows: pa.Table) -> Iterable[Result]:
    order = list(Check)
    for row in sorted(rows.to_pylist(), key=lambda row: (order.index(Check(row["check"])), row["subject"])):
        yield Result(
            Check(row["check"]),
            row["subject"],
            Status(row["status"]),
            row["observed"],
            row["threshold"],
            row["detail"],
            Window(_milliseconds(row["window_start"]), _milliseconds(row["window_end"])),
        )


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
