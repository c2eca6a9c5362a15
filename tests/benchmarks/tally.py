"""Does everything that was sent add up? The ledger of the traffic against what lies in the tables, line by line.

The counting is DuckDB's, over the tables' data files: nothing of Reel counts here but the note of what it dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import scan_tasks
from pipelines.settings import Settings

MEMORY_LIMIT = "3GB"


@dataclass(frozen=True)
class Line:
    """One thing that was counted twice: by who sent it, and where it should have arrived."""

    what: str
    sent: int
    found: int

    @property
    def difference(self) -> int:
        """0 where it adds up."""
        return self.found - self.sent


def tally(settings: Settings, ledger: Mapping[str, Any]) -> list[Line]:
    """Every line of the reconciliation, in the order of the road."""
    expected = ledger["expected"]
    lakehouse = Lakehouse.open(settings)
    bronze, quarantine = (lakehouse.existing(name) for name in ("bronze.events", "quarantine.events"))
    stored = _grouped(bronze, "topic")
    aside = _grouped(quarantine, "reason")
    dropped = _dropped(bronze)
    rows = sum(stored.values())
    every = _query(bronze, 'SELECT count(DISTINCT (cluster_id, topic, partition, "offset")) FROM {files}')
    lines = [
        Line("messages", expected["messages"], rows + sum(aside.values()) + dropped),
        *_by_key("bronze", expected["bronze"], stored),
        Line("bronze: different offsets", sum(expected["bronze"].values()), int(every[0][0]) if every else 0),
        *_by_key("quarantine", expected["quarantined"], aside),
        Line("dropped: analytics refused", expected["dropped"], dropped),
    ]
    unique = 0
    for domain, count in sorted(expected["silver"].items()):
        table = lakehouse.existing(f"silver.{domain}")
        found = _query(table, "SELECT count(*), count(DISTINCT event_id) FROM {files}")
        in_table, ids = (int(found[0][0]), int(found[0][1])) if found else (0, 0)
        lines += [Line(f"silver.{domain}", count, in_table), Line(f"silver.{domain}: event ids", count, ids)]
        unique += in_table
    return [*lines, Line("duplicates (bronze less silver)", expected["duplicates"], rows - unique)]


def show_tally(lines: Sequence[Line]) -> None:
    """The reconciliation table."""
    width = max(len(line.what) for line in lines)
    print(f"{'':<{width}}{'sent':>14}{'found':>14}{'difference':>12}")
    for line in lines:
        print(f"{line.what:<{width}}{line.sent:>14,}{line.found:>14,}{line.difference:>12,}")


def adds_up(lines: Sequence[Line]) -> bool:
    """Whether every line's difference is 0."""
    return all(line.difference == 0 for line in lines)


def _by_key(place: str, expected: Mapping[str, int], found: Mapping[str, int]) -> list[Line]:
    return [Line(f"{place}: {key}", expected.get(key, 0), found.get(key, 0)) for key in sorted({*expected, *found})]


def _grouped(table: Table | None, column: str) -> dict[str, int]:
    found = _query(table, f"SELECT {column}, count(*) FROM {{files}} GROUP BY 1")
    return {str(key): int(count) for key, count in found}


def _query(table: Table | None, query: str) -> list[tuple[Any, ...]]:
    """The answer over the data files of `table`'s newest snapshot; nothing where there are none."""
    files = [] if table is None else [task.file.file_path.removeprefix("file://") for task in scan_tasks(table)]
    if not files:
        return []
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 2}) as engine:
        return engine.execute(query.format(files="read_parquet(?, union_by_name = true)"), [files]).fetchall()


def _dropped(bronze: Table | None) -> int:
    """What ingest has noted as refused: it is nowhere else."""
    noted = progress_of(bronze).get("dropped", {}) if bronze is not None else {}
    return sum(noted.values())
