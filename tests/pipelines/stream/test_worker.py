"""Actors' work without Ray: in many small batches, among several, out of order, it comes to what one batch comes to."""

import json
import random
from dataclasses import replace

import pyarrow as pa
import pytest

from features.packing import unpack
from features.playback_sessions import playback_sessions
from features.pseudonyms import Pseudonymizer
from features.stretches import NEVER_MS
from pipelines.enrichment import Enricher
from pipelines.messages import MessageDecoder
from pipelines.stream.actors import share_of
from pipelines.stream.admitting import Admitting
from pipelines.stream.affected import Affected
from pipelines.stream.files import read_rows
from pipelines.stream.heard import Hearing, put_people
from pipelines.stream.known import SCHEMAS, Known
from pipelines.stream.tails import open_tail
from pipelines.stream.targets import EVENTS, PURPOSES_OF, TABLES, TARGETS, schemas_of
from pipelines.stream.worker import Setup, Worker
from serving.online_store import open_online_store
from tests.features.oracle import split_in_playbacks
from tests.features.source_oracle import steps
from tests.features.test_finished_playbacks import score_of, versions_of
from tests.platform import (
    DAY,
    HOUR,
    MINUTE,
    SALT,
    T0,
    Platform,
    consent,
    described,
    event,
    hashed,
    looked_around,
    title,
    watched,
)

HOUR_24 = 24 * HOUR
END_MS = T0 + 9 * DAY
SHARED = ("user.events", "catalog.changes")


def evening(person, chance, at_ms):
    """What one viewer does in an evening, heartbeats and all."""
    events = looked_around(person, f"vod-{chance.randrange(9)}", at_ms)
    for n in range(4):
        at_ms += chance.randrange(HOUR)
        content, kind = ("ch-1", "live") if n == 1 else (f"vod-{chance.randrange(9)}", "vod")
        percent = chance.choice([20.0, 60.0, 95.0])
        playback = watched(person, content, at_ms + 10 * MINUTE, percent, cdn="akamai", content_type=kind)
        common = {name: playback[0][name] for name in ("content_id", "content_type", "playback_id")}
        shown = {"bitrate_kbps": 3000, "resolution": "1080p", "buffer_length_ms": 900, "dropped_frames": 0}
        beats = [
            event(
                "playback.heartbeat",
                at_ms + minute * MINUTE,
                person,
                position_ms=minute,
                cdn="akamai",
                **shown,
                **common,
            )
            for minute in range(1, 10)
        ]
        stalled = {"position_ms": 1, "rebuffer_duration_ms": 700, "bitrate_at_rebuffer": 3000}
        stall = event("playback.rebuffer", at_ms + 90_000, person, **stalled, **common)
        events += [*playback, *beats, stall]
        if n == 0:
            events.append(playback[1])  # sent again
    return events


