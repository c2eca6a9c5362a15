"""Erase.

input   requests to be erased: of `reel privacy erase USER`, and of `user.deleted` in Kafka (`privacy.erasures`)
does    takes everything of these people out of every layer, in one pass for all of them, until nothing is found
output  tombstones, and a signed receipt for each request

    1. the request is on record (`privacy.erasures`): from now on the door lets none of their events in
    2. their tombstones are set, which is a mark: no run that began before it commits any more (`lakehouse.erasures`)
    3. every pseudonym of theirs is looked for, put on record with the request, and its tombstone set
    4. a pass: quarantine, tables, training sets, the stream's checkpoint, online store, logged answers. Files with
       rows of theirs are written anew without, in every snapshot of a table's history (`lakehouse.history`), the old
       ones deleted at once
    5. a new mark is set, and a pass made behind it, until one finds nothing: a run that began between two marks may
       have copied rows that were still there. A stream that is running is waited for until it goes by that mark; what
       it has put online meanwhile is deleted
    6. files that no table names and that hold rows of theirs are deleted: what crashed runs and compaction have left.
       Nothing can name them any more
    7. the models that learnt from their rows are looked up; the receipt is written
    8. the request's rows are deleted likewise, last of all

Killed at any moment, the next `reel privacy erase --pending` on any machine goes on: what is done is found to be done,
and how many rows were taken out is read from the tables' own history. Two on two machines at once do the same work
twice, and one of them may find a file gone and has to be run again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from features.pseudonyms import Pseudonymizer
from pipelines.erased import PROFILE, SESSION, USER, Tombstones
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.erasures import newest_mark
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_all
from pipelines.privacy import models, online, predictions, training_sets
from pipelines.privacy.from_tables import (
    Looked,
    Taken,
    erase_from,
    erase_from_sealed,
    forget,
    remove_leftovers,
    told_by_tables,
)
from pipelines.privacy.people import find_hashed
from pipelines.privacy.person import Person
from pipelines.privacy.receipts import Receipt
from pipelines.privacy.requests import Request, Requests, ask, pending, record
from pipelines.privacy.sealed import SealedWhose
from pipelines.privacy.training_sets import Names
from pipelines.privacy.whereabouts import tables_of_people
from pipelines.processes import locked
from pipelines.report import StationReport, add_counts, timed
from pipelines.secrets import pseudonymizer, receipt_key, tombstone_key
from pipelines.settings import Settings
from pipelines.stream import checkpoint

STATION = "privacy-erase"
QUARANTINE = "quarantine.events"
HOUR_MS = 3_600_000

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Erased:
    """What came of it: the station's report, and the receipts, one a request."""

    report: StationReport
    receipts: tuple[Receipt, ...]


def erase(
    settings: Settings, plain_ids: Sequence[str] = (), *, on_progress: OnProgress = lambda done, total: None
) -> Erased:
    """Erase users, and everybody else whose request is pending; all of it in one pass.

    `on_progress` hears of tables done and in all. Raises CommitRefusedError when the catalog takes no commit; what was
    asked for is on record then, and the next run goes on.
    """
    folder = settings.work_dir / "privacy"
    folder.mkdir(parents=True, exist_ok=True)
    with timed(STATION) as report, locked(folder / "lock"), lineage.run(settings, STATION) as made:
        work = Erasing(settings, made)
        asked = work.ask(plain_ids)
        done = work.all_pending(on_progress)
        report.read = {"requests": len(done)}
        report.did |= work.did
        report.wrote = {"receipts": len(done)}
    ordered = sorted(done, key=lambda one: (one.mark not in asked, one.mark))
    return Erased(report, tuple(ordered))


def is_due(settings: Settings, lakehouse: Lakehouse, now_ms: int) -> bool:
    """Whether some request has waited for `privacy.erasure_batch_hours`."""
    wait_ms = settings.privacy.erasure_batch_hours * HOUR_MS
    return any(now_ms - one.asked_at.timestamp() * 1000 >= wait_ms for one in pending(lakehouse).values())


