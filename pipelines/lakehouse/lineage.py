"""Lineage: which run, of which code, made a snapshot, and from what.

    with lineage.run(settings, "clean") as made:
        facts = made.facts(Inputs(appended={"bronze.events": (41, 42)}, tables={"silver.titles": 7}))
        table = made.wrote(commit_files(table, files, progress, facts))

The facts are in the snapshot's summary, so they are committed with the data and cannot contradict it; `Commit` reads
them back. Whoever is configured to hear OpenLineage events (`settings.lineage`) hears of the run's start and end too.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from features.purposes import Purpose
from pipelines.kafka.offsets import OffsetRange
from pipelines.lakehouse.audit import audited
from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.commits import ErasedMeanwhileError
from pipelines.lakehouse.erasures import ERASURES, TOMBSTONES, mark_of, newest_mark
from pipelines.lakehouse.offset_ranges import Offsets, offsets_of, union
from pipelines.lakehouse.openlineage import Dataset, Listener, Written
from pipelines.report import StationReport, current_report
from pipelines.settings import Settings
from pipelines.version import code_version

RUN_ID = "reel.run-id"
STATION = "reel.station"
CODE_VERSION = "reel.code-version"
INPUTS = "reel.inputs"


@dataclass(frozen=True)
class Inputs:
    """What one commit was made from.

    offsets   that were read from the Kafka cluster `cluster_id`
    appended  what a table gained after one snapshot (None: since it was made) up to another
    tables    the snapshot as of which a table was read, as a whole

    A table is either `appended` to what had been read before, or read as a whole; as a whole, if it is in both.
    """

    cluster_id: str | None = None
    offsets: Offsets = field(default_factory=dict)
    appended: Mapping[str, tuple[int | None, int]] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_kafka(
        cls, cluster_id: str, ranges: Iterable[OffsetRange], tables: Mapping[str, int] | None = None
    ) -> "Inputs":
        """Ranges of a cluster's offsets that were read, and the tables that were looked up."""
        return cls(cluster_id, offsets_of(ranges), tables=tables or {})

    @classmethod
    def from_json(cls, text: str) -> "Inputs":
        """As `to_json` wrote it."""
        recorded = json.loads(text)
        kafka = recorded.get("kafka", {})
        offsets = {
            topic: {int(partition): tuple((start, end) for start, end in ranges) for partition, ranges in read.items()}
            for topic, read in kafka.get("offsets", {}).items()
        }
        appended = {name: (after, upto) for name, (after, upto) in recorded.get("appended", {}).items()}
        return cls(kafka.get("cluster_id"), offsets, appended, recorded.get("tables", {}))

    def to_json(self) -> str:
        """As JSON, without what is empty.

        {"kafka": {"cluster_id", "offsets": {topic: {partition: [[start, end], ...]}}},
        "appended": {table: [after, upto]}, "tables": {table: snapshot}}
        """
        recorded: dict[str, object] = {}
        if self.cluster_id is not None:
            recorded["kafka"] = {"cluster_id": self.cluster_id, "offsets": self.offsets}
        if self.appended:
            recorded["appended"] = dict(self.appended)
        if self.tables:
            recorded["tables"] = dict(self.tables)
        return json.dumps(recorded, sort_keys=True, separators=(",", ":"))

    @property
    def snapshots(self) -> dict[str, int]:
        """Every table with the newest of its snapshots that was read."""
        return {**{name: upto for name, (_, upto) in self.appended.items()}, **self.tables}


@dataclass(frozen=True)
class Commit:
    """One commit to a table, as its snapshot tells; what was not recorded is None."""

    snapshot_id: int
    parent_id: int | None
    at: datetime
    operation: str
    rows_added: int
    rows_removed: int
    rows_total: int
    files_added: int
    files_removed: int
    run_id: str | None
    station: str | None
    code_version: str | None
    inputs: Inputs | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Commit":
        """The commit that made `snapshot`."""
        said = snapshot.summary.additional_properties if snapshot.summary is not None else {}
        operation = snapshot.summary.operation if snapshot.summary is not None else Operation.OVERWRITE
        inputs = said.get(INPUTS)
        return cls(
            snapshot_id=snapshot.snapshot_id,
            parent_id=snapshot.parent_snapshot_id,
            at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
            operation=operation.value,
            rows_added=int(said.get("added-records", 0)),
            rows_removed=int(said.get("deleted-records", 0)),
            rows_total=int(said.get("total-records", 0)),
            files_added=int(said.get("added-data-files", 0)),
            files_removed=int(said.get("deleted-data-files", 0)),
            run_id=said.get(RUN_ID),
            station=said.get(STATION),
            code_version=said.get(CODE_VERSION),
            inputs=Inputs.from_json(inputs) if inputs is not None else None,
        )

    def is_upkeep(self, table: str) -> bool:
        """Whether it put rows of `table` elsewhere or took some out, and brought none."""
        if self.operation == Operation.REPLACE.value:
            return True
        return self.inputs is not None and self.inputs.snapshots.keys() == {table} and not self.inputs.offsets

    @property
    def is_made_anew(self) -> bool:
        """Whether it replaced everything that was there before, by what it made of whole tables."""
        is_whole = self.inputs is not None and not self.inputs.appended and not self.inputs.offsets
        return is_whole and self.operation == Operation.OVERWRITE.value and self.rows_added == self.rows_total


