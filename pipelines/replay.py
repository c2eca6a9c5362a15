"""Replay.

input   sealed messages, and rows of tables, of `quarantine.events`
does    opens them, and decodes and admits them as ingest would today, rows by the mapping that their source has today
output  those that can be read by now: in `bronze.events` and the registries of people, and out of quarantine

Bronze and quarantine cannot be committed as one, so:

    1. quarantine's files are listed, and how far bronze has consumed each partition: what lies beyond is ingest's own
    2. people first: the registries get the descriptions and consents that they lack
    3. Ray tasks open, decode and admit; they leave out what bronze holds already, and write files nobody can see yet
    4. bronze gets one commit, an append: its progress stays, and clean finds these rows as it finds any others
    5. quarantine gets one commit: what stays, in the place of its files

A crash before step 4 leaves nothing but people known, and the next replay knows that they are. After a crash between
steps 4 and 5 the next replay finds its messages in bronze at step 3, and only takes them out of quarantine. Of two
replays at once the second changes nothing: its step 4 fails when another has appended since its step 1.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.admission import BRONZE, QUARANTINE
from pipelines.cluster import run_tasks
from pipelines.contract.events import load_contract
from pipelines.doorway import open_door
from pipelines.enrichment import Enricher
from pipelines.erased import Tombstones
from pipelines.ingest import PEOPLE_TOPIC
from pipelines.intake import COUNTS
from pipelines.kafka.offsets import Progress
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import ConcurrentCommitError, commit_files, progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.origins import Origins
from pipelines.lakehouse.scans import read_all, scan_tasks
from pipelines.messages import MessageDecoder
from pipelines.reopening import FRESH, HELD, Choice, Describing, Reopened, Reopening, Seals
from pipelines.report import StationReport, add_counts, timed
from pipelines.secrets import pseudonymizer, quarantine_key, tombstone_key
from pipelines.settings import Settings
from pipelines.sources.admission import strangers_topic
from pipelines.sources.reopening import ReadSources

STATION = "quarantine-replay"
BYTES_PER_TASK = 32 << 20  # of sealed messages, which nothing compresses; a task holds them a few times over


def replay(
    settings: Settings,
    *,
    reasons: Sequence[str] = (),
    topics: Sequence[str] = (),
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> StationReport:
    """Bring in what can be read by now, of `reasons` and `topics` only where given; a `dry_run` changes nothing.

    Messages that still cannot be read stay as they are; those that may not be stored leave quarantine and are counted.
    `on_progress` hears of portions of quarantine done and in all. Raises BrokenSealError for messages that were sealed
    with another key, ConcurrentCommitError when another replay, or maintenance, was faster.
    """
    with timed(STATION) as report, lineage.run(settings, STATION) as made:
        lakehouse = Lakehouse.open(settings)
        quarantine, bronze = lakehouse.existing(QUARANTINE), lakehouse.existing(BRONZE)
        report.read = {"messages": 0}
        if quarantine is not None and bronze is not None and quarantine.current_snapshot() is not None:
            chosen = tuple(reasons), tuple(topics)
            Replay(settings, lakehouse, quarantine, bronze, chosen, made, dry_run)(report, on_progress)
    return report


class Replay:
    """One replay, its steps in order."""

    def __init__(
        self,
        settings: Settings,
        lakehouse: Lakehouse,
        quarantine: Table,
        bronze: Table,
        chosen: tuple[tuple[str, ...], tuple[str, ...]],
        made: lineage.Run,
        dry_run: bool,
    ) -> None:
        snapshot_id = quarantine.metadata.current_snapshot_id
        assert snapshot_id is not None, "there are messages to replay, so there is a snapshot"
        self._settings, self._lakehouse, self._made, self._dry_run = settings, lakehouse, made, dry_run
        self._contract = load_contract(settings.schemas)
        self._quarantine, progress = quarantine, progress_of(bronze)
        self._sources = ReadSources.of(settings, self._contract, progress)
        self._choice = Choice(*chosen, Progress.from_json(progress).offsets, self._sources.consumed)
        # The contract may have gained events since, with columns of their own.
        spec = tables.bronze_events(self._contract, settings.lakehouse.event_partition)
        self._bronze = bronze if dry_run else lakehouse.table(spec)
        self._hasher, self._tombstone_key = pseudonymizer(settings), tombstone_key(settings)
        decoder = MessageDecoder(settings.registry_location, str(settings.schemas))
        self._seals = Seals(TableFiles.of(quarantine), quarantine_key(settings), decoder)
        self._facts = made.facts(lineage.Inputs(tables={QUARANTINE: snapshot_id}))

    def __call__(self, report: StationReport, on_progress: Callable[[int, int], None]) -> None:
        """Steps 1 to 5."""
        portions = list(_portions(self._files(self._choice)))
        registries = self._with_people(report)
        reopening = Reopening(
            self._seals,
            self._choice,
            self._sources.by_cluster,
            open_door(self._contract, self._hasher, Enricher.of(self._settings.enrichment), **registries),
            Origins.of(self._bronze, self._topics()),
            int(time.time() * 1000),
            writes=not self._dry_run,
        )
        counts: dict[str, int] = {}
        done: list[Reopened] = []
        for one in run_tasks(reopening, portions):
            done.append(one)
            add_counts(counts, one.counts)
            on_progress(len(done), len(portions))
        self._commit(done, counts)
        _fill(report, counts, written=0 if self._dry_run else counts.get(FRESH, 0))

    def _topics(self) -> Iterable[str]:
        """Where messages may turn out to be held: a table's row may be of any topic."""
        if self._sources.by_cluster:
            return self._contract.topics
        return self._choice.topics or self._choice.consumed

    def _files(self, choice: Choice) -> list[DataFile]:
        """Files of quarantine that may hold chosen messages."""
        return [task.file for task in scan_tasks(self._quarantine, choice.row_filter)]

    def _with_people(self, report: StationReport) -> dict[str, Any]:
        """Step 2. Everything that is then known of profiles and consents, and who is to be let in no more."""
        erased = Tombstones.read(self._lakehouse, self._tombstone_key)
        found: dict[str, list[pa.Table]] = {}
        # A table's rows that were no event of the contract may turn out to be people's.
        topics = {PEOPLE_TOPIC, *(strangers_topic(one.name) for one in self._sources.by_cluster.values())}
        wanted = topics & set(self._choice.topics or topics)
        if wanted:
            choice = replace(self._choice, topics=tuple(sorted(wanted)))
            describing = Describing(self._seals, choice, self._sources.by_cluster, self._hasher, erased)
            for described in run_tasks(describing, list(_portions(self._files(choice)))):
                for name, rows in described.items():
                    found.setdefault(name, []).extend(rows)
        asked = self._registry(tables.erasures(), found, report)
        stones = read_all(self._lakehouse.existing("privacy.tombstones"), tables.TOMBSTONES)
        return {
            "profiles": self._registry(tables.profiles(), found, report),
            "consents": self._registry(tables.consents(), found, report),
            "erased": Tombstones.of(self._tombstone_key, stones, asked),
        }

    def _registry(self, spec: tables.TableSpec, found: Mapping[str, list[pa.Table]], report: StationReport) -> pa.Table:
        table = self._lakehouse.existing(spec.name)
        known = read_all(table, spec.schema)
        fresh = _lacking(known, found.get(spec.name, []))
        if fresh.num_rows and not self._dry_run:
            table = table if table is not None else self._lakehouse.table(spec)
            files = write_files(TableFiles.of(table), fresh)
            self._made.wrote(commit_files(table, files, None, self._facts, check=_no_replay_since(table)))
            report.wrote[spec.name] = fresh.num_rows
        return pa.concat_tables([known, fresh])

    def _commit(self, done: Sequence[Reopened], counts: Mapping[str, int]) -> None:
        """Steps 4 and 5."""
        admitted = [file for one in done for file in one.admitted]
        if admitted:
            check = _no_replay_since(self._bronze)
            self._made.wrote(commit_files(self._bronze, admitted, None, self._facts, check=check))
        stale = [file for one in done for file in one.stale]
        if stale:
            left = [file for one in done for file in one.left]
            facts = {**self._facts, COUNTS: json.dumps(counts, sort_keys=True)}
            self._made.wrote(replace_files(self._quarantine, stale, left, facts=facts))