class Together:
    """Some workers on one log, batch after batch, as the stream drives them."""

    def __init__(self, platform, folder, actors, since_ms=T0 - DAY, traced=None):
        self.url = f"lmdb://{folder}"
        hasher = Pseudonymizer((SALT,))
        decoder = MessageDecoder(platform.settings.registry_location, str(platform.settings.schemas))

        def known():
            empty = {name: schema.empty_table() for name, schema in SCHEMAS.items()}
            return Known(platform.contract, hasher, b"key", Enricher(), empty, 0)

        self.known, schemas = known(), schemas_of(platform.contract, "month")
        self.hearing = Hearing(decoder, self.known)
        topics = sorted({one.topic for one in platform.contract.events if f"silver.{one.domain}" in TABLES})
        wheres = [(topic, partition) for topic in topics for partition in range(2)]
        self.tail = open_tail(platform.log, {topic: {0: 0, 1: 0} for topic in SHARED})
        self.workers = []
        for place in range(actors):
            mine = {}
            for topic, partition in share_of(wheres, place, actors):
                mine.setdefault(topic, {})[partition] = 0
            admitting = Admitting(decoder, hasher, EVENTS, schemas, PURPOSES_OF, {}, HOUR_24)
            rows = lambda shelf, table: schemas[table].empty_table()  # noqa: E731
            setup = Setup(platform.log, known(), admitting, since_ms, since_ms, self.url, rows, {}, traced)
            self.workers.append(Worker(place, actors, setup, mine))
        for worker in self.workers:
            worker.begin()
        self._fill()

    def _fill(self):
        logs = [self.parts(worker.first_logs()) for worker in self.workers]
        for place, worker in enumerate(self.workers):
            worker.fill(*(some[place] for some in logs))

    def parts(self, returned):
        return returned if len(self.workers) > 1 else [returned]

    def batch(self, most, now_ms=T0 + 9 * DAY):
        read = sum(worker.fetch(most, 0).messages for worker in self.workers)
        heard = self.tail.drain()
        news = self.hearing(heard)
        if news:
            self.known.hear(news, now_ms)
        with open_online_store(self.url) as store:
            put_people(store, self.known, news)
        routed = [self.parts(worker.admit(news, now_ms)) for worker in self.workers]
        logs = [worker.log(*(some[place] for some in routed)) for place, worker in enumerate(self.workers)]
        affected = Affected.joined([some[0] for some in logs])
        left = [] if affected.is_nobody else [self.parts(worker.left(affected)) for worker in self.workers]
        for place, worker in enumerate(self.workers):
            worker.publish(affected, NEVER_MS, *(some[place + 1] for some in logs), *(some[place] for some in left))
        return read + len(heard)

    def put_right(self):
        """As before a checkpoint."""
        owed = Affected.joined([worker.owed() for worker in self.workers])
        left = [self.parts(worker.left(owed)) for worker in self.workers]
        for place, worker in enumerate(self.workers):
            worker.publish(owed, NEVER_MS, *({} for _ in self.workers), *(some[place] for some in left))

    def run(self, most):
        while self.batch(most):
            pass
        self.put_right()

    def finish(self, until_ms):
        """What is told of playbacks that are over by then."""
        return [row for worker in self.workers for row in worker.finish(until_ms).scores.to_pylist()]

    def all_read_ms(self):
        """Before this instant nothing of playbacks is still to come, although some comes two hours late."""
        read = [worker._admitting.newest_ms.get("client.playback", {}) for worker in self.workers]
        newest = [at_ms for partitions in read for at_ms in partitions.values()]
        return min(newest) - 2 * HOUR - 1 if len(newest) == 2 else 0

    def playbacks(self):
        """The rows of playback that sessions are made of."""
        return pa.concat_tables([worker._finishing.shelf.rows["silver.playback"].rows for worker in self.workers])

    def sessions(self):
        """By profile, what is online."""
        with open_online_store(self.url) as store:
            keys = sorted(store.keys("playback_sessions"))
            return {key: json.loads(value)["sessions"] for key, value in
                    zip(keys, store.get_many("playback_sessions", keys), strict=True)}  # fmt: skip

    def tiles(self):
        """Every stored tile of every target."""
        found = {}
        with open_online_store(self.url) as store:
            for target in TARGETS:
                group = target.group.stored_as(target.entity)
                keys = sorted(store.keys(group))
                packed = list(zip(keys, store.get_many(group, keys), strict=True))
                for row in unpack(target.group, target.entity, packed).to_pylist():
                    found[target.name, row[target.entity], row["tile_ms"], row["tile_start"]] = row
        return found


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        platform = Platform(tmp_path_factory.mktemp("platform"))
        chance = random.Random(5)
        people = [f"viewer-{n}" for n in range(5)]
        events = [title(f"vod-{n}", *chance.sample(["drama", "news", "comedy"], 2)) for n in range(9)]
        platform.send(*events, *map(described, people), *(consent(person, T0 - DAY) for person in people))
        events = [one for person in people for night in range(3) for one in evening(person, chance, T0 + night * DAY)]
        events.sort(key=lambda one: one["event_timestamp"] + chance.choice([0, 0, 0, 2 * HOUR]))  # some come late
        platform.send(*events)
        yield platform


