"""`silver.playback_sessions` is always what all events so far come to at once, however they came."""

import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from features.playback_sessions import EVENT_COLUMNS, chains, playback_sessions
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_all
from pipelines.lakehouse.tables import TableSpec
from pipelines.maintain import maintain
from pipelines.settings import LakehouseSettings, Settings
from pipelines.silver import sessions as station
from pipelines.silver.sessions import update_sessions
from tests.pipelines.silver.bronze_rows import Row, table_of
from tests.platform import DAY, HOUR, MINUTE, T0

pytestmark = pytest.mark.usefixtures("ray_session")

NAMES = ("started", "heartbeat", "heartbeat", "heartbeat", "paused", "resumed", "rebuffer", "stopped")
STEPS_MS = (0, 1, MINUTE, 20 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1, 3 * HOUR, 2 * DAY)
EVENTS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("event_id", "event_name")),
        pa.field("event_timestamp", tables.TIMESTAMP, nullable=False),
        *(field for field in tables.PLAYBACK_SESSIONS if field.name in EVENT_COLUMNS),
        pa.field("rebuffer_duration_ms", pa.int64()),
        pa.field("bitrate_kbps", pa.int32()),
        pa.field("ingested_at", tables.TIMESTAMP),
    ]
)
# By day, so that a few days of events lie in several files.
PLAYBACK = TableSpec(
    "silver.playback", EVENTS, (("event_timestamp", "day"), ("content_type", "identity"), ("platform", "identity"))
)
SESSIONS = tables.silver_playback_sessions("day")


def settings_of(folder: Path) -> Settings:
    return Settings(work_dir=folder, lakehouse=LakehouseSettings(silver_retention_days=36_500))


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    return Lakehouse.open(settings_of(tmp_path))


def events_of(dice: random.Random, count: int) -> list[Row]:
    """A few viewers at once, over days: with and without a playback id, kids without any id."""
    events: list[Row] = []
    at_ms = dict.fromkeys(("ann", "bob", "kid"), T0)
    for number in range(count):
        viewer = dice.choice(tuple(at_ms))
        at_ms[viewer] += dice.choice(STEPS_MS)
        is_kid = viewer == "kid"
        content = dice.choice(("vod-1", "vod-2", "live-1"))
        name = dice.choice(NAMES)
        events.append(
            {
                "event_id": f"evt_{number:04d}",
                "event_name": f"playback.{name}",
                "event_timestamp": at_ms[viewer],
                "ingested_at": at_ms[viewer],
                "profile_id": None if is_kid else viewer,
                "user_id": None if is_kid else f"{viewer}-u",
                "viewer_token": f"kid-{(at_ms[viewer] - T0) // DAY}" if is_kid else viewer,
                "session_id": None if is_kid else dice.choice((f"{viewer}-s1", f"{viewer}-s2")),
                "is_kids": is_kid,
                "playback_id": dice.choice((None, None, f"{viewer}-b{dice.randint(1, 4)}")),
                "content_id": content,
                "content_type": dice.choice((None, content.partition("-")[0])),
                "content_genres": dice.choice((None, [], ["Drama"])),
                "platform": dice.choice(("ios", "web")),
                "position_ms": dice.randint(0, 10**6),
                "rebuffer_duration_ms": 700 if name == "rebuffer" else None,
                "bitrate_kbps": dice.choice((1000, 4001)) if name == "heartbeat" else None,
                "completion_percent": dice.choice((None, 12.5, 100.0)) if name == "stopped" else None,
            }
        )
    return events


def append(lakehouse: Lakehouse, events: list[Row]) -> None:
    """Commit events as clean would: a file for each partition."""
    table = lakehouse.table(PLAYBACK)
    commit_files(table, write_files(TableFiles.of(table), table_of(events, EVENTS)), progress_of(table))


def update(lakehouse: Lakehouse) -> int:
    made = lineage.Run.begin("clean")
    return update_sessions(lakehouse.table(SESSIONS), lakehouse.table(PLAYBACK), made).sessions


def as_set(rows: pa.Table) -> list[str]:
    """The rows in any order; instants as numbers, as one table has them in milliseconds and the other in micro."""
    return sorted(repr(sorted(row.items())) for row in rows.cast(tables.PLAYBACK_SESSIONS).to_pylist())


def check(lakehouse: Lakehouse, events: list[Row]) -> None:
    """The table is what the events come to at once, with every event in one playback."""
    stored = read_all(lakehouse.table(SESSIONS), tables.PLAYBACK_SESSIONS)
    assert as_set(stored) == as_set(playback_sessions(table_of(events, EVENTS)).select(stored.column_names))
    assert sum(stored["event_count"].to_pylist()) == len(events)


