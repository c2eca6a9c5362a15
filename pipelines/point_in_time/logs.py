"""Sorted logs.

input   silver, and a purpose
does    makes a source's log of events that the purpose allows, in (entity, time, id) order, once for all joins
output  Iceberg `features.{source}_by_{entity}`, cut by the bucket of the entity

Sorting is what an exact value costs most of; kept sorted, a bucket is read and searched by one task and nothing is
shuffled. A log is made anew whenever silver, titles, consent or profiles have changed since.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.crowds import without_children
from features.entities import entity as entity_of
from features.purposes import Purpose
from features.sorted_log import sort_log
from features.source import Source
from pipelines.cluster import buckets_for, shuffle
from pipelines.contract.events import load_contract
from pipelines.errors import ReelError
from pipelines.feature_logs import CutLog, KeepLog, Reading, shared_tables, silver_schemas
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import live_files, snapshot_of
from pipelines.settings import Settings

LEFT_OUT = "reel.left-out"  # in the summary of a log's commit: events that are not in it, by reason


class SilverMovedError(ReelError):
    """A station began with one snapshot of silver, and found another."""

    passes = True


@dataclass(frozen=True)
class SortedLogs:
    """The sorted logs of a lakehouse for one purpose, without the events of people who have withdrawn by now."""

    settings: Settings
    lakehouse: Lakehouse
    made: lineage.Run
    purpose: Purpose
    silver: Mapping[str, int]
    """Snapshots that the caller has read already and the logs must be made of; {}: whatever there is."""

    def table(self, source: Source, entity: str) -> Table:
        """The table of one log, brought up to date with silver first.

        Raises:
            SilverMovedError: silver has another snapshot than the caller's by now.
        """
        chosen = self.settings.lakehouse
        schemas = silver_schemas(load_contract(self.settings.schemas), chosen.event_partition)
        # What says nothing about a person keeps what was allowed when it happened (spec 8.2).
        is_personal = entity_of(entity).is_personal
        reading = Reading.of(self.lakehouse, [source], self.purpose, now_ms(), schemas, is_personal=is_personal)
        self._require_same(reading.snapshots)
        cut = buckets_for(sum(reading.rows.values()), chosen.buckets)
        table = self.lakehouse.table(spec_of(source, entity, cut))
        snapshots = dict(reading.snapshots)
        record = {
            "inputs": snapshots,
            "columns": str(source.schema),
            "events": list(source.events),
            "purpose": str(self.purpose),
        }
        if progress_of(table) == record:
            return table
        logs = reading.gather(shared_tables(self.lakehouse, [source]), chosen.buckets, KeepLog())
        sort = _Sort(TableFiles.of(table), source, entity)
        (kept,) = logs.pieces.values()
        files = [file for found in shuffle(kept, CutLog(entity, cut), sort, cut) for file in found]
        facts = self.made.facts(lineage.Inputs(tables=snapshots)) | {LEFT_OUT: json.dumps(logs.excluded)}
        return self.made.wrote(replace_files(table, live_files(table), files, record, facts))

    def _require_same(self, snapshots: Mapping[str, int]) -> None:
        moved = [name for name, snapshot in snapshots.items() if self.silver.get(name, snapshot) != snapshot]
        if moved:
            raise SilverMovedError(f"{', '.join(moved)} got new rows while this ran; run it again")


def left_out_of(table: Table, snapshot_id: int | None) -> dict[str, int]:
    """How many events were left out of a log as of a snapshot, by reason. Raises SnapshotGoneError."""
    snapshot = snapshot_of(table, snapshot_id)
    said = snapshot.summary.additional_properties if snapshot is not None and snapshot.summary is not None else {}
    counts: dict[str, int] = json.loads(said.get(LEFT_OUT, "{}"))
    return counts


def spec_of(source: Source, entity: str, buckets: int) -> tables.TableSpec:
    """The table of a sorted log."""
    stored = pa.schema([pa.field(field.name, tables.stored_type(field.type)) for field in source.schema])
    return tables.TableSpec(f"features.{source.name}_by_{entity}", stored, ((entity, f"bucket[{buckets}]"),))


def now_ms() -> int:
    """The wall clock: consent is asked for as of now unless somebody says else."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class _Sort:
    table: TableFiles
    source: Source
    entity: str

    def __call__(self, _: int, parts: Sequence[pa.Table]) -> list[DataFile]:
        log = without_children(pa.concat_tables(parts))  # a log is cut anywhere, and crowds only at the hour
        return write_files(self.table, sort_log(self.source, self.entity, log))
