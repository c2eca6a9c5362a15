"""Clean.

input   the snapshots of `bronze.events` that have not been cleaned yet, and rows that waited for their profile
does    settles whose profile it is, validates, keeps one row an event id whatever the distance in time, says what was
        known of content and subscription at the time, puts playbacks together
output  Iceberg `silver.{domain}`, a table a domain; `silver.titles` and `silver.subscriptions`, what was known when;
        `silver.playback_sessions`

Every table is committed on its own: its files, the bronze snapshot they came from, and what became of every row. A run
that is killed between two commits leaves the rest to the next one.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyiceberg.table import Table

from features.consent import ConsentHistory
from features.decision import Registries
from features.profiles import ProfileRegistry
from pipelines.cluster import run_tasks
from pipelines.contract.events import load_contract
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of, replace_files
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import live_files, read_snapshot
from pipelines.report import StationReport, add_counts, timed
from pipelines.secrets import pseudonymizer
from pipelines.settings import Settings
from pipelines.silver.enrichment import Knowledge
from pipelines.silver.filling import Job, fill
from pipelines.silver.histories import History
from pipelines.silver.memory import Memory
from pipelines.silver.rules import VALID
from pipelines.silver.sessions import PLAYBACK, SESSIONS, update_sessions
from pipelines.silver.settling import Settling
from pipelines.silver.sources import BRONZE_SNAPSHOT, STALE_MS, BronzeFiles, Part
from pipelines.silver.targets import SUBSCRIPTIONS, TITLES, Target, targets
from pipelines.silver.work import Cleaner, Judged, TableWork, Written

BRONZE, PROFILES, CONSENTS = "bronze.events", "privacy.profiles", "privacy.consents"
COUNTS = "reel.counts"
# Of a table's progress: since when rows wait for their profile, and as of when they were last judged.
OLDEST_WAITING, JUDGED, INPUTS = "oldest_waiting_ms", "judged_ms", "inputs"

OnProgress = Callable[[int, int], None]


def clean(settings: Settings, *, on_progress: OnProgress = lambda done, total: None) -> StationReport:
    """Bring silver up to date with bronze; `on_progress` hears of tables done and in all."""
    return Cleaning(settings).run(on_progress)


class Cleaning:
    """Everything clean needs, opened once, so that it can be run again and again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lakehouse = Lakehouse.open(settings)
        contract, cut = load_contract(settings.schemas), settings.lakehouse.event_partition
        self._bronze_spec = tables.bronze_events(contract, cut)
        self._sessions_spec = tables.silver_playback_sessions(cut)
        self._targets = targets(contract, cut)
        self._pseudonymizer = pseudonymizer(settings)
        self._wait_ms = settings.privacy.undescribed_profile_ms
        self._memory = Memory()

    def run(self, on_progress: OnProgress = lambda done, total: None) -> StationReport:
        """Clean what there is now."""
        names = [*(target.name for target in self._targets), SESSIONS]
        with timed("clean") as report, lineage.run(self._settings, "clean") as made:
            report.wrote = dict.fromkeys(names, 0)
            bronze = self._lakehouse.table(self._bronze_spec)
            snapshot = bronze.current_snapshot()
            if snapshot is None:
                return report
            profiles_at, profiles = self._memory.rows_of(self._lakehouse, PROFILES, tables.PROFILES)
            _, consents = self._memory.rows_of(self._lakehouse, CONSENTS, tables.CONSENTS)
            known = Registries(ConsentHistory.of(consents), ProfileRegistry.of(profiles))
            now_ms = int(time.time() * 1000)
            settling = Settling(known, self._pseudonymizer, now_ms, self._wait_ms)
            run = _Run(
                self._lakehouse, self._memory, made, report, BronzeFiles(bronze), snapshot.snapshot_id,
                settling, profiles_at,
            )  # fmt: skip
            for done, _ in enumerate(run.fill_tables(self._targets)):
                on_progress(done + 1, len(names))
            run.update_sessions(self._lakehouse.table(self._sessions_spec))
            on_progress(len(names), len(names))
        return report


