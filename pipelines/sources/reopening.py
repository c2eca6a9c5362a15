"""Rows of sources that were set aside, read again: by the columns and the mapping that the source has today."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from features.pseudonyms import Pseudonymizer
from pipelines.admission import QUARANTINE
from pipelines.console import complain
from pipelines.contract.events import Contract
from pipelines.door import Door
from pipelines.erased import Tombstones
from pipelines.errors import ReelError
from pipelines.intake import Part, Rows
from pipelines.kafka.message import Messages
from pipelines.settings import Settings
from pipelines.sources.admission import PeopleAdmission, RowReader, SourceAdmission, cluster_of
from pipelines.sources.history import Position
from pipelines.sources.intake import SOURCES
from pipelines.sources.mapping import resolve
from pipelines.sources.table import SourceName, open_source
from pipelines.sources.written import from_json

NOT_READ = "unreadable_row"  # of rows that do not fit the source's columns as they are now


@dataclass(frozen=True)
class ReadSource:
    """A source as it is read today. Travels to Ray tasks."""

    name: str
    columns: pa.Schema
    reader: RowReader

    def admit(self, messages: Messages, door: Door, key: bytes, cluster_id: str, run_ms: int) -> Rows:
        """What becomes of rows that were set aside. One that cannot even be read again stays, and is counted."""
        rows, at = from_json(messages.values, self.columns)
        admission = SourceAdmission(self.name, self.reader, door, key, cluster_id, run_ms)
        admitted = admission.admit(rows, messages.offsets[at])
        unread = np.setdiff1d(np.arange(len(messages)), at)
        if not len(unread):
            return admitted
        left = pa.table({"partition": messages.partitions[unread], "offset": messages.offsets[unread]})
        counts = {**admitted.counts, f"quarantined {NOT_READ}": len(unread)}
        return Rows([*admitted.parts, Part(QUARANTINE, QUARANTINE, left)], counts)

    def people(self, messages: Messages, hasher: Pseudonymizer, erased: Tombstones) -> Rows:
        """What rows that were set aside say of people, for the registries."""
        rows, _ = from_json(messages.values, self.columns)
        return PeopleAdmission(self.reader, hasher, erased)(rows, 0)


@dataclass(frozen=True)
class ReadSources:
    """The sources whose rows can be read again, and the number of the next row of each, by their rows' clusters."""

    by_cluster: Mapping[str, ReadSource]
    consumed: Mapping[str, int]

    @classmethod
    def of(cls, settings: Settings, contract: Contract, recorded: Mapping[str, Any]) -> "ReadSources":
        """Those that bronze's progress has `recorded`. Of one that cannot be opened any more one line is said."""
        found: dict[str, ReadSource] = {}
        consumed: dict[str, int] = {}
        for name, position in recorded.get(SOURCES, {}).items():
            at = Position.from_json(position)
            try:
                read = _open(settings, contract, name)
            except ReelError as error:
                complain(f"rows of {name} stay set aside: {error}")
                continue
            cluster_id = cluster_of(at.uuid)
            found[cluster_id], consumed[cluster_id] = read, at.offset
        return cls(found, consumed)


def _open(settings: Settings, contract: Contract, name: str) -> ReadSource:
    where = SourceName.parse(name)
    table, wanted = open_source(settings, where)
    columns = table.schema().as_arrow()
    mapping = resolve(contract, columns, wanted, f"sources.{where.catalog}.tables.{where.table}")
    read = pa.schema([columns.field(column) for column in mapping.reads])
    return ReadSource(name, read, RowReader(contract, mapping))
