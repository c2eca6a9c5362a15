"""Build features.

input   silver: what people watched, did and were told, and the titles
does    every declared feature group for every entity it has; consent is asked for every row
output  Iceberg `features.{group}_by_{entity}` (offline), and the same in the online store, as of the newest event
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from features.backfill import backfill
from features.declarations import FeatureGroup
from features.entities import entity
from features.groups import GROUPS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.purposes import Purpose
from features.source import Source
from features.sources import SOURCES
from features.tiles import tiles
from features.windows import Cadence, valued_at_ms
from pipelines.cluster import buckets_for, run_tasks, shuffle
from pipelines.contract.events import load_contract
from pipelines.errors import ReelError
from pipelines.feature_logs import CutLog, Logs, Reading, check_sources, shared_tables, silver_schemas
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import newest_event_ms, read_tasks, scan_of_bucket, scan_tasks
from pipelines.online import OnlineTarget, materialize_context, most_viewed
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.viewing import PLAYBACK


class NothingToBuildError(ReelError):
    """Silver is empty."""

    def __init__(self) -> None:
        super().__init__(
            "nothing to build features from: silver.playback is empty; run `reel ingest`, then `reel clean`"
        )


@dataclass(frozen=True)
class Target:
    """One table of features: a group, for one of its entities."""

    group: FeatureGroup
    entity: str

    @property
    def name(self) -> str:
        """The Iceberg table's name."""
        return f"features.{self.group.stored_as(self.entity)}"

    def empty(self) -> pa.Table:
        """No boundary rows."""
        return self.group.row_schema(self.entity).empty_table()

    def spec(self, buckets: int) -> tables.TableSpec:
        """Tiles for groups valued at every event, boundary rows for the others."""
        is_event = self.group.cadence is Cadence.EVENT
        schema = self.group.tile_schema(self.entity) if is_event else self.group.row_schema(self.entity)
        stored = pa.schema([pa.field(f.name, tables.stored_type(f.type)) for f in schema])
        return tables.TableSpec(self.name, stored, ((self.entity, f"bucket[{buckets}]"),))


@dataclass(frozen=True)
class BucketBuilt:
    """One bucket of entities: the files of each table, and what was counted."""

    files: dict[str, list[DataFile]]
    entities: dict[str, int]
    popular: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Builder:
    """All that a task needs to build one bucket of an entity, from one source."""

    targets: dict[str, tuple[Target, TableFiles]]
    online: OnlineTarget

    def __call__(self, _: int, parts: Sequence[pa.Table]) -> BucketBuilt:
        """Build every target from the bucket's log, write its files, and bring the online store up to date."""
        log = pa.concat_tables(parts)
        files: dict[str, list[DataFile]] = {}
        entities: dict[str, int] = {}
        popular: list[tuple[str, int]] = []
        for name, (target, table) in self.targets.items():
            rows = self._rows(target, log)
            files[name] = write_files(table, rows)
            entities[name] = self.online.put(target.group, target.entity, rows)
            if target.group.name == CONTENT_POPULARITY.name:  # equal, not the same: it came in a task
                popular += most_viewed(target.entity, rows)
        return BucketBuilt(files, entities, popular)

    def _rows(self, target: Target, log: pa.Table) -> pa.Table:
        """Tiles of an event group; of any other, the values at every boundary a service could know by now."""
        group = target.group
        if group.cadence is Cadence.EVENT or log.num_rows == 0:
            return tiles(group, target.entity, log) if group.cadence is Cadence.EVENT else target.empty()
        first_ms = int(log["event_timestamp"].cast(pa.int64()).to_numpy().min())
        last_ms = int(valued_at_ms(self.online.as_of_ms, group.cadence, group.delay))
        return backfill(group, target.entity, log, first_ms, last_ms + 1)