@dataclass
class Erasing:
    """One run, its steps in order."""

    settings: Settings
    made: lineage.Run
    lakehouse: Lakehouse = field(init=False)
    hasher: Pseudonymizer = field(init=False)
    stones: Tombstones = field(init=False)
    signing_key: bytes = field(init=False, repr=False)
    began_ms: float = field(default_factory=lambda: time.time() * 1000)
    did: dict[str, int] = field(default_factory=dict)
    predicted: dict[str, int] = field(default_factory=dict)  # logged answers that are gone, by request

    def __post_init__(self) -> None:
        self.lakehouse = Lakehouse.open(self.settings)
        self.hasher = pseudonymizer(self.settings)
        self.stones = Tombstones(tombstone_key(self.settings))
        self.signing_key = receipt_key(self.settings)

    def ask(self, plain_ids: Sequence[str]) -> list[str]:
        """Step 1; the marks of the requests."""
        return ask(self.lakehouse, plain_ids, datetime.now(UTC), self.hasher, self.stones, self.made)

    def all_pending(self, on_progress: OnProgress) -> list[Receipt]:
        """Steps 2 to 8."""
        asked = pending(self.lakehouse)
        if not asked:
            return []
        self._set_mark(asked.values())
        requests = self._with_everything_known(asked)
        looked: dict[str, Looked] = {}
        while True:
            self._set_mark(requests.by_mark.values())
            if not self._pass(requests, looked, on_progress):
                break
        if online.once_the_stream_knows(self.settings, partial(newest_mark, self.lakehouse.catalog)):
            self._out_of_what_is_asked(requests)
        self._remove_leftovers(requests)
        written = self._receipts(requests)
        forget(self.lakehouse, requests, self.made)
        return written

    def _set_mark(self, requests: Iterable[Request]) -> None:
        """Steps 2 and 5: a commit with the tombstones that are not set yet, or with none."""
        table = self.lakehouse.table(tables.tombstones())
        known = read_all(table, tables.TOMBSTONES).select(["kind", "mark"]).to_pylist()
        have = {(one["kind"], one["mark"]) for one in known}
        wanted: set[tuple[str, str]] = set()
        for one in requests:
            wanted.add((USER, one.mark))
            wanted.update((PROFILE, self.stones.mark(PROFILE, name)) for name in one.person.profile_ids)
            # Events of other sessions name a user or a profile, and are known by those.
            wanted.update((SESSION, self.stones.mark(SESSION, name)) for name in one.person.nameless)
        now = datetime.now(UTC)
        rows = [{"kind": kind, "mark": mark, "erased_at": now} for kind, mark in sorted(wanted - have)]
        files = write_files(TableFiles.of(table), pa.Table.from_pylist(rows, schema=tables.TOMBSTONES))
        self.made.erasures = newest_mark(self.lakehouse.catalog)  # of whoever erases beside this
        self.made.wrote(commit_files(table, files, None, self.made.facts(lineage.Inputs())))
        self.made.erasures = newest_mark(self.lakehouse.catalog)

    def _with_everything_known(self, asked: Mapping[str, Request]) -> Requests:
        """Step 3."""
        found = find_hashed(self.lakehouse, self.hasher, {mark: one.person.user_ids for mark, one in asked.items()})
        complete = {mark: replace(one, person=Person.merged([one.person, found[mark]])) for mark, one in asked.items()}
        record(self.lakehouse, complete.values(), self.made)
        return Requests(complete)

    def _pass(self, requests: Requests, looked: dict[str, Looked], on_progress: OnProgress) -> bool:
        """Step 4; whether rows of theirs were found anywhere."""
        theirs = tables_of_people(self.lakehouse)
        add_counts(self.did, {"passes": 1})
        rows = self._count(QUARANTINE, self._out_of_quarantine(requests, looked.setdefault(QUARANTINE, Looked())))
        for done, name in enumerate(sorted(theirs, key=_along_the_road)):
            taken = erase_from(theirs[name], requests, looked.setdefault(name, Looked()), self.made)
            rows += self._count(name, taken)
            on_progress(done + 1, len(theirs))
        in_sets = training_sets.erase(self.settings.work_dir, Names.of(requests))
        add_counts(self.did, {"rows of training sets": in_sets} if in_sets else {})
        in_stream = checkpoint.discard(self.settings.stream_folder)
        add_counts(self.did, {"files of the stream's checkpoint": in_stream} if in_stream else {})
        return rows + in_sets + self._out_of_what_is_asked(requests) > 0

    def _out_of_what_is_asked(self, requests: Requests) -> int:
        """The online store, and then the logs of what was answered from it; how many rows of these."""
        values = online.erase(self.settings, requests.person)
        add_counts(self.did, {"online values": values} if values else {})
        logs = {
            "logged predictions": self.settings.predictions_folder,
            "logged features": self.settings.served_features_folder,
        }
        rows = 0
        for log, folder in logs.items():
            gone = predictions.erase(folder, Names.of(requests))
            add_counts(self.predicted, gone)
            add_counts(self.did, {log: sum(gone.values())} if gone else {})
            rows += sum(gone.values())
        return rows

    def _out_of_quarantine(self, requests: Requests, looked: Looked) -> Taken:
        table = self.lakehouse.existing(QUARANTINE)
        if table is None:
            return Taken()
        return erase_from_sealed(table, requests, self._whose_sealed(requests), looked, self.made)

    def _whose_sealed(self, requests: Requests) -> SealedWhose:
        return SealedWhose.of(self.settings, requests, self.hasher)

    def _count(self, name: str, taken: Taken) -> int:
        add_counts(self.did, {f"{name}: rows": taken.rows, f"{name}: files": taken.files} if taken.files else {})
        return taken.rows

    def _remove_leftovers(self, requests: Requests) -> None:
        """Step 6."""
        removed = sum(remove_leftovers(one, requests) for one in tables_of_people(self.lakehouse).values())
        quarantine = self.lakehouse.existing(QUARANTINE)
        if quarantine is not None:
            removed += remove_leftovers(quarantine, requests, self._whose_sealed(requests))
        add_counts(self.did, {"files that nothing named": removed} if removed else {})

    def _receipts(self, requests: Requests) -> list[Receipt]:
        """Step 7."""
        told = told_by_tables(self.lakehouse)
        in_sets = training_sets.told(self.settings.work_dir)
        runs = models.trained(self.settings)
        written = []
        for one in requests.by_mark.values():
            since_ms = min(one.asked_at.timestamp() * 1000, self.began_ms)
            of_tables = [each for each in told if each.at_ms >= since_ms]
            of_sets = [each for each in in_sets if each.at_ms >= since_ms]
            learnt = models.learnt_from(runs, one.mark, of_tables, of_sets, self.lakehouse)
            predicted = self.predicted.get(one.mark, 0)
            receipt = Receipt.of(one, of_tables, of_sets, predicted, learnt, self.settings)
            receipt.write(self.settings.work_dir, self.signing_key)
            written.append(receipt)
        return written


def _along_the_road(name: str) -> tuple[int, str]:
    """Bronze before silver before features: what is made of rows comes after them."""
    layers = ("privacy", "bronze", "silver", "features")
    layer = name.partition(".")[0]
    return (layers.index(layer) if layer in layers else len(layers), name)
