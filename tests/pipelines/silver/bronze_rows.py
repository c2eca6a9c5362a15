"""Rows of bronze by hand, as ingest would have stored them, and the tables that clean reads and fills."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.manifest import DataFile

from pipelines.clean import Cleaning
from pipelines.contract.events import Contract, load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_all
from pipelines.lakehouse.tables import TableSpec
from pipelines.report import StationReport
from pipelines.settings import LakehouseSettings, PrivacySettings, Settings
from pipelines.settings_section import PROJECT_ROOT
from tests.platform import SALT, T0

Row = dict[str, Any]
DOMAINS = ("catalog", "common", "playback", "user")  # of the contract; of all 24 a run of clean takes seconds
DESCRIPTIONS = TableSpec("privacy.profiles", tables.PROFILES)


def pseudonym(plain: str) -> str:
    return hashlib.sha256((plain + SALT).encode()).hexdigest()


def small_contract(folder: Path) -> Path:
    """A folder of the project's own schemas, of a few domains only."""
    for domain in DOMAINS:
        shutil.copytree(PROJECT_ROOT / "configs" / "schemas" / domain, folder / domain)
    return folder


def row(name: str, number: int, at_ms: int = T0, person: str | None = "ann", **columns: Any) -> Row:
    """An event of a described adult, received at `at_ms`; `number` is its offset, and its id unless given."""
    people = {"user_id": person, "profile_id": person and f"{person}-p", "session_id": person and f"{person}-s"}
    found: Row = {
        "event_id": f"evt_{number:08d}",
        "event_name": name,
        "event_timestamp": at_ms,
        "source": "CLIENT",
        **{column: pseudonym(plain) if plain is not None else None for column, plain in people.items()},
        "is_kids": False if person is not None else None,
        "profile_described": True if person is not None else None,
        "cluster_id": "a cluster",
        "topic": "client.playback",
        "partition": 0,
        "offset": number,
        "ingested_at": at_ms,
    }
    found["viewer_token"] = found["profile_id"]
    if name.startswith("playback."):
        found["content_id"] = "vod-1"
    return found | columns


@dataclass
class Lake:
    """A lakehouse of a small contract in a temporary folder."""

    folder: Path
    undescribed_profile_hours: float = 24.0
    settings: Settings = field(init=False)
    contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        salt = self.folder / "salt"
        salt.write_text(SALT)
        salt.chmod(0o600)
        self.settings = Settings(
            work_dir=self.folder,
            schemas=small_contract(self.folder / "schemas"),
            lakehouse=LakehouseSettings(event_partition="month"),
            privacy=PrivacySettings(salt_file=salt, undescribed_profile_hours=self.undescribed_profile_hours),
        )
        self.contract = load_contract(self.settings.schemas)
        self.lakehouse = Lakehouse.open(self.settings)
        self.bronze = tables.bronze_events(self.contract, "month")

    def receive(self, *files: Sequence[Row]) -> None:
        """Append rows to bronze in one commit; rows of one event that are given together are in one file."""
        table = self.lakehouse.table(self.bronze)
        commit_files(table, [one for rows in files for one in self.written(self.bronze, rows)], progress_of(table))

    def describe(self, *descriptions: Row) -> None:
        """Append to the profile registry."""
        table = self.lakehouse.table(DESCRIPTIONS)
        commit_files(table, self.written(DESCRIPTIONS, descriptions), progress_of(table))

    def written(self, spec: TableSpec, rows: Iterable[Row]) -> list[DataFile]:
        """Files of the table that no commit names yet."""
        return write_files(TableFiles.of(self.lakehouse.table(spec)), table_of(rows, spec.schema))

    def clean(self) -> StationReport:
        """One run, as the command does it."""
        return Cleaning(self.settings).run()

    def rows(self, name: str) -> list[Row]:
        """All rows of a table."""
        table = self.lakehouse.existing(name)
        return [] if table is None else read_all(table, table.schema().as_arrow()).to_pylist()


def table_of(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Rows with instants in milliseconds as a table of microseconds."""
    instants = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    stored = [one | {name: one[name] * 1000 for name in instants if isinstance(one.get(name), int)} for one in rows]
    return pa.Table.from_pylist(stored, schema)