def files_of(table: Table) -> dict[str, set[int]]:
    """The chains in each file."""
    found = {}
    for task in table.scan().plan_files():
        rows = pa.parquet.read_table(task.file.file_path.removeprefix("file://"), columns=["chain"])
        found[task.file.file_path] = set(rows["chain"].to_pylist())
    return found


@pytest.mark.parametrize("rows_per_task", [5, 250_000])
@pytest.mark.parametrize("seed", range(2))
def test_updates_in_any_order_come_to_the_same_as_all_at_once(
    seed: int, rows_per_task: int, lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(station, "ROWS_PER_TASK", rows_per_task)
    monkeypatch.setattr(station, "CHAINS_PER_TASK", rows_per_task)
    dice = random.Random(seed)
    waiting = events_of(dice, 45)
    if seed:
        dice.shuffle(waiting)  # seed 0: in the order of time
    seen: list[Row] = []
    while waiting:
        for _ in range(dice.randint(1, 2)):
            size = dice.choice((1, 2, 10, 20))
            batch, waiting = waiting[:size], waiting[size:]
            if batch:
                append(lakehouse, batch)
            seen += batch
        before = files_of(lakehouse.table(SESSIONS))
        made = update(lakehouse)
        check(lakehouse, seen)
        after = files_of(lakehouse.table(SESSIONS))
        new_chains = set().union(*(after[path] for path in after.keys() - before.keys()))
        untouched = {path for path, kept in before.items() if path in after}
        assert all(before[path] == after[path] for path in untouched)
        assert made > 0
        assert new_chains
    assert update(lakehouse) == 0


def test_files_without_news_stay_as_they_are(lakehouse):
    events = events_of(random.Random(7), 60)
    append(lakehouse, events)
    update(lakehouse)
    before = files_of(lakehouse.table(SESSIONS))
    late = events[30] | {"event_id": "evt_late", "event_timestamp": events[30]["event_timestamp"] + 1}
    append(lakehouse, [late])
    (chain,) = chains(table_of([late], EVENTS)).to_pylist()
    update(lakehouse)
    after = files_of(lakehouse.table(SESSIONS))
    assert before.keys() - after.keys() == {path for path, of in before.items() if chain in of}
    assert {path for path in before if chain not in before[path]} < after.keys()
    check(lakehouse, [*events, late])


def test_an_event_may_bring_two_playbacks_together(lakehouse):
    """Two runs of one title, 50 minutes apart: two playbacks, until a late heartbeat fills the gap."""
    common = events_of(random.Random(1), 1)[0] | {"playback_id": None, "profile_id": "ann", "viewer_token": "ann"}

    def beat(number: int, minute: int) -> Row:
        at_ms = T0 + minute * MINUTE
        return common | {"event_id": f"evt_{number}", "event_name": "playback.heartbeat", "event_timestamp": at_ms}

    append(lakehouse, [beat(1, 0), beat(2, 5), beat(3, 55), beat(4, 60)])
    assert update(lakehouse) == 2
    append(lakehouse, [beat(5, 30)])
    assert update(lakehouse) == 1
    (session,) = lakehouse.table(SESSIONS).scan().to_arrow().to_pylist()
    assert (session["event_count"], session["watch_ms"]) == (5, 60 * MINUTE)


class Killed(BaseException):
    """The process ends here."""


def test_an_update_that_is_killed_is_done_by_the_next(lakehouse, monkeypatch):
    events = events_of(random.Random(3), 60)
    append(lakehouse, events[:30])
    update(lakehouse)
    append(lakehouse, events[30:45])

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(station, "replace_files", die)
        with pytest.raises(Killed):
            update(lakehouse)
    check(lakehouse, events[:30])
    append(lakehouse, events[45:])
    update(lakehouse)
    check(lakehouse, events)


def test_maintenance_between_updates_does_not_matter(lakehouse, tmp_path):
    dice = random.Random(5)
    events = events_of(dice, 60)
    dice.shuffle(events)
    replaced: Counter[str] = Counter()
    for start in range(0, 60, 15):
        append(lakehouse, events[start : start + 10])
        update(lakehouse)
        append(lakehouse, events[start + 10 : start + 15])
        did = maintain(settings_of(tmp_path)).did  # five events have not been read yet
        replaced += Counter(name.partition(":")[0] for name in did if name.endswith("files replaced"))
        check(lakehouse, events[: start + 10])
        update(lakehouse)
        check(lakehouse, events[: start + 15])
    assert replaced.keys() == {"silver.playback", "silver.playback_sessions"}
    snapshot = lakehouse.table(SESSIONS).current_snapshot()
    assert update(lakehouse) == 0
    assert lakehouse.table(SESSIONS).current_snapshot() == snapshot
