"""Ingest from a table.

input   an Iceberg table that others fill, one row an event; what it gained since it was last read
does    people first: descriptions of profiles and consents; then every event through the door, exactly once
output  Iceberg `bronze.events`, `quarantine.events`, `privacy.profiles`, `privacy.consents`, `privacy.erasures`

The rules are those of Kafka's events: consent, children, salted ids, what is set aside. The source says plain ids; they
are hashed here. Which of its columns is which of the contract's is configuration (`sources.mapping`), what does not fit
its type is set aside (`sources.casting`, `sources.admission`), and what is new is read off its history
(`sources.history`): only appends bring rows.

Exactly once, as from Kafka:

    1. each table's newest commit says up to where it has the source: its `Position`, under `sources` of its progress
    2. the source's history says which files came after that; a run of them, of at most `messages_per_commit` rows, is
       a batch, and a portion of that, of at most `messages_per_task` rows, a task. A file is never cut
    3. Ray tasks read the files a portion at a time and write data files, which nobody can see yet
    4. each table gets one commit: the files and its next position, together

A crash before step 4 leaves files that no table names. After a crash between two commits of step 4 the batch is read
again, and the table that had it already skips it. What Kafka's ingest records in the same progress stays, and so does
ours when it records: when the other was faster, and the source's position stands where it stood, the same files are
committed on top. Two runs of one source end as one ConcurrentCommitError.
"""

import time
from collections.abc import Callable, Mapping

from pyiceberg.expressions import BooleanExpression, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import StringType

from features.pseudonyms import Pseudonymizer
from pipelines.admission import PEOPLE
from pipelines.console import complain
from pipelines.contract.events import Contract, load_contract
from pipelines.door import Door
from pipelines.doorway import open_door
from pipelines.enrichment import Enricher
from pipelines.erased import Tombstones
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from pipelines.online_people import tell_service
from pipelines.report import StationReport, timed
from pipelines.secrets import pseudonymizer, quarantine_key, tombstone_key
from pipelines.settings import Settings
from pipelines.sources.admission import PeopleAdmission, RowReader, SourceAdmission, cluster_of
from pipelines.sources.history import News, rows_changed
from pipelines.sources.intake import Heard, Reading, TableIntake
from pipelines.sources.mapping import TOPIC, ColumnMapping, resolve
from pipelines.sources.table import SourceName, open_source


