"""Build features.

input   silver: what people watched, did and were told, and the titles
does    what changed since the last build, of every declared feature group for every entity it has; consent is asked
        for every row
output  Iceberg `features.{group}_by_{entity}` (offline), and the same in the online store, as of the newest event

A table is built by one commit that also records what it was built from, so that a run that ended in the middle goes
on with the tables that are not there yet, and one that finds nothing new writes nothing. Rows are committed before the
tiles that they are made of: tiles that are behind only mean that what is new is looked at once more.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import pyarrow as pa
from pyiceberg.table import FileScanTask, Table

from features.declarations import FeatureGroup
from features.entities import entity as entity_of
from features.groups import GROUPS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.purposes import Purpose
from features.source import Source
from features.sources import SOURCES
from features.windows import Cadence, valued_at_ms
from pipelines.cluster import Regrouping, buckets_for, regroup, run_tasks
from pipelines.contract.events import load_contract
from pipelines.errors import ReelError
from pipelines.feature_builder import Builder, Files, Place, TargetBuilt
from pipelines.feature_changes import CannotTellError, Changes
from pipelines.feature_logs import Logs, Reading, check_sources, shared_tables, silver_schemas
from pipelines.feature_scope import Scope
from pipelines.feature_tables import Built, Stored, Target, declared
from pipelines.feature_tiles import CutTiles, JoinTiles, KeepTiles
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import replace_files
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import live_files, newest_event_ms, read_tasks, scan_of_bucket, scan_tasks
from pipelines.online import OnlineTarget, materialize_context, most_viewed
from pipelines.online_people import publish_people
from pipelines.packed import packed
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.viewing import PLAYBACK

Running = TypeVar("Running")
# Tasks that cut what others made tiles of: more would give more, and shorter, parts for every bucket.
MOST_CUTS = 16


class NothingToBuildError(ReelError):
    """Silver is empty."""

    def __init__(self) -> None:
        super().__init__(
            "nothing to build features from: silver.playback is empty; run `reel ingest`, then `reel clean`"
        )


def build_features(
    settings: Settings, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> StationReport:
    """Bring all groups up to date with silver, unless silver, consent and declarations are as they were."""
    with timed("features") as report, lineage.run(settings, "features") as made:
        made.serves(*(group.purpose for group in GROUPS))
        contract = load_contract(settings.schemas)
        schemas = silver_schemas(contract, settings.lakehouse.event_partition)
        check_sources(SOURCES, contract, schemas)
        lakehouse = Lakehouse.open(settings)
        newest_ms = newest_event_ms(lakehouse.existing(PLAYBACK))
        if newest_ms is None:
            raise NothingToBuildError
        now_ms = int(time.time() * 1000)
        shared = shared_tables(lakehouse, SOURCES)
        buckets, online = settings.lakehouse.buckets, OnlineTarget(settings.online_store_url, newest_ms)
        work = []
        for share, targets in _shares().items():
            reading = Reading.of(
                lakehouse, _sources(targets), share.purpose, now_ms, schemas, is_personal=share.is_personal
            )
            stored = {one: _Stored.open(lakehouse, one, buckets) for one in targets}
            work.append(_Work(share, reading, stored, now_ms, buckets, settings.privacy.least_viewers))
        for one in work:
            report.read |= one.reading.rows
        report.read |= {name: table.num_rows for name, table in shared.items()}
        inputs = str([one.records() for one in work])
        steps = 2 * len(work)
        if online.is_current(inputs):
            report.did = {"already built": "from these snapshots and declarations"}
            return report
        begun = online.begin()
        store, has_lost = begun.identity, begun.was_interrupted
        for done, one in enumerate(work):
            one.look_for_changes(lakehouse, shared["silver.titles"], store, report)
            one.gather(shared, report)
            newest_ms = max([newest_ms, *one.newest_ms])
            on_progress(done + 1, steps)
        online = OnlineTarget(settings.online_store_url, newest_ms + 1 + _longest_event_delay_ms())
        entities: dict[str, int] = {}
        for done, one in enumerate(work):
            for target, built in one.build(online, store, newest_ms, report, made):
                add_counts(entities, {target.name: built.online})
                has_lost |= built.has_lost
            has_lost |= one.scope is None and not begun.was_empty
            on_progress(len(work) + done + 1, steps)
        if has_lost:
            add_counts(report.did, _sweep(online, work, buckets))
        report.wrote |= {f"online {name.removeprefix('features.')}": count for name, count in entities.items()}
        popular = [title for one in work for title in one.popular()]
        report.wrote |= materialize_context(lakehouse, online, shared["silver.titles"], popular, inputs)
        publish_people(lakehouse, settings.online_store_url)  # what was heard while this was built
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
            share = _Share(group.source.together, entity_of(key).is_personal, group.purpose)
            shares.setdefault(share, []).append(Target(group, key))
    return shares


def _sources(targets: Sequence[Target]) -> list[Source]:
    return list({target.group.source.name: target.group.source for target in targets}.values())


@dataclass
class _Stored:
    """The tables of a target: of its tiles, and of its boundary rows if it has any; what each was built from."""

    tiles: Table
    rows: Table | None

    @classmethod
    def open(cls, lakehouse: Lakehouse, target: Target, buckets: int) -> "_Stored":
        """The tables, made if they are not there yet."""
        rows = lakehouse.table(target.spec(buckets)) if target.has_boundaries else None
        return cls(lakehouse.table(target.tile_spec(buckets)), rows)

    @property
    def read(self) -> Table:
        """The table that features are read from."""
        return self.tiles if self.rows is None else self.rows

    @property
    def built(self) -> list[Built | None]:
        """From what, table by table."""
        return [Built.of(table) for table in (self.tiles, self.rows) if table is not None]


@dataclass
class _Work:
    """The targets made from one reading: built entity by entity, each committed to its own tables."""

    share: _Share
    reading: Reading
    stored: dict[Target, _Stored]
    now_ms: int
    buckets: int
    least_viewers: int
    scope: Scope | None = None
    logs: Logs = field(default_factory=lambda: Logs({}))

    @property
    def name(self) -> str:
        """The entities it is about."""
        return ", ".join(dict.fromkeys(target.entity for target in self.stored))

    @property
    def newest_ms(self) -> list[int]:
        """The newest event that its logs know of, now and when they were last made."""
        built = [one.newest_ms for stored in self.stored.values() for one in stored.built if one is not None]
        return [*built, *([] if self.logs.newest_ms is None else [self.logs.newest_ms])]

    def records(self) -> list[dict[str, object]]:
        """What each target is built from."""
        return [{"inputs": self._snapshots(one), "declared": declared(one.group)} for one in self.stored]

    def look_for_changes(self, lakehouse: Lakehouse, titles: pa.Table, store: str, report: StationReport) -> None:
        """Find what is to be made anew."""
        personal = tuple(dict.fromkeys(one.entity for one in self.stored)) if self.share.is_personal else ()
        changes = Changes(lakehouse, self.reading, titles, self.share.purpose, personal, self.now_ms)
        try:
            self.scope = changes.scope(self._behind(store))
        except CannotTellError as error:
            self.scope = None
            report.did[f"built as a whole by {self.name}"] = str(error)
            return
        days = sum(part.days for part in self.scope.parts)
        add_counts(report.did, {f"days made anew by {self.name}": days} if days else {})

    def gather(self, shared: dict[str, pa.Table], report: StationReport) -> None:
        """Make the logs, or the part of them that is to be made anew, and of these the tiles."""
        self.logs = self.reading.gather(shared, self.buckets, self._keep, self.scope)
        add_counts(report.did, {f"left out by {self.name}: {why}": n for why, n in self.logs.excluded.items()})

    def build(
        self, online: OnlineTarget, store: str, newest_ms: int, report: StationReport, made: lineage.Run
    ) -> Iterator[tuple[Target, TargetBuilt]]:
        """Build bucket by bucket, then put each table's new files in the place of its stale ones, in one commit.

        While one entity's tables are committed the tasks of the next are at work already.
        """
        places = [self._place(target, store, online.as_of_ms) for target in self.stored]
        places = [one for one in places if one.is_new or not self._is_current(one)]
        together: dict[tuple[str, str], list[Place]] = {}
        for one in places:
            together.setdefault((one.target.group.source.name, one.target.entity), []).append(one)
        for ours, running in _one_ahead(together.values(), partial(self._start, online)):
            files = {one.target: (Files(), Files()) for one in ours}
            for built in running.results():
                uncrowded = max((one.uncrowded for one in built.values()), default=0)
                add_counts(
                    report.did,
                    {f"left out by {self.name}: children in no crowd": uncrowded} if uncrowded else {},
                )
                for target, parts in built.items():
                    files[target][0].add(parts.tiles)
                    files[target][1].add(parts.rows)
                yield from built.items()
            for one in ours:
                record = Built(self._snapshots(one.target), declared(one.target.group), store, newest_ms, self.now_ms)
                self._commit(one, files[one.target], record, report, made)
        self.logs.pieces.clear()  # those of tables that were up to date were not taken

    def _start(self, online: OnlineTarget, ours: Sequence[Place]) -> Regrouping[dict[Target, TargetBuilt]]:
        """Start the tasks that build tables of one source and entity; what is built of each bucket."""
        source, key = ours[0].target.group.source, ours[0].target.entity
        part = None if self.scope is None else self.scope.part_for(key)
        cut = self.buckets
        if self.scope is None:
            cut *= -(-buckets_for(sum(self.reading.rows.values()), self.buckets) // self.buckets)
        builder = Builder(tuple(ours), part, self.buckets, cut, online, self.now_ms, self.least_viewers)
        targets = tuple(one.target for one in ours)
        # Taken out of the logs: its room in the object store is the next ones' as soon as it was cut.
        tiled = self.logs.pieces.pop((source.name, key), None) or [_nothing_of(targets)]
        at_once = -(-len(tiled) // MOST_CUTS)
        return regroup(tiled, CutTiles(key, cut), builder, cut, at_once, JoinTiles(targets))

    def popular(self) -> Iterator[tuple[str, int]]:
        """(title, viewers of the last day) of the titles most viewed at the newest boundary."""
        for target, stored in self.stored.items():
            if target.group.name == CONTENT_POPULARITY.name and stored.rows is not None:
                rows = Stored.of(stored.rows, target.group.row_schema(target.entity))
                for found in run_tasks(partial(_most_viewed, rows, target.entity), range(self.buckets)):
                    yield from found

    @property
    def _keep(self) -> KeepTiles:
        return KeepTiles(tuple(self.stored))

    def _behind(self, store: str) -> list[tuple[Source, Built]]:
        """What tables were built from that are not up to date, each once."""
        found: list[tuple[Source, Built]] = []
        for target, stored in self.stored.items():
            for built in stored.built:
                if built is None:
                    raise CannotTellError(f"{target.name} was not built yet")
                if (built.declared, built.store) != (declared(target.group), store):
                    raise CannotTellError(f"{target.name} was declared otherwise, or is for another online store")
                one = (target.group.source, built)
                if built.inputs != self._snapshots(target) and one not in found:
                    found.append(one)
        return found

    def _place(self, target: Target, store: str, as_of_ms: int) -> Place:
        group, stored = target.group, self.stored[target]
        known = [
            one for one in stored.built if one is not None and (one.declared, one.store) == (declared(group), store)
        ]
        is_new = len(known) < len(stored.built)
        published_ms = None if is_new else known[-1].published_ms
        until_ms = max(int(valued_at_ms(as_of_ms, group.cadence, group.delay)), published_ms or 0)
        rows = None if stored.rows is None else Stored.of(stored.rows, group.row_schema(target.entity))
        tiles = Stored.of(stored.tiles, group.tile_schema(target.entity))
        return Place(target, tiles, rows, is_new, published_ms, until_ms)

    def _is_current(self, place: Place) -> bool:
        inputs = self._snapshots(place.target)
        is_as_read = all(one is not None and one.inputs == inputs for one in self.stored[place.target].built)
        return is_as_read and (place.rows is None or place.published_ms == place.until_ms)

    def _commit(
        self, place: Place, files: tuple[Files, Files], record: Built, report: StationReport, made: lineage.Run
    ) -> None:
        """The rows before the tiles."""
        target, stored = place.target, self.stored[place.target]
        if stored.rows is not None:
            of_rows = replace(record, published_ms=place.until_ms)
            stored.rows = self._committed(target, stored.rows, files[1], of_rows, report, made)
        stored.tiles = self._committed(target, stored.tiles, files[0], record, report, made)

    def _committed(
        self, target: Target, table: Table, files: Files, record: Built, report: StationReport, made: lineage.Run
    ) -> Table:
        before, source = Built.of(table), target.group.source
        stale = live_files(table) if self.scope is None else files.stale
        inputs = lineage.Inputs(tables=record.inputs)
        if self.scope is not None and before is not None:
            appended = {
                name: (before.inputs.get(name), at) for name, at in record.inputs.items() if name in source.reads
            }
            others = {name: at for name, at in record.inputs.items() if name not in source.reads}
            inputs = lineage.Inputs(appended=appended, tables=others)
        facts, followed = made.facts(inputs), tuple(source.reads)
        table = made.wrote(replace_files(table, stale, files.fresh, record.record(target.group, followed), facts))
        report.wrote[".".join(table.name())] = sum(file.record_count for file in files.fresh)
        return table

    def _snapshots(self, target: Target) -> dict[str, int]:
        """Of the tables that the target is made from, and of those that decide on consent."""
        source = target.group.source
        named = {*source.reads, *source.shared, "privacy.consents", "privacy.profiles"}
        return {name: snapshot for name, snapshot in self.reading.snapshots.items() if name in named}


def _nothing_of(targets: tuple[Target, ...]) -> bytes:
    """What is kept of an entity when nothing happened."""
    source = targets[0].group.source
    (kept,) = KeepTiles(targets)(source, source.schema.empty_table())
    return packed(kept)


def _one_ahead(
    steps: Iterable[list[Place]], start: Callable[[list[Place]], Running]
) -> Iterator[tuple[list[Place], Running]]:
    """Every step with what `start` made of it; each is started before the one before it is done with."""
    before: tuple[list[Place], Running] | None = None
    for step in steps:
        started = step, start(step)
        if before is not None:
            yield before
        before = started
    if before is not None:
        yield before


def _most_viewed(stored: Stored, entity: str, bucket: int) -> list[tuple[str, int]]:
    files = stored.files(bucket)
    newest = [one for one in files if one.last_ms == max(other.last_ms for other in files)]
    return most_viewed(entity, stored.read(newest))


def _sweep(online: OnlineTarget, work: Sequence[_Work], buckets: int) -> dict[str, int]:
    """Delete from the online store who is in a group's table no more; how many, by entity."""
    by_entity: dict[str, list[tuple[Target, Table]]] = {}
    for one in work:
        for target, made in one.stored.items():
            by_entity.setdefault(target.entity, []).append((target, made.read))
    gone = {}
    for key, targets in by_entity.items():
        stored = [(target.group, TableFiles.of(table), scan_tasks(table)) for target, table in targets]
        count = sum(run_tasks(partial(_sweep_bucket, online, key, stored, buckets), range(buckets)))
        if count:
            gone[f"no longer online by {key}"] = count
    return gone


def _sweep_bucket(
    online: OnlineTarget,
    key: str,
    stored: Sequence[tuple[FeatureGroup, TableFiles, Sequence[FileScanTask]]],
    buckets: int,
    bucket: int,
) -> int:
    known = {group: read_tasks(table, scan_of_bucket(files, bucket), [key])[key] for group, table, files in stored}
    return online.sweep(known, key, bucket, buckets)
