"""Ingest.

input   Kafka topics, in Confluent's wire format
does    people first: descriptions of profiles and consents; then every event through the door, exactly once
output  Iceberg `bronze.events`, `quarantine.events`, `privacy.profiles`, `privacy.consents`
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import yaml

from features.consent import ConsentHistory
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from pipelines.contract.events import load_contract
from pipelines.door import Door
from pipelines.intake import Intake, Reading, Rows
from pipelines.kafka.log import Message, open_log
from pipelines.kafka.offsets import Available, OffsetRange
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from pipelines.messages import MessageDecoder, SetAside
from pipelines.quarantine import quarantine_rows
from pipelines.report import StationReport, add_counts, timed
from pipelines.secrets import pseudonymizer, quarantine_key
from pipelines.settings import PROJECT_ROOT, Settings

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
    with timed("ingest") as report:
        contract = load_contract(settings.schemas)
        lakehouse = Lakehouse.open(settings)
        log = open_log(settings)
        wanted = tuple(topics) or settings.kafka.topics or contract.topics
        # People last in the asking and first in the reading: whoever an event is about has then been described.
        now = log.available([topic for topic in wanted if topic != PEOPLE_TOPIC])
        people_now = log.available([PEOPLE_TOPIC])
        reading = Reading(log, settings.ingest.messages_per_task, settings.ingest.messages_per_commit)
        decoder = MessageDecoder(settings.registry_location, str(settings.schemas))

        people = Intake({spec.name: lakehouse.table(spec) for spec in (tables.profiles(), tables.consents())})
        people_ranges = people.plan(people_now, accept_lost=accept_lost)
        bronze = tables.bronze_events(contract, settings.lakehouse.event_partition)
        events = Intake({spec.name: lakehouse.table(spec) for spec in (bronze, tables.quarantine_events())})
        merged = Available(now.cluster_id, {**now.bounds, **(people_now.bounds if PEOPLE_TOPIC in wanted else {})})
        event_ranges = events.plan(merged, accept_lost=accept_lost)
        on_plan(sum(r.size for r in people_ranges) + sum(r.size for r in event_ranges))

        hasher = pseudonymizer(settings)
        described = people.run(people_now, people_ranges, partial(people_rows, decoder, hasher), reading, on_progress)
        door = Door(
            hasher,
            ConsentHistory.of(read_all(lakehouse.existing("privacy.consents"), tables.CONSENTS)),
            ProfileRegistry.of(read_all(lakehouse.existing("privacy.profiles"), tables.PROFILES)),
            essential_events(),
        )
        admission = EventAdmission(decoder, door, quarantine_key(settings), now.cluster_id, int(time.time() * 1000))
        counts = events.run(merged, event_ranges, admission, reading, on_progress)
        _fill(report, wanted, counts, described)
    return report


def _fill(report: StationReport, topics: Sequence[str], counts: dict[str, int], described: dict[str, int]) -> None:
    def of(prefix: str, counted: dict[str, int] = counts) -> dict[str, int]:
        return {name.removeprefix(prefix): n for name, n in sorted(counted.items()) if name.startswith(prefix)}

    report.read = {"topics": len(topics), "messages": counts.get("messages", 0)}
    report.did = {f"dropped: {reason}": n for reason, n in of("dropped ").items()}
    report.did |= {f"set aside: {reason}": n for reason, n in of("quarantined ").items()}
    report.did |= {f"admitted: {event}": n for event, n in of("event ").items()}
    report.wrote = {**of("wrote "), **of("wrote ", described)}


@dataclass(frozen=True)
class EventAdmission:
    """Messages through the door: rows for bronze and for quarantine."""

    decoder: MessageDecoder
    door: Door
    key: bytes
    cluster_id: str
    run_ms: int

    def __call__(self, source: OffsetRange, messages: Sequence[Message]) -> Rows:
        """Decode, admit, and say what became of each message."""
        offsets = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
        decoded = self.decoder.decode(messages)
        set_aside = list(decoded.bad)
        counts: dict[str, int] = {}
        admitted: list[pa.Table] = []
        for schema, rows, at in decoded.events:
            admission = self.door.admit(schema, rows)
            admitted.append(self._with_origin(admission.rows, source, offsets[at[admission.kept]]))
            counts[f"event {schema.name}"] = len(admission.kept)
            add_counts(counts, admission.dropped, "dropped ")
            for reason, indices in admission.rejected.items():
                set_aside += [SetAside(int(at[index]), reason, None) for index in indices]
        set_aside.sort(key=lambda one: one.index)
        for one in set_aside:
            add_counts(counts, {f"quarantined {one.reason}": 1})
        sealed = quarantine_rows(self.key, messages, set_aside)
        found = {
            "quarantine.events": self._with_origin(
                sealed, source, offsets[np.asarray([one.index for one in set_aside], np.int64)]
            )
        }
        if admitted:
            found["bronze.events"] = pa.concat_tables(admitted, promote_options="default")
        return Rows(found, counts)

    def _with_origin(self, rows: pa.Table, source: OffsetRange, offsets: np.ndarray) -> pa.Table:
        count = rows.num_rows
        origin = {
            "cluster_id": pa.repeat(pa.scalar(self.cluster_id), count),
            "topic": pa.repeat(pa.scalar(source.topic), count),
            "partition": pa.repeat(pa.scalar(source.partition, pa.int32()), count),
            "offset": pa.array(offsets, pa.int64()),
            "ingested_at": pa.repeat(pa.scalar(self.run_ms, pa.timestamp("ms", tz="UTC")), count),
        }
        for name, values in origin.items():
            rows = rows.append_column(name, values)
        return rows


def people_rows(
    decoder: MessageDecoder, hasher: Pseudonymizer, source: OffsetRange, messages: Sequence[Message]
) -> Rows:
    """Rows of the profile and consent registries among messages of `user.events`."""
    offsets = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
    kept: dict[str, pa.Table] = {}
    for schema, rows, at in decoder.decode(messages).events:
        target = {"profile.updated": tables.PROFILES, "consent.changed": tables.CONSENTS}.get(schema.name)
        if target is None:
            continue
        key = target.names[0]
        rows = rows.append_column("offset", pa.array(offsets[at]))
        for name in ("user_id", "profile_id"):
            rows = rows.set_column(rows.column_names.index(name), name, hasher.hash_column(rows[name]))
        rows = rows.filter(rows[key].is_valid())
        name = "privacy.profiles" if schema.name == "profile.updated" else "privacy.consents"
        kept[name] = rows.select([*target.names, "offset"])
    return Rows(kept, {})


def essential_events() -> frozenset[str]:
    """Events kept whatever a person's consent: the list in configs/essential_events.yaml."""
    listed = yaml.safe_load((PROJECT_ROOT / "configs" / "essential_events.yaml").read_text())
    return frozenset(listed["essential_events"])