@dataclass(frozen=True)
class _News:
    """What one table has to read; `waits_ms`: since when rows wait that need not be read again yet."""

    target: Target
    table: Table
    parts: tuple[Part, ...]
    progress: dict[str, Any]
    waits_ms: int | None


@dataclass(frozen=True)
class _Run:
    """One run over all tables."""

    lakehouse: Lakehouse
    memory: Memory
    made: lineage.Run
    report: StationReport
    bronze: BronzeFiles
    bronze_at: int
    settling: Settling
    profiles_at: int | None

    def fill_tables(self, chosen: Sequence[Target]) -> Iterator[str]:
        """Fill what is known of content and viewers first, then every domain; yields each table's name when done."""
        by_name = {target.name: target for target in chosen}
        histories = [by_name.pop(name) for name in (TITLES, SUBSCRIPTIONS)]
        yield from self._fill(histories, self._knowledge())
        yield from self._fill(list(by_name.values()), self._knowledge())

    def update_sessions(self, sessions: Table) -> None:
        """Put the playbacks together that have new events."""
        playback = self.memory.tables[PLAYBACK]
        self.report.wrote[SESSIONS] = update_sessions(sessions, playback, self.made).sessions

    def _knowledge(self) -> Knowledge:
        _, titles = self.memory.rows_of(self.lakehouse, TITLES, tables.TITLE_HISTORY)
        _, subscriptions = self.memory.rows_of(self.lakehouse, SUBSCRIPTIONS, tables.SUBSCRIPTIONS)
        return Knowledge(History.of(titles, "content_id"), History.of(subscriptions, "user_id"))

    def _fill(self, chosen: Sequence[Target], knowledge: Knowledge) -> Iterator[str]:
        news = {target.name: self._news(target) for target in chosen}
        yield from (name for name, one in news.items() if one is None)
        wanted = {name: one for name, one in news.items() if one is not None}
        cleaner = Cleaner(TableFiles.of(self.bronze.table), knowledge, self.settling, self._earlier(wanted.values()))
        for written in self._written(cleaner, wanted):
            self._commit(wanted[written.table], written)
            yield written.table

    def _written(self, cleaner: Cleaner, wanted: dict[str, _News]) -> Iterator[Written]:
        """Nothing, without a task, for tables that are only to record how far they have come."""
        yield from (Written(name, [], {}) for name, one in wanted.items() if not one.parts)
        jobs = [self._job(one) for one in wanted.values() if one.parts]
        titles = [job for job in jobs if job.work.name == TITLES]
        if titles:
            yield from run_tasks(partial(_announce, cleaner), titles)
        yield from fill(cleaner, [job for job in jobs if job.work.name != TITLES])

    def _news(self, target: Target) -> _News | None:
        """What the table has to read; None when there is nothing to read or to record."""
        seen = self.memory.tables.get(target.name)
        if seen is not None and not self._asks_for_a_run(self._news_of(target, seen)):
            return None
        self.memory.tables[target.name] = table = self.lakehouse.table(target.spec)
        news = self._news_of(target, table)
        return news if self._asks_for_a_run(news) else None

    def _news_of(self, target: Target, table: Table) -> _News:
        progress = progress_of(table)
        fresh = self.bronze.new_for(
            target, self.bronze.later_of(progress.get(BRONZE_SNAPSHOT), self.memory.looked_at.get(target.name))
        )
        waits_ms = progress.get(OLDEST_WAITING)
        if waits_ms is None or self._still_waits(progress):
            return _News(target, table, tuple(fresh), progress, waits_ms)
        waiting = self.bronze.waiting_for(target, waits_ms, fresh)
        return _News(target, table, (*fresh, *waiting), progress, None)

    def _still_waits(self, progress: dict[str, Any]) -> bool:
        """Nobody was described since, and the oldest row has not waited long enough."""
        is_same = progress.get(INPUTS, {}).get(PROFILES) == self.profiles_at
        return is_same and self.settling.now_ms - int(progress[OLDEST_WAITING]) < self.settling.wait_ms

    def _asks_for_a_run(self, news: _News) -> bool:
        if news.parts:
            return True
        self.memory.looked_at[news.target.name] = self.bronze_at
        recorded = news.progress.get(BRONZE_SNAPSHOT)
        return recorded is None or self.bronze.age_ms(recorded) > STALE_MS

    def _job(self, news: _News) -> Job:
        judged = _judged(news.progress)
        work = TableWork(news.target.name, TableFiles.of(news.table), tuple(news.target.spec.schema.names), judged)
        return Job(work, news.parts, tuple(self.memory.known_files(news.table)))

    def _earlier(self, news: Iterable[_News]) -> dict[Judged, Settling]:
        """What was known of profiles when rows were judged that have waited since."""
        earlier: dict[Judged, Settling] = {}
        registries: dict[int | None, ProfileRegistry] = {}
        for one in news:
            judged = _judged(one.progress)
            if judged is None or judged in earlier or not any(part.has_waited for part in one.parts):
                continue
            if judged.profiles_at not in registries:
                table = self.lakehouse.existing(PROFILES)
                registries[judged.profiles_at] = ProfileRegistry.of(
                    read_snapshot(table, judged.profiles_at, tables.PROFILES)
                )
            known = replace(self.settling.known, profiles=registries[judged.profiles_at])
            earlier[judged] = Settling(known, self.settling.pseudonymizer, judged.at_ms, self.settling.wait_ms)
        return earlier

    def _commit(self, news: _News, written: Written) -> None:
        waits = [ms for ms in (news.waits_ms, written.oldest_waiting_ms) if ms is not None]
        progress: dict[str, Any] = {BRONZE_SNAPSHOT: self.bronze_at}
        if waits:
            # What is known of profiles now is pinned: it tells later which rows have waited.
            pinned = {PROFILES: self.profiles_at} if self.profiles_at is not None else {}
            progress |= {OLDEST_WAITING: min(waits), JUDGED: self.settling.now_ms, INPUTS: pinned}
        # Rows that have waited came with earlier snapshots, of which it is not recorded which.
        has_waited = any(part.has_waited for part in news.parts)
        read = (None if has_waited else news.progress.get(BRONZE_SNAPSHOT), self.bronze_at)
        facts = self.made.facts(lineage.Inputs(appended={BRONZE: read}, tables=self._consulted()))
        facts |= {COUNTS: json.dumps(written.counts, sort_keys=True)}
        if written.is_rewritten:
            table = replace_files(news.table, live_files(news.table), written.files, progress, facts)
            self.memory.rewritten(self.made.wrote(table))
        else:
            table = commit_files(news.table, written.files, progress, facts)
            self.memory.appended(written.files, self.made.wrote(table))
        self._count(written)

    def _consulted(self) -> dict[str, int]:
        """Tables that decided what became of the rows, and what they are told."""
        known = {PROFILES: self.profiles_at, **{name: self.memory.seen_at(name) for name in (TITLES, SUBSCRIPTIONS)}}
        return {name: snapshot_id for name, snapshot_id in known.items() if snapshot_id is not None}

    def _count(self, written: Written) -> None:
        counts = dict(written.counts)
        self.report.read[f"{BRONZE} for {written.table}"] = sum(counts.values())
        self.report.wrote[written.table] = counts.pop(VALID, 0)
        add_counts(self.report.did, counts, f"{written.table}: ")


def _judged(progress: dict[str, Any]) -> Judged | None:
    if OLDEST_WAITING not in progress:
        return None
    return Judged(progress[INPUTS].get(PROFILES), progress[JUDGED])


def _announce(cleaner: Cleaner, job: Job) -> Written:
    return cleaner.announce(job.work, job.parts, [file.path for file in job.known])
