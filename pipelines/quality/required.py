"""Missing fields in what was admitted (spec 11.1, row 4): nulls where the contract requires a value."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial

import polars as pl
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from pipelines.cluster import run_tasks
from pipelines.contract.events import Contract
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import file_groups, read_tasks
from pipelines.quality.metadata import bounds_ms, null_count, partition_value
from pipelines.quality.results import Check, Result, Status, Window, judged
from pipelines.quality.subject import Platform, between, columns_of, files_between

ROWS_PER_TASK = 500_000
ROWS = ""  # beside the columns' names: what is counted under it are rows

Tally = defaultdict[str, Counter[str]]  # event name -> nulls by column, and its rows


def required_fields(platform: Platform) -> Iterator[Result]:
    """Per event the greatest share of nulls in a property that the contract requires.

    Such a property has a value in every message, so a null was made by us: more than `max_missing_share` fails.
    """
    if platform.bronze is None:
        return
    limit = platform.settings.max_missing_share
    for name, counted in sorted(_tally(platform.bronze, platform.contract, platform.events).items()):
        rows = counted.pop(ROWS)
        shares = {column: nulls / rows for column, nulls in sorted(counted.items()) if nulls}
        worst = max(shares.values(), default=0.0)
        named = ", ".join(f"{column} {share:.1%}" for column, share in shares.items())
        detail = f"of {rows:,} events null: {named}" if named else f"{rows:,} events, nothing required is null"
        status = judged(worst > limit, Status.FAIL)
        yield Result(Check.MISSING_FIELDS, name, status, worst, limit, detail, platform.events)


def _tally(bronze: Table, contract: Contract, window: Window) -> Tally:
    """From metadata where that tells; lists, and files that lie across the window's edge, are read."""
    required = {name: columns_of(bronze, columns) for name, columns in _required(contract).items()}
    tally: Tally = defaultdict(Counter)
    to_read: defaultdict[tuple[str, ...], list[FileScanTask]] = defaultdict(list)
    for task in files_between(bronze, "event_timestamp", window):
        name, span = partition_value(bronze, task.file, "event_name"), bounds_ms(bronze, task.file, "event_timestamp")
        if name not in required or span is None or not window.start_ms <= span[0] <= span[1] < window.end_ms:
            needed = required.get(name) or sorted({column for columns in required.values() for column in columns})
            to_read[ROWS, *needed].append(task)
        elif unknown := _add_metadata(tally[name], bronze, task.file, required[name]):
            to_read[tuple(unknown)].append(task)
    inside = between("event_timestamp", window)
    for columns, tasks in to_read.items():
        groups = list(file_groups(tasks, ROWS_PER_TASK))
        for name, *counts in run_tasks_flat(partial(_count, TableFiles.of(bronze), inside, columns), groups):
            wanted = {ROWS, *required.get(name, ())}
            tally[name].update({key: n for key, n in zip(columns, counts, strict=True) if key in wanted})
    return tally


def _required(contract: Contract) -> dict[str, list[str]]:
    """By event name the columns that may not be null; of a name on two topics, what both of them require."""
    found: dict[str, list[str]] = {}
    for event in contract.events:
        columns = [column.name for column in event.columns if not column.nullable]
        found[event.name] = [column for column in found.get(event.name, columns) if column in columns]
    return found


def _add_metadata(counted: Counter[str], bronze: Table, file: DataFile, required: list[str]) -> list[str]:
    """Add what the file's metadata tells; the columns it says nothing of."""
    nulls = {column: null_count(bronze, file, column) for column in required}
    counted.update({ROWS: file.record_count, **{column: n for column, n in nulls.items() if n is not None}})
    return [column for column, n in nulls.items() if n is None]


def run_tasks_flat(work: partial[pl.DataFrame], groups: list[list[FileScanTask]]) -> Iterator[tuple[str, ...]]:
    """The rows of all that the tasks return."""
    for counted in run_tasks(work, groups):
        yield from counted.iter_rows()


def _count(
    table: TableFiles, inside: BooleanExpression, columns: tuple[str, ...], tasks: list[FileScanTask]
) -> pl.DataFrame:
    """By event name: nulls of each of `columns`, in their order."""
    wanted = {"event_name", "event_timestamp", *columns} - {ROWS}
    rows = pl.DataFrame(read_tasks(table, tasks, sorted(wanted), inside))
    counts = [pl.len().alias(ROWS) if one == ROWS else pl.col(one).null_count().alias(one) for one in columns]
    keyed = rows.with_columns(pl.col("event_name").alias("name_of_event"))
    return keyed.group_by("name_of_event").agg(*counts)