@pytest.fixture(scope="module")
def at_once(platform, tmp_path_factory):
    one = Together(platform, tmp_path_factory.mktemp("at-once"), 1)
    one.run(1 << 20)
    return one.tiles()


@pytest.fixture(scope="module")
def finished(platform, tmp_path_factory):
    """Everything at once, and what is told of it."""
    one = Together(platform, tmp_path_factory.mktemp("finished"), 1)
    one.run(1 << 20)
    return one, one.finish(END_MS)


def test_sessions_online_are_those_that_the_batch_puts_together(finished):
    one, _ = finished
    batch = playback_sessions(one.playbacks()).to_pylist()
    online = [row for rows in one.sessions().values() for row in rows]
    names = [name for name in batch[0] if not name.startswith("chain")]
    assert sorted(json.dumps({name: row[name] for name in names}, default=str) for row in batch) == sorted(
        json.dumps({name: row[name] for name in names}) for row in online
    )
    assert len(online) == 60
    assert all(row["profile_id"] == key for key, rows in one.sessions().items() for row in rows)


def test_scores_equal_loops_over_events(finished):
    one, told = finished
    events = [row | {"time": int(row["event_timestamp"].timestamp() * 1000)} for row in one.playbacks().to_pylist()]
    expected = []
    for playback in split_in_playbacks(events):
        for known, over_at in versions_of(playback):
            stalls = [event["rebuffer_duration_ms"] for event in known if event["event_name"] == "playback.rebuffer"]
            watched_ms = sum(watched for _, watched, _, _ in steps(known))
            expected.append((over_at, score_of(known), len(stalls), sum(stalls) / watched_ms, watched_ms))
    found = [
        (int(row["event_timestamp"].timestamp() * 1000), row["qoe_score"], row["rebuffer_count"],
         row["rebuffer_ratio"], row["watched_ms"])
        for row in told
    ]  # fmt: skip
    assert len(found) == len(expected) >= 60
    for ours, theirs in zip(sorted(found), sorted(expected), strict=True):
        assert ours == pytest.approx(theirs, abs=0.000501)


def test_what_is_told_says_nothing_of_who_watched(finished):
    one, told = finished
    ids = ("user_id", "profile_id", "session_id", "device_id", "viewer_token", "playback_id")
    people = {row[name] for row in one.playbacks().to_pylist() for name in ids}
    plain = {f"viewer-{n}{of}" for n in range(5) for of in ("", "-p", "-session", "-device")}
    said = {value for row in told for value in row.values()}
    assert not said & (people | plain)
    assert not {"user_id", "profile_id", "session_id", "device_id"} & set(told[0])


def test_in_small_batches_the_same_is_told(platform, finished, tmp_path):
    one, told = finished
    some = Together(platform, tmp_path / "online", 3)
    news = []
    while some.batch(60):
        news += some.finish(some.all_read_ms())
    assert 10 < len(news) < len(told)
    news += some.finish(END_MS)
    assert sorted(map(repr, news)) == sorted(map(repr, told))
    assert some.sessions() == one.sessions()


def test_of_who_refuses_analytics_no_session_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    (tmp_path / "log").mkdir()
    platform, chance = Platform(tmp_path / "log"), random.Random(6)
    people = ["viewer-0", "viewer-1"]
    platform.send(title("vod-0", "drama"), *map(described, people), *(consent(one, T0 - DAY) for one in people))
    platform.send(*(event for person in people for event in evening(person, chance, T0)))
    some = Together(platform, tmp_path / "online", 2)
    some.run(1 << 20)
    some.finish(END_MS)
    assert some.sessions().keys() == {hashed("viewer-0-p"), hashed("viewer-1-p")}
    platform.send(consent("viewer-0", T0 + DAY, allows_analytics=False), *evening("viewer-0", chance, T0 + DAY))
    some.run(1 << 20)
    assert some.finish(END_MS + DAY) == []
    assert some.sessions().keys() == {hashed("viewer-1-p")}
    assert some.playbacks()["user_id"].unique().to_pylist() == [hashed("viewer-1")]


