"""One run of the stream, from a checkpoint or a publication to a failure or the end: its actors and its batches."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import ray

from features.stretches import NEVER_MS
from features.windows import DAY_MS, floor_ms
from pipelines.cluster import as_list
from pipelines.contract.events import load_contract
from pipelines.enrichment import Enricher
from pipelines.errors import ReelError
from pipelines.kafka.log import open_log
from pipelines.kafka.offsets import Offsets, OffsetsLostError, Progress, plan
from pipelines.kafka.produce import Producer, open_producer
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.erasures import newest_mark
from pipelines.lakehouse.scans import SnapshotGoneError
from pipelines.messages import MessageDecoder
from pipelines.online_people import STREAM
from pipelines.report import add_counts, summed
from pipelines.secrets import pseudonymizer, tombstone_key
from pipelines.settings import Settings
from pipelines.stream.actors import Actors, merged, results
from pipelines.stream.admitting import Admitting
from pipelines.stream.affected import Affected
from pipelines.stream.base import CATALOGUE_TOPIC, PEOPLE_TOPIC, NothingPublishedError, base_of, identity_of
from pipelines.stream.checkpoint import FILE, Checkpoint, SavedRows, discard
from pipelines.stream.files import RowFile, write_rows
from pipelines.stream.heard import Hearing, put_people
from pipelines.stream.known import Known
from pipelines.stream.scores import EVENT
from pipelines.stream.spans import Traced
from pipelines.stream.tails import Tail, open_tail
from pipelines.stream.targets import (
    DECLARED,
    EVENTS,
    LONGEST_DELAY_MS,
    PURPOSES_OF,
    SETTLING_MS,
    SHELF_NAMES,
    TABLES,
    schemas_of,
)
from pipelines.stream.worker import Fetched, Finished, Published, Rows, Setup, now_ms
from serving.online_store import open_online_store

_SHARED_TOPICS = (PEOPLE_TOPIC, CATALOGUE_TOPIC)
_LEAST_WAIT_S = 0.01
_SAY_EVERY_S = _FINISH_EVERY_S = 1.0


class BegunAnewError(ReelError):
    """What the stream goes by has changed, and it begins anew."""

    passes = True


@dataclass(frozen=True)
class BatchDone:
    """One batch: how many messages, how many values were written, and how long it took from when they were read."""

    messages: int
    values: int
    seconds: float


class Running:
    """The actors at work; a context manager, which lets go of them. Raises NothingPublishedError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.stream_folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._catalog = Lakehouse.open(settings).catalog
        self._erasures = newest_mark(self._catalog)  # before anything is read
        self._store = open_online_store(settings.online_store_url)
        self._contract = load_contract(settings.schemas)
        self._log = open_log(settings)
        self._decoder = MessageDecoder(settings.registry_location, str(settings.schemas))
        self._schemas = schemas_of(self._contract, settings.lakehouse.event_partition)
        self._actors = Actors()
        self._tail: Tail | None = None
        self._newest_ms: Offsets = {}
        self._positions: Offsets = {}
        self._done: list[Published] = []
        self._known_files: dict[str, str] = {}
        self._first_news: dict[str, pa.Table] = {}
        self._firsts: Mapping[str, Offsets] = {}
        self._next_s = self._said_s = self._finished_s = 0.0
        self._settled_ms = NEVER_MS  # what is taken up at the start does not wait
        self._producer: Producer | None = None
        self._over: dict[str, int] = {}
        self._has_saved = False

    def __enter__(self) -> "Running":
        try:
            identity = identity_of(self._store)
            if identity is None:
                raise NothingPublishedError("it holds nothing whole")
            found = Checkpoint.load(self._folder)
            goes_by = identity, DECLARED, self._erasures
            if found is not None and (found.base, found.declared, found.erasures) == goes_by:
                self._begin_at(found)
            else:
                self._begin_anew()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._actors.close()
        if self._tail is not None:
            self._tail.close()
        if self._producer is not None:
            self._producer.close()
        self._store.close()

    @property
    def process_ids(self) -> list[int]:
        """Of the actors at work."""
        return self._actors.process_ids

    @property
    def counts(self) -> dict[str, int]:
        """What became of messages and rows that are in no value, and of playbacks, since this began."""
        return summed([*(one.counts for one in self._done), self._over])

    def batch(self) -> BatchDone:
        """Steps 1 to 5 of the stream."""
        wait_s = max(_LEAST_WAIT_S, self._next_s - time.monotonic())
        self._next_s = time.monotonic() + wait_s + self._settings.stream.batch_ms / 1000
        most = max(1, self._settings.stream.batch_messages // len(self._actors))
        settled_ms = now_ms() - SETTLING_MS
        fetched: list[Fetched] = self._actors.of_all("fetch", most, wait_s)
        started = time.perf_counter()
        self._positions = merged(one.positions for one in fetched)
        assert self._tail is not None, "it is read while actors run"
        heard = self._tail.drain()
        news = _together(self._first_news, self._hearing(heard))
        self._first_news = {}
        if news:
            self._known.hear(news, now_ms())
            put_people(self._store, self._known, news)
            for name in news:
                self._known_files.pop(name, None)
        messages = sum(one.messages for one in fetched) + sum(map(len, heard))
        has_more = bool(messages or news or any(one.waits_ms < settled_ms for one in self._done))
        if has_more:
            self._done, self._settled_ms = self._process(news, settled_ms), settled_ms
            self._newest_ms = merged([self._newest_ms, *(one.newest_ms for one in self._done)])
            self._say()
        elif time.monotonic() - self._said_s > _SAY_EVERY_S:
            self._say()
        if time.monotonic() - self._finished_s > _FINISH_EVERY_S:
            self._finish()
        values = sum(one.values for one in self._done) if has_more else 0
        return BatchDone(messages, values, time.perf_counter() - started)

    def check(self) -> None:
        """Raise BegunAnewError if something else was put online since this began, or a topic has more partitions."""
        now = identity_of(self._store)
        if now is not None and now != self._base:
            raise BegunAnewError("`reel features` has put a new publication online: the stream begins anew from it")
        bounds = self._log.available(self._topics).bounds
        if {topic: set(partitions) for topic, partitions in bounds.items()} != self._partitions:
            raise BegunAnewError("topics have other partitions than before: the stream goes on with them")

    def save(self, *, is_running: bool = True) -> None:
        """Step 7 of the stream; first what is owed is put right, and what has become the batch's own time let go."""
        self._require_no_erasure()
        if self._has_saved and not (self._folder / FILE).exists():
            raise BegunAnewError("the checkpoint was taken away, with somebody's rows: the stream begins anew")
        owed = Affected.joined(self._actors.of_all("owed"))
        if not (owed.is_nobody and is_running):
            left = [] if owed.is_nobody else self._actors.in_parts("left", owed)
            nothing: list[dict[str, pa.Table]] = [{} for _ in self._actors]
            until_ms = self._settled_ms if is_running else NEVER_MS
            self._settled_ms = until_ms
            results([worker.publish.remote(owed, until_ms, *nothing, *(some[place] for some in left))
                     for place, worker in enumerate(self._actors)])  # fmt: skip
        self._finish()
        assert self._producer is not None, "it is there while actors run"
        self._producer.flush()
        self._advance()
        self._number += 1
        rows: list[list[RowFile]] = self._actors.of_all("save", self._folder, self._number)
        waiting: dict[str, list[str]] = {}
        for place, some in enumerate(self._actors.of_all("waiting")):
            for event, held in some.items():
                waiting.setdefault(event, []).append(f"{self._number}-{place}-waiting-{event}.arrow")
                write_rows(self._folder / waiting[event][-1], held)
        for name, table in self._known.tables.items():
            if name not in self._known_files:
                self._known_files[name] = f"{self._number}-{name}.arrow"
                write_rows(self._folder / self._known_files[name], table)
        assert self._tail is not None, "it is read while actors run"
        progress = Progress(self._progress.cluster_id, merged([self._positions, self._tail.positions]),
                            self._progress.topic_ids)  # fmt: skip
        Checkpoint(
            self._number, self._base, DECLARED, self._erasures, progress, self._firsts, self._newest_ms,
            self._since_ms, self._known.asked_ms, self._told_ms, SHELF_NAMES, [file for some in rows for file in some],
            self._known_files, waiting,
        ).save(self._folder)  # fmt: skip
        self._require_no_erasure()  # who was erased while it was written is in it
        self._has_saved = True
        self._say(is_running=is_running)

    def _require_no_erasure(self) -> None:
        """What is kept here may be of somebody who was erased since this began."""
        if newest_mark(self._catalog) != self._erasures:
            discard(self._folder)
            raise BegunAnewError("somebody is being erased, and the checkpoint with them: the stream begins anew")

    def _begin_anew(self) -> None:
        lakehouse, hasher = Lakehouse.open(self._settings), pseudonymizer(self._settings)
        try:
            base = base_of(lakehouse, self._store, self._contract, hasher, self._settings)
        except SnapshotGoneError as gone:
            raise NothingPublishedError(f"what that was made of has expired ({gone})") from None
        self._number, self._base, self._firsts = 0, base.identity, base.firsts
        before = Checkpoint.load(self._folder)  # of another publication; what it has told need not be told again
        self._told_ms = base.newest_ms if before is None else before.told_ms
        known = self._knowing(base.tables, base.asked_ms)
        self._begin(known, base.progress, base.since_ms, base.rows.as_known_to(known), base.waiting)
        self._first_news = base.news

    def _begin_at(self, found: Checkpoint) -> None:
        self._number, self._base, self._firsts = found.number, found.base, found.firsts
        self._told_ms = found.told_ms
        self._newest_ms = {topic: dict(some) for topic, some in found.newest_ms.items()}
        known = self._knowing(found.tables(self._folder), found.asked_ms)
        rows = SavedRows(self._folder, found.shelves, found.rows, self._schemas)
        self._begin(known, found.progress, found.since_ms, rows, found.held(self._folder))
        self._known_files, self._has_saved = dict(found.known), True

    def _knowing(self, tables: Mapping[str, pa.Table], asked_ms: int) -> Known:
        return Known(
            self._contract,
            pseudonymizer(self._settings),
            tombstone_key(self._settings),
            Enricher.of(self._settings.enrichment),
            dict(tables),
            asked_ms,
        )

    def _begin(
        self, known: Known, progress: Progress, since_ms: int, rows: Rows, waiting: Mapping[str, pa.Table]
    ) -> None:
        self._known, self._hearing, self._since_ms = known, Hearing(self._decoder, known), since_ms
        topics = {event.topic for event in self._contract.events if f"silver.{event.domain}" in TABLES}
        self._topics = (*sorted(topics), *_SHARED_TOPICS)
        now = self._log.available(self._topics)
        try:
            plan("the stream", progress, now)
        except OffsetsLostError:
            raise NothingPublishedError("Kafka has deleted messages that came after it") from None
        self._progress = Progress(now.cluster_id, {}, now.topic_ids)
        self._partitions = {topic: set(partitions) for topic, partitions in now.bounds.items()}
        first = {
            topic: {
                one: progress.offsets.get(topic, {}).get(one, 0 if topic in progress.offsets else earliest)
                for one, (earliest, _) in partitions.items()
            }
            for topic, partitions in now.bounds.items()
        }
        self._tail = open_tail(self._log, {topic: first.pop(topic) for topic in _SHARED_TOPICS})
        wait_ms = self._settings.privacy.undescribed_profile_ms
        admitting = Admitting(self._decoder, known.hasher, EVENTS, self._schemas, PURPOSES_OF, self._firsts, wait_ms)
        store = self._settings.online_store_url
        url, share = self._settings.stream.traces_url, self._settings.stream.traced
        traced = None if url is None else Traced(url, share)
        setup = Setup(self._log, known, admitting, since_ms, self._told_ms, store, rows, waiting, traced)
        self._producer = open_producer(self._settings, self._contract, [self._contract.event(EVENT).topic])
        self._actors.start(self._settings.stream.actors, setup, first)

    def _process(self, news: Mapping[str, pa.Table], settled_ms: int) -> list[Published]:
        """Steps 4 and 5; all that came before `settled_ms` has been read."""
        told = ray.put(news) if news else news
        if len(self._actors) == 1:
            only: list[Published] = self._actors.of_all("process", told, now_ms(), settled_ms)
            return only
        routed = self._actors.in_parts("admit", told, now_ms())
        logs = [
            as_list(worker.log.options(num_returns=len(self._actors) + 1).remote(*(some[place] for some in routed)))
            for place, worker in enumerate(self._actors)
        ]
        affected = Affected.joined(results([some[0] for some in logs]))
        left = [] if affected.is_nobody else self._actors.in_parts("left", affected)
        published = [
            worker.publish.remote(
                affected, settled_ms, *(some[place + 1] for some in logs), *(some[place] for some in left)
            )
            for place, worker in enumerate(self._actors)
        ]
        done: list[Published] = results(published)
        return done

    def _finish(self) -> None:
        """Step 6: whatever is over as far as all partitions have come."""
        reached_ms, self._finished_s = self._reached_ms(), time.monotonic()
        if reached_ms is None or reached_ms <= self._told_ms:
            return
        assert self._producer is not None, "it is there while actors run"
        finished: list[Finished] = self._actors.of_all("finish", reached_ms)
        for one in finished:
            if one.scores.num_rows:
                self._producer.produce(EVENT, one.scores)
            counted = {"playbacks over": one.playbacks, "scores told": one.scores.num_rows}
            add_counts(self._over, {name: count for name, count in counted.items() if count})
        self._told_ms = reached_ms

    def _reached_ms(self) -> int | None:
        """Everything before this instant has been read; None while nobody can tell."""
        if not self._done:
            return None
        behind = set().union(*(one.behind for one in self._done))
        waited_for = [self._newest_ms.get(topic, {}).get(one) for topic, one in behind]
        known = [at for partitions in self._newest_ms.values() for at in partitions.values()]
        if not known or None in waited_for:
            return None
        return min((at for at in waited_for if at is not None), default=max(known))

    def _advance(self) -> None:
        """Everything before yesterday, as far as all partitions have come, is the batch's own."""
        reached_ms = self._reached_ms()
        if reached_ms is None:
            return
        since_ms = floor_ms(min(reached_ms, now_ms()), DAY_MS) - DAY_MS
        if since_ms > self._since_ms:
            self._actors.of_all("advance", since_ms)
            self._since_ms = since_ms

    def _say(self, *, is_running: bool = True) -> None:
        """How far the stream has come: for the service, which answers as of the newest event, and for `reel status`."""
        assert self._tail is not None, "it is read while actors run"
        positions = merged([self._positions, self._tail.positions])
        state = {
            "is_running": is_running,
            "at_ms": now_ms(),
            "actors": len(self._actors),
            "erasures": self._erasures,
            "settled_ms": self._settled_ms,
            "partitions": {
                topic: {
                    str(one): {"offset": offset, "event_ms": self._newest_ms.get(topic, {}).get(one)}
                    for one, offset in partitions.items()
                }
                for topic, partitions in positions.items()
            },
        }
        records = [(STREAM, json.dumps(state).encode())]
        known = [at for partitions in self._newest_ms.values() for at in partitions.values()]
        if known:
            (stored,) = self._store.get_many("meta", ["watermark_ms"])
            watermark_ms = max(int(stored or 0), max(known) + 1 + LONGEST_DELAY_MS)
            records.append(("watermark_ms", str(watermark_ms).encode()))
        self._store.put_many("meta", records)
        self._said_s = time.monotonic()


def _together(first: dict[str, pa.Table], then: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Rows of some tables, and of some, in one."""
    return {
        name: pa.concat_tables([some[name] for some in (first, then) if name in some])
        for name in dict.fromkeys([*first, *then])
    }
