"""What a training set is read from: sorted logs, the catalogue, tables of rows; as they are, or as they were.

A new set reads everything as it is and notes the snapshots. A set that is built again reads the noted ones; only who
allows what, and who is a child, is asked as of today.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.table import Table

from features.entities import ENTITIES
from features.errors import SelectionError
from features.purposes import Purpose
from features.source import EVENT_TIME, Source
from pipelines.contract.events import load_contract
from pipelines.errors import ReelError
from pipelines.feature_logs import check_sources, silver_schemas
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import live_files, lower_instant_ms, read_snapshot, snapshot_of, upper_instant_ms
from pipelines.point_in_time.logs import SortedLogs, left_out_of
from pipelines.point_in_time.people import PROFILE, USER, People
from pipelines.point_in_time.stored import BucketedTable
from pipelines.settings import Settings

PRIVACY = ("privacy.consents", "privacy.profiles")
TITLES = "silver.titles"


class NoDataError(ReelError):
    """There is nothing that a training set could be read from."""


class NotRecordedError(ReelError):
    """A training set is to be read as of snapshots that its manifest does not name."""


@dataclass(frozen=True)
class DataSpan:
    """The data begin at `since_ms` and end before `until_ms`."""

    since_ms: int
    until_ms: int


@dataclass
class Inputs:
    """The tables of one build. `snapshots`: what was read, each as of which; filled while it is opened."""

    settings: Settings
    lakehouse: Lakehouse
    made: lineage.Run
    purpose: Purpose
    recorded: Mapping[str, int] | None
    silver: Mapping[str, int]
    at_ms: int
    snapshots: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def now(
        cls, settings: Settings, lakehouse: Lakehouse, made: lineage.Run, purpose: Purpose, sources: Sequence[Source],
        at_ms: int,
    ) -> "Inputs":  # fmt: skip
        """As everything is.

        Raises:
            DeclarationError: a source is made of an event, a table or a column that there is not.
        """
        contract = load_contract(settings.schemas)
        check_sources(sources, contract, silver_schemas(contract, settings.lakehouse.event_partition))
        named = [name for source in sources for name in source.reads]
        silver: dict[str, int] = {}
        for name in dict.fromkeys([*named, TITLES, *PRIVACY]):
            table = lakehouse.existing(name)
            if table is not None and (snapshot := table.current_snapshot()) is not None:
                silver[name] = snapshot.snapshot_id
        return cls(settings, lakehouse, made, purpose, None, silver, at_ms, dict(silver))

    @classmethod
    def recorded_as(
        cls, settings: Settings, lakehouse: Lakehouse, made: lineage.Run, purpose: Purpose,
        snapshots: Mapping[str, int], at_ms: int,
    ) -> "Inputs":  # fmt: skip
        """As a manifest says."""
        return cls(settings, lakehouse, made, purpose, snapshots, snapshots, at_ms, dict(snapshots))

    def log(self, source: Source, entity: str) -> BucketedTable:
        """A source's sorted log; made first, unless it is read as it was.

        Raises:
            SnapshotGoneError: it is not there any more as it was.
            SilverMovedError: silver changed while it was made.
        """
        if self.recorded is None:
            table = SortedLogs(self.settings, self.lakehouse, self.made, self.purpose, self.silver).table(
                source, entity
            )
            snapshot_id = table.metadata.current_snapshot_id
        else:
            table, snapshot_id = self._as_recorded(f"features.{source.name}_by_{entity}")
        stored = BucketedTable.of(table, snapshot_id)
        self.left_out[stored.name] = left_out_of(table, snapshot_id)
        if stored.snapshot_id is not None:
            self.snapshots[stored.name] = stored.snapshot_id
        return stored

    def titles(self) -> pa.Table:
        """The catalogue's history. Raises SnapshotGoneError."""
        if TITLES not in self.silver:
            return tables.TITLE_HISTORY.empty_table()
        table, snapshot_id = self._as_recorded(TITLES) if self.recorded is not None else self._as_it_is(TITLES)
        return read_snapshot(table, snapshot_id, tables.TITLE_HISTORY)

    def table(self, name: str) -> tuple[Table, int]:
        """A table of rows, and the snapshot as of which it is read.

        Raises:
            NoDataError: there is no such table, or nothing in it.
            SnapshotGoneError: it is not there any more as it was.
        """
        table, snapshot_id = self._as_it_is(name) if self.recorded is None else self._as_recorded(name)
        self.snapshots[name] = snapshot_id
        return table, snapshot_id

    def data(self, sources: Sequence[Source]) -> DataSpan:
        """From when to when there are events in the tables that the sources read, from their files' bounds alone.

        Raises:
            NoDataError: there is none.
        """
        firsts, lasts = [], []
        for name in dict.fromkeys(name for source in sources for name in source.reads):
            if name not in self.silver:
                continue
            table, snapshot_id = self._as_it_is(name)
            for file in live_files(table, snapshot_id):
                firsts.append(lower_instant_ms(table, file, EVENT_TIME))
                lasts.append(upper_instant_ms(table, file, EVENT_TIME))
        known = [first for first in firsts if first is not None], [last for last in lasts if last is not None]
        if not known[0] or not known[1]:
            raise NoDataError("no events to train on; run `reel ingest`, `reel clean` and `reel features` first")
        return DataSpan(min(known[0]), max(known[1]) + 1)

    def people(self, columns: Sequence[str], keys: Mapping[str, str]) -> People | None:
        """Who of the rows' people allows the purpose, as known today; None where rows are of nobody.

        Raises:
            SelectionError: rows lead to people, and do not say to whom.
        """
        users, profiles = (
            tuple(dict.fromkeys(name for name in (keys.get(one, one), one) if name in columns))
            for one in (USER, PROFILE)
        )
        if not users and not profiles:
            leads = [one.key for one in ENTITIES if one.is_personal and keys.get(one.key, one.key) in columns]
            if not leads:
                return None
            raise SelectionError(
                f"whose {leads[0]} is it? the rows need {USER} or {PROFILE} beside it, so that consent can be asked"
            )
        return People.named(self.lakehouse, users, profiles, self.purpose, self.at_ms)

    def _as_it_is(self, name: str) -> tuple[Table, int]:
        table = self.lakehouse.existing(name)
        snapshot = table.current_snapshot() if table is not None else None
        if table is None or snapshot is None:
            raise NoDataError(f"there is no table {name}, or nothing in it; see `reel status` for what there is")
        return table, self.silver.get(name, snapshot.snapshot_id)

    def _as_recorded(self, name: str) -> tuple[Table, int]:
        assert self.recorded is not None
        table = self.lakehouse.existing(name)
        if name not in self.recorded:
            raise NotRecordedError(f"the manifest names no snapshot of {name}, which the training set is read from")
        if table is None:
            raise NoDataError(f"there is no table {name} any more, from which the training set was made")
        snapshot_of(table, self.recorded[name])
        return table, self.recorded[name]
