"""Build features.

input   silver: what was watched, and the titles
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
from features.groups import GROUPS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.playbacks import viewing_log
from features.purposes import Purpose
from features.tiles import tiles
from features.windows import Cadence, valued_at_ms
from pipelines.cluster import buckets_for, run_tasks, shuffle
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import newest_event_ms, read_all, read_tasks, scan_of_bucket, scan_tasks
from pipelines.online import OnlineTarget, materialize_context, most_viewed
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.viewing import Viewing, excluded_in

# A group is shuffled by the column that brings together all that its entities need: a user has several profiles.
SHUFFLE_KEY = {"user_id": "user_id", "profile_id": "user_id", "content_id": "content_id"}
# Groups of these entities say nothing about a person: what was allowed when it was published stays (spec 8.2).
IMPERSONAL = {"content_id"}


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
    excluded: dict[str, int]
    entities: dict[str, int]
    popular: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Builder:
    """All that a task needs to build one bucket."""

    targets: dict[str, tuple[Target, TableFiles]]
    titles: pa.Table
    online: OnlineTarget

    def __call__(self, _: int, parts: Sequence[pa.Table]) -> BucketBuilt:
        """Build every target from the bucket's rows, write its files, and bring the online store up to date."""
        log = viewing_log(pa.concat_tables(parts).replace_schema_metadata(None), self.titles)
        files: dict[str, list[DataFile]] = {}
        entities: dict[str, int] = {}
        popular: list[tuple[str, int]] = []
        for name, (target, table) in self.targets.items():
            rows = self._rows(target, log)
            files[name] = write_files(table, rows)
            entities[name] = self.online.put(target.group, target.entity, rows)
            if target.group.name == CONTENT_POPULARITY.name:  # equal, not the same: it came in a task
                popular += most_viewed(target.entity, rows)
        return BucketBuilt(files, excluded_in(parts), entities, popular)

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
        lakehouse = Lakehouse.open(settings)
        watermark_ms = newest_event_ms(lakehouse.existing("silver.playback"))
        if watermark_ms is None:
            raise NothingToBuildError
        now_ms = int(time.time() * 1000)
        titles = read_all(lakehouse.existing("silver.titles"), tables.TITLES)
        online = OnlineTarget(settings.online_store_url, watermark_ms + 1 + _longest_event_delay_ms())
        buckets = settings.lakehouse.buckets
        work = [
            _Work(viewing, key, {target: lakehouse.table(target.spec(buckets)) for target in targets})
            for key, targets in _targets_by_key().items()
            if (viewing := Viewing.of(lakehouse, _purpose(targets), None if key in IMPERSONAL else now_ms)) is not None
        ]
        report.read = {"silver.playback": work[0].viewing.rows, "silver.titles": titles.num_rows}
        inputs = str([one.records() for one in work])
        if online.is_current(inputs):
            report.did = {"already built": "from these snapshots and declarations"}
            return report
        entities: dict[str, int] = {}
        popular: list[tuple[str, int]] = []
        for done, one in enumerate(work):
            for built in one.build(titles, online, buckets, report, made):
                add_counts(entities, built.entities)
                popular += built.popular
            on_progress(done + 1, len(work))
        report.wrote |= {f"online {name.removeprefix('features.')}": count for name, count in entities.items()}
        report.wrote |= materialize_context(lakehouse, online, titles, popular, inputs)
    return report


def _longest_event_delay_ms() -> int:
    """The newest event counts in an event group's value this long after it; only then is every tile whole."""
    return max(group.delay for group in GROUPS if group.cadence is Cadence.EVENT)


def _targets_by_key() -> dict[str, list[Target]]:
    by_key: dict[str, list[Target]] = {}
    for group in GROUPS:
        for entity in group.entities:
            by_key.setdefault(SHUFFLE_KEY[entity], []).append(Target(group, entity))
    return by_key


def _purpose(targets: Sequence[Target]) -> Purpose:
    purposes = {target.group.purpose for target in targets}
    assert len(purposes) == 1, "groups that share a shuffle share its decision on consent"
    return purposes.pop()


@dataclass
class _Work:
    """The targets that share a shuffle: built together, each committed to its own table."""

    viewing: Viewing
    key: str
    tables: dict[Target, Table]

    def records(self) -> list[dict[str, object]]:
        """What each table is built from."""
        return [self._record(target) for target in self.tables]

    def build(
        self, titles: pa.Table, online: OnlineTarget, buckets: int, report: StationReport, made: lineage.Run
    ) -> Iterator[BucketBuilt]:
        """Build bucket by bucket, then put each table's new files in the place of its old ones, in one commit."""
        targets = {target.name: (target, TableFiles.of(table)) for target, table in self.tables.items()}
        files: dict[str, list[DataFile]] = {name: [] for name in targets}
        cut = buckets_for(self.viewing.rows, buckets)
        split = self.viewing.splitter(self.key, cut)
        for built in shuffle(self.viewing.file_groups(), split, Builder(targets, titles, online), cut):
            for name in files:
                files[name] += built.files[name]
            add_counts(report.did, {f"left out by {self.key}: {why}": n for why, n in built.excluded.items()})
            yield built
        for target, table in self.tables.items():
            stale = [task.file for task in scan_tasks(table)]
            facts = made.facts(lineage.Inputs(tables=self.viewing.snapshots))
            table = made.wrote(replace_files(table, stale, files[target.name], self._record(target), facts))
            report.wrote[target.name] = sum(file.record_count for file in files[target.name])
            sweep = partial(_sweep, online, target, TableFiles.of(table), scan_tasks(table), buckets)
            gone = sum(run_tasks(sweep, range(buckets)))
            add_counts(report.did, {f"no longer online by {target.entity}": gone} if gone else {})

    def _record(self, target: Target) -> dict[str, object]:
        return {"inputs": self.viewing.snapshots, "fingerprint": target.group.fingerprint.hex()}


def _sweep(
    online: OnlineTarget, target: Target, table: TableFiles, files: Sequence[FileScanTask], buckets: int, bucket: int
) -> int:
    known = read_tasks(table, scan_of_bucket(files, bucket), [target.entity])[target.entity].unique()
    return online.sweep(target.group, target.entity, known, bucket, buckets)