@pytest.mark.parametrize(("actors", "most"), [(1, 40), (3, 60)])
def test_in_small_batches_it_comes_to_the_same(platform, at_once, tmp_path, actors, most):
    assert {name for name, *_ in at_once} == {target.name for target in TARGETS}
    some = Together(platform, tmp_path / "online", actors)
    some.run(most)
    tiles = some.tiles()
    assert tiles.keys() == at_once.keys()
    assert tiles == at_once


def test_from_what_was_saved_it_goes_on_to_the_same(platform, at_once, finished, tmp_path):
    """Saved after some batches, more are done and lost; others go on from the rows, as if those had never been."""
    first = Together(platform, tmp_path / "online", 1)
    for _ in range(14):
        first.batch(40)
    (worker,) = first.workers
    told_ms = first.all_read_ms()
    told = first.finish(told_ms)
    kept = {
        (name, table): segments.rows
        for name, shelf in worker._shelves.items()
        for table, segments in shelf.rows.items()
    }
    positions = {topic: dict(some) for topic, some in worker._tail.positions.items()}
    for _ in range(5):
        first.batch(40)
    lost = first.finish(first.all_read_ms())
    again = Together(platform, tmp_path / "online", 1)
    setup = again.workers[0]._setup
    saved = replace(setup, known=first.known, told_ms=told_ms, rows=lambda shelf, table: kept[shelf, table])
    again.workers, again.tail, again.known = [Worker(0, 1, saved, positions)], first.tail, first.known
    again.workers[0].begin()
    again._fill()
    again.run(40)
    assert again.tiles() == at_once
    after = again.finish(END_MS)
    assert sorted(map(repr, [*told, *after])) == sorted(map(repr, finished[1])), "what was lost is told again, the same"
    assert {repr(row) for row in lost} <= {repr(row) for row in after}
    assert told


def test_files_of_a_shelf_hold_each_row_once(platform, tmp_path):
    one = Together(platform, tmp_path / "online", 1)
    (worker,) = one.workers
    for number in range(1, 6):
        one.batch(40)
        files = worker.save(tmp_path, number)
    for place, shelf in enumerate(worker._shelves.values()):
        for table, segments in shelf.rows.items():
            named = [file.name for file in files if (file.shelf, file.table) == (place, table)]
            saved = pa.concat_tables(
                [shelf.schema(table).empty_table(), *(read_rows(tmp_path / name) for name in named)]
            )
            assert sorted(saved["event_id"].to_pylist()) == sorted(segments.rows["event_id"].to_pylist())


def test_rows_that_waited_in_bronze_meet_other_events_of_their_table(tmp_path):
    """Instants in bronze are in microseconds, those from the door in milliseconds."""
    platform = Platform(tmp_path)
    platform.send(*[one for one in watched("ann", "vod-1", T0, 95.0) if one["event_name"] == "playback.started"])
    one = Together(platform, tmp_path / "online", 1)
    one.batch(1000, T0 + HOUR)
    admitting = one.workers[0]._admitting
    ((event_name, rows),) = admitting.waiting.items()
    micro = pa.timestamp("us", tz="UTC")
    for place, column in enumerate(rows.schema):
        if pa.types.is_timestamp(column.type):
            rows = rows.set_column(place, pa.field(column.name, micro), rows[column.name].cast(micro))
    admitting.waiting = {event_name: rows}
    platform.send(*watched("ann", "vod-1", T0, 95.0)[1:], described("ann"), consent("ann", T0 - DAY))
    one.batch(1000, T0 + HOUR)
    assert not admitting.waiting
    with open_online_store(one.url) as store:
        assert store.get_many("user_viewing_history_by_profile_id", [hashed("ann-p")]) != [None]