def ingest_table(
    settings: Settings,
    name: str,
    *,
    accept_lost: bool = False,
    on_plan: Callable[[int], None] = lambda rows: None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> StationReport:
    """Bring in what the table CATALOG.NAMESPACE.TABLE has gained since it was last read.

    `on_plan` hears how many rows there are to read, `on_progress` of each portion of them done. Raises
    UnknownSourceError and MappingError before anything is read, SourceExpiredError when the source's history no longer
    reaches back to where it was read (`accept_lost` goes on with what is there), ConcurrentCommitError when another
    run was faster.
    """
    with timed("ingest") as report, lineage.run(settings, "ingest") as run:
        source = SourceIngestion(settings, SourceName.parse(name))
        planned = source.plan(accept_lost=accept_lost)
        on_plan(sum(file.rows for part in planned for file in part.files))
        described, counts = source.run(*planned, Heard(run, on_progress))
        _fill(report, planned[1], counts, described)
        if planned[1].changes:
            complain(_changes(name, planned[1]))
    return report


class SourceIngestion:
    """One source, and the tables it is read into. Nothing is read before its columns are known to be events'."""

    def __init__(self, settings: Settings, name: SourceName) -> None:
        self._settings, self._name = settings, str(name)
        self._contract = load_contract(settings.schemas)
        self._source, wanted = open_source(settings, name)
        where = f"sources.{name.catalog}.tables.{name.table}"
        self._mapping = resolve(self._contract, self._source.schema().as_arrow(), wanted, where)
        self._hasher, self._key = pseudonymizer(settings), quarantine_key(settings)
        self._enricher = Enricher.of(settings.enrichment)
        self._tombstone_key = tombstone_key(settings)
        self._lakehouse = lakehouse = Lakehouse.open(settings)
        bronze = tables.bronze_events(self._contract, settings.lakehouse.event_partition)
        self._people = self._intake(lakehouse, tables.profiles(), tables.consents(), tables.erasures())
        self._events = self._intake(lakehouse, tables.quarantine_events(), bronze)

    def plan(self, *, accept_lost: bool) -> tuple[News, News]:
        """What the registries do not have yet, and what the tables of events do not have. Raises as `news` does."""
        of_people = self._people.plan(accept_lost=accept_lost) if _may_describe_people(self._mapping) else News()
        return of_people, self._events.plan(accept_lost=accept_lost)

    def run(self, of_people: News, of_events: News, heard: Heard) -> tuple[dict[str, int], dict[str, int]]:
        """People first, so that whoever an event is about has then been described; the counts of both."""
        chosen = self._settings.ingest
        theirs = _columns_of_people(self._contract, self._mapping)
        described = self._people.run(
            of_people,
            PeopleAdmission(RowReader(self._contract, theirs), self._hasher, self._erased()),
            Reading(
                theirs.reads,
                chosen.messages_per_task,
                chosen.messages_per_commit,
                _only_people(self._source.schema(), theirs),
            ),
            heard,
        )
        tell_service(self._lakehouse, self._settings.online_store_url)
        admission = SourceAdmission(
            self._name,
            RowReader(self._contract, self._mapping),
            self._door(self._hasher),
            self._key,
            cluster_of(str(self._source.metadata.table_uuid)),
            int(time.time() * 1000),
        )
        reading = Reading(self._mapping.reads, chosen.messages_per_task, chosen.messages_per_commit)
        return described, self._events.run(of_events, admission, reading, heard)

    def _intake(self, lakehouse: Lakehouse, *specs: tables.TableSpec) -> TableIntake:
        return TableIntake(self._name, self._source, {spec.name: lakehouse.table(spec) for spec in specs})

    def _door(self, hasher: Pseudonymizer) -> Door:
        registries: dict[str, Table] = self._people.tables
        return open_door(
            self._contract,
            hasher,
            self._enricher,
            profiles=read_all(registries["privacy.profiles"], tables.PROFILES),
            consents=read_all(registries["privacy.consents"], tables.CONSENTS),
            erased=self._erased(),
        )

    def _erased(self) -> Tombstones:
        return Tombstones.read(self._lakehouse, self._tombstone_key)


def _may_describe_people(mapping: ColumnMapping) -> bool:
    """False for a table all of whose rows are another event."""
    return mapping.constants.get("event_name") in {None, *PEOPLE}


def _columns_of_people(contract: Contract, mapping: ColumnMapping) -> ColumnMapping:
    return mapping.only({TOPIC, *(column for name in PEOPLE for column in contract.event(name).arrow.names)})


def _only_people(source: Schema, mapping: ColumnMapping) -> BooleanExpression | None:
    """The filter for rows of the registries, where the events' names stand in a column of their own."""
    path = mapping.paths.get("event_name", ())
    if len(path) != 1 or not isinstance(source.find_type(path[0]), StringType):
        return None
    return In(term=Reference(path[0]), values={literal(name) for name in PEOPLE})


def _changes(source: str, planned: News) -> str:
    gone, written = rows_changed(planned.changes)
    return (
        f"{source}: {len(planned.changes)} of its snapshots changed rows ({gone:,} taken away, {written:,} written in "
        "their place); only appended rows are read, and what was read of these before stays"
    )


def _fill(report: StationReport, planned: News, counts: Mapping[str, int], described: Mapping[str, int]) -> None:
    def of(prefix: str, counted: Mapping[str, int] = counts) -> dict[str, int]:
        return {name.removeprefix(prefix): n for name, n in sorted(counted.items()) if name.startswith(prefix)}

    snapshots = len({file.snapshot_id for file in planned.files})
    report.read = {"snapshots": snapshots, "messages": counts.get("messages", 0)}
    report.did = {f"dropped: {reason}": n for reason, n in of("dropped ").items()}
    report.did |= {f"restricted: {reason}": n for reason, n in of("restricted ").items()}
    report.did |= {f"set aside: {reason}": n for reason, n in of("quarantined ").items()}
    report.did |= {f"admitted: {event}": n for event, n in of("event ").items()}
    gone, written = rows_changed(planned.changes)
    report.did |= {"rows the source took away": gone} if gone else {}
    report.did |= {"rows the source wrote anew, not read": written} if written else {}
    report.wrote = {**of("wrote "), **of("wrote ", described)}