def _portions(files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """Files gathered up to `BYTES_PER_TASK`, unless a single one is larger."""
    portion: list[DataFile] = []
    size_bytes = 0
    for file in files:
        if portion and size_bytes + file.file_size_in_bytes > BYTES_PER_TASK:
            yield portion
            portion, size_bytes = [], 0
        portion.append(file)
        size_bytes += file.file_size_in_bytes
    if portion:
        yield portion


def _lacking(known: pa.Table, found: Sequence[pa.Table]) -> pa.Table:
    """The distinct rows that were found and are not known."""
    if not found:
        return known.schema.empty_table()
    rows = pa.concat_tables([one.select(known.column_names).cast(known.schema) for one in found])
    distinct = pl.DataFrame(rows).unique(maintain_order=True)
    lacking = distinct.join(pl.DataFrame(known), on=known.column_names, how="anti", nulls_equal=True)
    return lacking.to_arrow().cast(known.schema)


def _no_replay_since(table: Table) -> Callable[[Table], None]:
    """A check that no other replay has committed since `table` was read; what that brought in was not looked for."""
    read_at = table.metadata.current_snapshot_id

    def check(current: Table) -> None:
        snapshot = current.current_snapshot()
        while snapshot is not None and snapshot.snapshot_id != read_at:
            summary = snapshot.summary.additional_properties if snapshot.summary is not None else {}
            parent = snapshot.parent_snapshot_id
            snapshot = current.snapshot_by_id(parent) if parent is not None else None
            is_cut = snapshot is None and read_at is not None  # history has expired, so nobody can tell
            if is_cut or summary.get(lineage.STATION) == STATION:
                raise ConcurrentCommitError(".".join(current.name()))

    return check


def _fill(report: StationReport, counts: Mapping[str, int], written: int) -> None:
    def of(prefix: str, title: str) -> dict[str, int]:
        named = sorted((name, n) for name, n in counts.items() if n and name.startswith(prefix))
        return {f"{title}: {name.removeprefix(prefix)}": n for name, n in named}

    report.read = {"messages": counts.get("messages", 0)}
    report.did = {**of("event ", "can be read"), **of("dropped ", "dropped"), **of("quarantined ", "still set aside")}
    if counts.get(HELD):
        report.did["in bronze already"] = counts[HELD]
    report.wrote[BRONZE] = written