@dataclass
class Run:
    """One run of one station. What it counts in `report`, and its `purposes`, go on the audit log when it ends."""

    station: str
    id: str
    code_version: str
    report: StationReport
    lakehouse: Lakehouse | None = None
    erasures: str | None = None  # the newest mark of an erasure when the run began
    purposes: set[str] = field(default_factory=set)
    inputs: list[Inputs] = field(default_factory=list)
    written: dict[str, Written] = field(default_factory=dict)

    @classmethod
    def begin(cls, station: str, lakehouse: Lakehouse | None = None) -> "Run":
        """A run that begins now. With its lakehouse it commits nothing once somebody was erased meanwhile."""
        erasures = mark_of(lakehouse.existing(TOMBSTONES)) if lakehouse is not None else None
        around = current_report()
        report = around if around is not None and around.station == station else StationReport(station)
        return cls(station, str(uuid.uuid4()), code_version(), report, lakehouse, erasures)

    def serves(self, *purposes: Purpose) -> None:
        """Note what people's rows are used for."""
        self.purposes |= {str(purpose) for purpose in purposes}

    def require_no_erasure_since(self, made: str) -> None:
        """For what is written beside the lakehouse.

        Raises:
            ErasedMeanwhileError: `made` may hold rows of somebody who was erased since the run began.
        """
        if self.lakehouse is not None and newest_mark(self.lakehouse.catalog) != self.erasures:
            raise ErasedMeanwhileError(made)

    def facts(self, inputs: Inputs) -> dict[str, str]:
        """What a commit made from `inputs` records in its snapshot's summary."""
        self.inputs.append(inputs)
        return {
            RUN_ID: self.id,
            STATION: self.station,
            CODE_VERSION: self.code_version,
            INPUTS: inputs.to_json(),
            **({ERASURES: self.erasures} if self.erasures is not None else {}),
        }

    def wrote(self, table: Table) -> Table:
        """Note what this run's newest commit to `table` has written, for who listens; the table."""
        ours = (s for s in table.metadata.snapshots if s.summary is not None and s.summary[RUN_ID] == self.id)
        snapshot = max(ours, key=lambda snapshot: snapshot.sequence_number or 0, default=None)
        if snapshot is None or snapshot.summary is None:
            return table
        name, said = ".".join(table.name()), snapshot.summary.additional_properties
        before = self.written.get(name)
        self.written[name] = Written(
            Dataset.of(table),
            (before.rows if before else 0) + int(said.get("added-records", 0)),
            ((before.size_bytes if before else 0) or 0) + int(said.get("added-files-size", 0)),
            snapshot.snapshot_id,
        )
        return table

    def wrote_folder(self, folder: Path, schema: pa.Schema, rows: int) -> None:
        """Note what was written beside the lakehouse, for who listens."""
        columns = tuple((field.name, str(field.type)) for field in schema)
        self.written[str(folder)] = Written(Dataset(None, str(folder), columns), rows)

    @property
    def topics(self) -> dict[str, int]:
        """How many offsets of each topic were read; what was read for several tables counts once."""
        return {
            topic: sum(end - start for ranges in partitions.values() for start, end in ranges)
            for topic, partitions in union(one.offsets for one in self.inputs).items()
        }

    @property
    def snapshots(self) -> dict[str, int]:
        """The newest snapshot that was read of each table."""
        return {name: snapshot for one in self.inputs for name, snapshot in one.snapshots.items()}


def _begun(settings: Settings, station: str) -> Run:
    try:
        return Run.begin(station, Lakehouse.open(settings))
    except LakehouseError as error:
        if error.passes:
            raise
        # The station finds out for itself, and says so; should it get there all the same, it is made to begin again.
        return replace(Run.begin(station), erasures="unknown")


@contextmanager
def run(settings: Settings, station: str) -> Iterator[Run]:
    """One run of `station`: on the audit log from its begin to its end, and heard of by whoever listens.

    The report is that of the `timed` block around it, if that is the same station's. Raises AuditLogError when the log
    takes no record.
    """
    made = _begun(settings, station)
    with audited(settings, made), _heard(settings, made):
        yield made


def reported(settings: Settings, station: str, work: Callable[[], StationReport], *purposes: Purpose) -> StationReport:
    """One run of a `station` that does not know the settings; its report."""
    with run(settings, station) as made:
        made.serves(*purposes)
        made.report = work()
    return made.report


@contextmanager
def _heard(settings: Settings, made: Run) -> Iterator[None]:
    listener = Listener.of(settings)
    if listener is None:
        yield
        return
    listener.started(made.station, made.id)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        listener.ended(made.station, made.id, made.topics, made.snapshots, made.written.values(), failure)
