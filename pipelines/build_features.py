"""Build features.

input   silver: what was watched, and the titles
does    every declared feature group for every entity it has; consent is asked for every row
output  Iceberg `features.{group}_by_{entity}` (offline), and the same in the online store, as of the newest event
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.backfill import backfill
from features.declarations import FeatureGroup
from features.groups import GROUPS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.playbacks import viewing_log
from features.tiles import tiles
from features.windows import Cadence, valued_at_ms
from pipelines import tables
from pipelines.cluster import shuffle
from pipelines.errors import ReelError
from pipelines.lakehouse import (
    Lakehouse,
    TableFiles,
    newest_event_ms,
    progress_of,
    read_all,
    replace_files,
    scan_tasks,
    write_files,
)
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
    buckets: int

    def __call__(self, bucket: int, parts: Sequence[pa.Table]) -> BucketBuilt:
        """Build every target from the bucket's rows, write its files, and bring the online store up to date."""
        log = viewing_log(pa.concat_tables(parts).replace_schema_metadata(None), self.titles)
        files: dict[str, list[DataFile]] = {}
        entities: dict[str, int] = {}
        popular: list[tuple[str, int]] = []
        for name, (target, table) in self.targets.items():
            rows = self._rows(target, log)
            files[name] = write_files(table, rows)
            entities[name] = self.online.replace(target.group, target.entity, rows, bucket, self.buckets)
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
    with timed("features") as report:
        lakehouse = Lakehouse.open(settings)
        now_ms = int(time.time() * 1000)
        purposes = {group.purpose for group in GROUPS}
        assert len(purposes) == 1, "groups of several purposes need a viewing each"
        (purpose,) = purposes
        watermark_ms = newest_event_ms(lakehouse.existing("silver.playback"))
        if watermark_ms is None:
            raise NothingToBuildError
        titles = read_all(lakehouse.existing("silver.titles"), tables.TITLES)
        online = OnlineTarget(settings.online_store_url, watermark_ms + 1)
        by_key: dict[str, list[Target]] = {}
        for group in GROUPS:
            for entity in group.entities:
                by_key.setdefault(SHUFFLE_KEY[entity], []).append(Target(group, entity))
        popular: list[tuple[str, int]] = []
        for done, (key, targets) in enumerate(by_key.items()):
            viewing = Viewing.of(lakehouse, purpose, None if key in IMPERSONAL else now_ms)
            assert viewing is not None
            report.read = {"silver.playback": sum(task.file.record_count for task in viewing.files), **report.read}
            popular += _build(lakehouse, viewing, key, targets, titles, online, settings.lakehouse.buckets, report)
            on_progress(done + 1, len(by_key))
        report.read["silver.titles"] = titles.num_rows
        report.wrote |= materialize_context(lakehouse, online, titles, popular)
    return report


def _build(
    lakehouse: Lakehouse,
    viewing: Viewing,
    key: str,
    targets: Sequence[Target],
    titles: pa.Table,
    online: OnlineTarget,
    buckets: int,
    report: StationReport,
) -> list[tuple[str, int]]:
    """Build the targets that share a shuffle key; (title, viewers) of the most viewed ones."""
    made = {target.name: lakehouse.table(target.spec(buckets)) for target in targets}
    builder = Builder(
        {target.name: (target, TableFiles.of(made[target.name])) for target in targets},
        titles,
        online,
        buckets,
    )
    files: dict[str, list[DataFile]] = {name: [] for name in made}
    popular: list[tuple[str, int]] = []
    for built in shuffle(viewing.file_groups(), viewing.splitter(key, buckets), builder, buckets):
        for name in made:
            files[name] += built.files[name]
        popular += built.popular
        add_counts(report.did, built.excluded, f"rows left out of groups by {key}: ")  # type: ignore[arg-type]
        add_counts(report.wrote, built.entities, "online entities of ")  # type: ignore[arg-type]
    for target in targets:
        table = made[target.name]
        record = {"inputs": viewing.snapshots, "fingerprint": target.group.fingerprint.hex()}
        replace_files(table, [task.file for task in scan_tasks(table)], files[target.name], record)
        report.wrote[target.name] = sum(file.record_count for file in files[target.name])
    return popular


def built_from(table: Table) -> dict[str, int]:
    """The snapshots a feature table was built from."""
    inputs: dict[str, int] = progress_of(table).get("inputs", {})
    return inputs