def build_features(
    settings: Settings, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> StationReport:
    """Build all groups from all of silver, unless silver, consent and declarations are as they were."""
    with timed("features") as report, lineage.run(settings, "features") as made:
        contract = load_contract(settings.schemas)
        schemas = silver_schemas(contract, settings.lakehouse.event_partition)
        check_sources(SOURCES, contract, schemas)
        lakehouse = Lakehouse.open(settings)
        newest_ms = newest_event_ms(lakehouse.existing(PLAYBACK))
        if newest_ms is None:
            raise NothingToBuildError
        now_ms = int(time.time() * 1000)
        shared = shared_tables(lakehouse, SOURCES)
        buckets = settings.lakehouse.buckets
        work = []
        for share, targets in _shares().items():
            reading = Reading.of(
                lakehouse, _sources(targets), share.purpose, now_ms if share.is_personal else None, schemas
            )
            work.append(_Work(reading, {target: lakehouse.table(target.spec(buckets)) for target in targets}))
        for one in work:
            report.read |= one.reading.rows
        report.read |= {name: table.num_rows for name, table in shared.items()}
        inputs = str([one.records() for one in work])
        steps = 2 * len(work)
        if OnlineTarget(settings.online_store_url, newest_ms).is_current(inputs):
            report.did = {"already built": "from these snapshots and declarations"}
            return report
        logs: list[Logs] = []
        for done, one in enumerate(work):
            logs.append(one.reading.gather(shared, buckets))
            add_counts(report.did, {f"left out by {one.name}: {why}": n for why, n in logs[-1].excluded.items()})
            on_progress(done + 1, steps)
        newest_ms = max(newest_ms, *(one.newest_ms for one in logs if one.newest_ms is not None))
        online = OnlineTarget(settings.online_store_url, newest_ms + 1 + _longest_event_delay_ms())
        entities: dict[str, int] = {}
        popular: list[tuple[str, int]] = []
        for done, one in enumerate(work):
            for built in one.build(logs[done], online, buckets, report, made):
                add_counts(entities, built.entities)
                popular += built.popular
            on_progress(len(work) + done + 1, steps)
        add_counts(report.did, _sweep(online, work, buckets))
        report.wrote |= {f"online {name.removeprefix('features.')}": count for name, count in entities.items()}
        report.wrote |= materialize_context(lakehouse, online, shared["silver.titles"], popular, inputs)
    return report


def _longest_event_delay_ms() -> int:
    """The newest event counts in an event group's value this long after it; only then is every tile whole."""
    return max(group.delay for group in GROUPS if group.cadence is Cadence.EVENT)


@dataclass(frozen=True)
class _Share:
    """What targets must have in common to be made from one reading of silver."""

    together: str
    is_personal: bool  # else what was allowed when it was published stays (spec 8.2)
    purpose: Purpose


def _shares() -> dict[_Share, list[Target]]:
    shares: dict[_Share, list[Target]] = {}
    for group in GROUPS:
        for key in group.entities:
            share = _Share(group.source.together, entity(key).is_personal, group.purpose)
            shares.setdefault(share, []).append(Target(group, key))
    return shares


def _sources(targets: Sequence[Target]) -> list[Source]:
    return list({target.group.source.name: target.group.source for target in targets}.values())


@dataclass
class _Work:
    """The targets made from one reading: built entity by entity, each committed to its own table."""

    reading: Reading
    tables: dict[Target, Table]

    @property
    def name(self) -> str:
        """The entities it is about."""
        return ", ".join(dict.fromkeys(target.entity for target in self.tables))

    def records(self) -> list[dict[str, object]]:
        """What each table is built from."""
        return [self._record(target) for target in self.tables]

    def build(
        self, logs: Logs, online: OnlineTarget, buckets: int, report: StationReport, made: lineage.Run
    ) -> Iterator[BucketBuilt]:
        """Build bucket by bucket, then put each table's new files in the place of its old ones, in one commit."""
        files: dict[Target, list[DataFile]] = {target: [] for target in self.tables}
        cut = buckets_for(sum(self.reading.rows.values()), buckets)
        for source, key in dict.fromkeys((target.group.source.name, target.entity) for target in self.tables):
            targets = [one for one in self.tables if (one.group.source.name, one.entity) == (source, key)]
            builder = Builder({one.name: (one, TableFiles.of(self.tables[one])) for one in targets}, online)
            for built in shuffle(logs.gathered, CutLog(source, key, cut), builder, cut):
                for one in targets:
                    files[one] += built.files[one.name]
                yield built
        for target, table in self.tables.items():
            stale = [task.file for task in scan_tasks(table)]
            facts = made.facts(lineage.Inputs(tables=self._snapshots(target)))
            self.tables[target] = made.wrote(replace_files(table, stale, files[target], self._record(target), facts))
            report.wrote[target.name] = sum(file.record_count for file in files[target])

    def _record(self, target: Target) -> dict[str, object]:
        return {"inputs": self._snapshots(target), "fingerprint": target.group.fingerprint.hex()}

    def _snapshots(self, target: Target) -> dict[str, int]:
        """Of the tables that the target is made from, and of those that decide on consent."""
        source = target.group.source
        named = {*source.reads, *source.shared, "privacy.consents", "privacy.profiles"}
        return {name: snapshot for name, snapshot in self.reading.snapshots.items() if name in named}


def _sweep(online: OnlineTarget, work: Sequence[_Work], buckets: int) -> dict[str, int]:
    """Delete from the online store who is in no group's table any more; how many, by entity."""
    by_entity: dict[str, list[tuple[Target, Table]]] = {}
    for one in work:
        for target, table in one.tables.items():
            by_entity.setdefault(target.entity, []).append((target, table))
    gone = {}
    for key, targets in by_entity.items():
        groups = [target.group for target, _ in targets]
        stored = [(TableFiles.of(table), scan_tasks(table)) for _, table in targets]
        count = sum(run_tasks(partial(_sweep_bucket, online, groups, key, stored, buckets), range(buckets)))
        if count:
            gone[f"no longer online by {key}"] = count
    return gone


def _sweep_bucket(
    online: OnlineTarget,
    groups: Sequence[FeatureGroup],
    key: str,
    stored: Sequence[tuple[TableFiles, Sequence[FileScanTask]]],
    buckets: int,
    bucket: int,
) -> int:
    known = [read_tasks(table, scan_of_bucket(files, bucket), [key])[key] for table, files in stored]
    return online.sweep(
        groups, key, pa.chunked_array([chunk for one in known for chunk in one.chunks], pa.string()), bucket, buckets
    )
