"""A lakehouse whose silver is written by hand, without the road before it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipelines.contract.events import load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_all
from pipelines.settings import LakehouseSettings, Settings

ALLOWED = {"is_kids": False, "consent_analytics": True, "consent_personalization": True}
BUCKETS = 2


@dataclass
class Silver:
    """Tables of silver, and the settings to build features of them."""

    folder: Path
    event_partition: Literal["hour", "day", "month"] = "month"
    settings: Settings = field(init=False)
    lakehouse: Lakehouse = field(init=False)

    def __post_init__(self) -> None:
        chosen = LakehouseSettings(event_partition=self.event_partition, buckets=BUCKETS)
        self.settings = Settings(work_dir=self.folder, lakehouse=chosen)
        self.lakehouse = Lakehouse.open(self.settings)
        contract = load_contract(self.settings.schemas)
        domains = {event.domain for event in contract.events}
        specs = [tables.silver_domain(contract, one, self.event_partition) for one in sorted(domains)]
        self.specs = {spec.name: spec for spec in [*specs, tables.silver_titles(), tables.consents()]}

    def append(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Append rows to tables, one commit each; columns that a row lacks are null, `time` is `event_timestamp`.

        A row that does not say when it was ingested was so just now.
        """
        now = int(time.time() * 1_000_000)
        for name, some in rows.items():
            schema = self.specs[name].schema
            whole = [{**ALLOWED, "ingested_at": now, **one} for one in some]
            whole = [one | {"event_timestamp": one["time"] * 1000} for one in whole]
            whole = [one | {"client_timestamp": _micros(one.get("client_timestamp"))} for one in whole]
            self.append_table(name, pa.Table.from_pylist(whole, schema=_nullable(schema)))

    def append_table(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table, in one commit."""
        table = self.lakehouse.table(self.specs[name])
        rows = rows.select([one for one in rows.column_names if rows[one].null_count < rows.num_rows])
        if rows.num_rows:
            commit_files(table, write_files(TableFiles.of(table), rows), None)

    def rows(self, name: str, schema: pa.Schema) -> pa.Table:
        """All rows of a table."""
        return read_all(self.lakehouse.existing(name), schema)


def _micros(ms: int | None) -> int | None:
    return None if ms is None else ms * 1000


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])
