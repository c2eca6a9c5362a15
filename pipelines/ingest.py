"""Ingest.

input   Kafka topics, in Confluent's wire format
does    people first: descriptions of profiles and consents; then every event through the door, exactly once
output  Iceberg `bronze.events`, `quarantine.events`, `privacy.profiles`, `privacy.consents`, `privacy.erasures`
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from pipelines.admission import EventAdmission, people_rows
from pipelines.console import complain
from pipelines.contract.events import load_contract
from pipelines.door import Door
from pipelines.doorway import open_door
from pipelines.enrichment import Enricher
from pipelines.erased import Tombstones
from pipelines.intake import Intake, Reading
from pipelines.kafka.log import open_log
from pipelines.kafka.offsets import OffsetRange
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from pipelines.messages import MessageDecoder
from pipelines.online_people import tell_service
from pipelines.report import StationReport, timed
from pipelines.secrets import pseudonymizer, quarantine_key, tombstone_key
from pipelines.settings import Settings

PEOPLE_TOPIC = "user.events"


def ingest(
    settings: Settings,
    *,
    topics: Sequence[str] = (),
    accept_lost: bool = False,
    on_plan: Callable[[int], None] = lambda messages: None,
    on_progress: Callable[[int], None] = lambda messages: None,
) -> StationReport:
    """Bring in everything Kafka holds that has not been read, then return.

    `on_plan` hears how many offsets there are to read, `on_progress` of each part of them done.
    """
    ingestion = Ingestion(settings, topics)
    report = ingestion.run(accept_lost=accept_lost, on_plan=on_plan, on_progress=on_progress)
    if report.read["messages"]:
        warn_of_nulls(ingestion.enricher)
    return report


class Ingestion:
    """Everything ingest needs, opened once, so that it can be run again and again."""

    def __init__(self, settings: Settings, topics: Sequence[str] = ()) -> None:
        self._contract = contract = load_contract(settings.schemas)
        self.enricher = Enricher.of(settings.enrichment)
        self.topics = tuple(topics) or settings.kafka.topics or contract.topics
        self._settings = settings
        self._lakehouse = Lakehouse.open(settings)
        self._log = open_log(settings)
        self._hasher = pseudonymizer(settings)
        self._key, self._tombstone_key = quarantine_key(settings), tombstone_key(settings)
        self._decoder = MessageDecoder(settings.registry_location, str(settings.schemas))
        self._reading = Reading(self._log, settings.ingest.messages_per_task, settings.ingest.messages_per_commit)
        self._people_specs = (tables.profiles(), tables.consents(), tables.erasures())
        # Quarantine is committed first. Killed between the two, ingest reads a batch again, and what was bad may be
        # good by then, its schema having been registered: bronze must not have passed it.
        self._event_specs = (
            tables.quarantine_events(),
            tables.bronze_events(contract, settings.lakehouse.event_partition),
        )
        self._people_snapshots: dict[str, int] | None = None
        self._door: Door | None = None
        self._erased_as_of: tuple[int | None, ...] | None = None
        self._erased = Tombstones(self._tombstone_key)

    def run(
        self,
        *,
        accept_lost: bool = False,
        at_most: int | None = None,
        on_plan: Callable[[int], None] = lambda messages: None,
        on_progress: Callable[[int], None] = lambda messages: None,
    ) -> StationReport:
        """Bring in what there is now, `at_most` so many messages when given: the rest waits in Kafka."""
        with timed("ingest") as report, lineage.run(self._settings, "ingest") as made:
            # People last in the asking and first in the reading: whoever an event is about has then been described.
            now = self._log.available([topic for topic in self.topics if topic != PEOPLE_TOPIC])
            people_now = self._log.available([PEOPLE_TOPIC])
            if PEOPLE_TOPIC in self.topics:
                now = now.with_topics_of(people_now)
            people = Intake({spec.name: self._lakehouse.table(spec) for spec in self._people_specs})
            events = Intake({spec.name: self._lakehouse.table(spec) for spec in self._event_specs})
            people_ranges = people.plan(people_now, accept_lost=accept_lost)
            event_ranges = _at_most(events.plan(now, accept_lost=accept_lost), at_most)
            lost = events.lost(now)
            on_plan(sum(span.size for span in (*people_ranges, *event_ranges)))

            described = people.run(
                people_now,
                people_ranges,
                partial(people_rows, self._decoder, self._hasher, self._current_tombstones()),
                self._reading,
                on_progress,
                made,
            )
            published = tell_service(self._lakehouse, self._settings.online_store_url)
            admission = EventAdmission(
                self._decoder, self._current_door(people), self._key, now.cluster_id, int(time.time() * 1000)
            )
            counts = events.run(now, event_ranges, admission, self._reading, on_progress, made, people.snapshots())
            _fill(report, self.topics, counts, described)
            if published:
                report.did["people brought up to date online"] = published
            if lost:
                report.did["lost: deleted before it was read"] = lost
        return report

    def waiting(self) -> int:
        """Offsets that have not been read yet."""
        events = Intake({spec.name: self._lakehouse.table(spec) for spec in self._event_specs})
        return sum(span.size for span in events.plan(self._log.available(self.topics)))

    def _current_door(self, people: Intake) -> Door:
        """The door as the registries are now; they are read anew only when they changed."""
        snapshots, erased = people.snapshots(), self._current_tombstones()
        if self._door is None or snapshots != self._people_snapshots or erased is not self._door.erased:
            self._door = open_door(
                self._contract,
                self._hasher,
                self.enricher,
                profiles=read_all(people.tables["privacy.profiles"], tables.PROFILES),
                consents=read_all(people.tables["privacy.consents"], tables.CONSENTS),
                erased=erased,
            )
            self._people_snapshots = snapshots
        return self._door

    def _current_tombstones(self) -> Tombstones:
        """Who is erased or asked to be, as of now; read anew only when that changed."""
        found = [self._lakehouse.existing(name) for name in ("privacy.tombstones", "privacy.erasures")]
        as_of = tuple(table.metadata.current_snapshot_id if table is not None else None for table in found)
        if as_of != self._erased_as_of:
            self._erased, self._erased_as_of = Tombstones.read(self._lakehouse, self._tombstone_key), as_of
        return self._erased


def warn_of_nulls(enricher: Enricher) -> None:
    """Say which columns are null for want of a database, if any are; once a run is enough."""
    if enricher.warning is not None:
        complain(enricher.warning)


def _at_most(ranges: Sequence[OffsetRange], messages: int | None) -> list[OffsetRange]:
    """The same share of every range, so that partitions go on together; at least one message of each."""
    total = sum(span.size for span in ranges)
    if messages is None or total <= messages:
        return list(ranges)
    return [
        OffsetRange(span.topic, span.partition, span.start, span.start + max(1, span.size * messages // total))
        if span.size
        else span
        for span in ranges
    ]


def _fill(report: StationReport, topics: Sequence[str], counts: dict[str, int], described: dict[str, int]) -> None:
    def of(prefix: str, counted: dict[str, int] = counts) -> dict[str, int]:
        return {name.removeprefix(prefix): n for name, n in sorted(counted.items()) if name.startswith(prefix)}

    report.read = {"topics": len(topics), "messages": counts.get("messages", 0)}
    report.did = {f"dropped: {reason}": n for reason, n in of("dropped ").items()}
    report.did |= {f"set aside: {reason}": n for reason, n in of("quarantined ").items()}
    report.did |= {f"restricted: {reason}": n for reason, n in of("restricted ").items()}
    report.did |= {f"admitted: {event}": n for event, n in of("event ").items()}
    report.wrote = {**of("wrote "), **of("wrote ", described)}
