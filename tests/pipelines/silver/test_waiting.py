"""Rows of profiles that nobody has described: they wait, are settled when somebody has, and are counted once."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import clean
from pipelines.clean import Cleaning
from pipelines.maintain import maintain
from pipelines.settings import LakehouseSettings
from pipelines.silver import filling
from tests.pipelines.silver.bronze_rows import Lake, Row, pseudonym, row
from tests.platform import HOUR, T0

pytestmark = pytest.mark.usefixtures("ray_session")

NOW = 1_900_000_000_000  # 2030; when rows come in, and when clean looks, is up to the tests
WAITING, DUPLICATE = "waiting for its profile", "duplicate event id"
INVALID = "invalid: completion_percent outside 0 to 100"
PLAYBACK = "silver.playback"
PERSON_IDS = ("user_id", "profile_id", "session_id", "device_id")


class Clock:
    """What time it is for clean."""

    def __init__(self) -> None:
        self.ms = NOW

    def time(self) -> float:
        return self.ms / 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("pipelines.clean.time", clock)
    return clock


def description(person: str, *, is_kids: bool, at_ms: int = T0) -> Row:
    return {"profile_id": pseudonym(f"{person}-p"), "is_kids": is_kids, "event_timestamp": at_ms}


def undescribed(number: int, person: str, at_ms: int, **columns: object) -> Row:
    name = "playback.stopped" if "completion_percent" in columns else "playback.heartbeat"
    return row(name, number, at_ms, person, is_kids=None, profile_described=False) | columns


def counts_of(did: dict[str, object], wrote: dict[str, object]) -> Counter[str]:
    counted = {fate.removeprefix(f"{PLAYBACK}: "): n for fate, n in did.items() if fate.startswith(f"{PLAYBACK}: ")}
    return Counter(counted) + Counter({"valid": wrote[PLAYBACK]})


class World:
    """The oracle: bronze rows in batches, descriptions, and what clean must have made of them by now."""

    def __init__(self) -> None:
        self.fresh: list[Row] = []
        self.waiting: list[Row] = []
        self.silver: dict[str, tuple[int, bool]] = {}  # event id: offset, is_kids
        self.fates: Counter[str] = Counter()
        self.kids: dict[str, list[tuple[int, bool]]] = {}  # profile: descriptions by time

    def is_kid(self, one: Row) -> bool:
        """The description in force at the event, else the first."""
        told = sorted(self.kids[one["profile_id"]])
        before = [is_kids for at_ms, is_kids in told if at_ms <= one["event_timestamp"]]
        return before[-1] if before else told[0][1]

    def clean(self, now_ms: int, wait_ms: int) -> Counter[str]:
        """What this run counts of fresh rows, and of those whose waiting is over."""
        fates: Counter[str] = Counter()
        decided = []
        looked_at, self.fresh, self.waiting = [*self.fresh, *self.waiting], [], []
        for one in looked_at:
            is_settled = one["profile_described"] or one["profile_id"] in self.kids
            if one.get("completion_percent") == 140.0:
                fates[INVALID] += 1
            elif is_settled or now_ms - one["ingested_at"] >= wait_ms:
                decided.append(one)
            else:
                self.waiting.append(one)
        decided.sort(key=lambda one: (one["event_timestamp"], one["topic"], one["partition"], one["offset"]))
        for one in decided:
            if one["event_id"] in self.silver:
                fates[DUPLICATE] += 1
                continue
            fates["valid"] += 1
            treated_as_kid = one["profile_id"] not in self.kids or self.is_kid(one)
            is_kids = one["is_kids"] if one["profile_described"] else treated_as_kid
            self.silver[one["event_id"]] = one["offset"], is_kids
        self.fates += fates
        return fates


@pytest.mark.parametrize("rows_per_task", [4, 250_000])
@pytest.mark.parametrize("seed", range(2))
def test_every_row_is_counted_once_whatever_the_order_of_descriptions_and_events(
    seed: int, rows_per_task: int, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(filling, "ROWS_PER_TASK", rows_per_task)
    dice = random.Random(seed)
    lake, world = Lake(tmp_path), World()
    ids = [f"evt_{number:012d}" for number in range(30)]
    cleaning, offset = Cleaning(lake.settings), 0
    for _ in range(6):
        clock.ms += dice.choice((HOUR, HOUR, 13 * HOUR))
        files = []
        for _ in range(dice.randint(0, 2)):
            rows = []
            for _ in range(dice.randint(1, 6)):
                person = dice.choice(("ann", "bob", "cat", "dan"))
                at_ms = T0 + dice.randint(0, 3) * HOUR
                changes: Row = {"event_id": dice.choice(ids), "ingested_at": clock.ms - dice.choice((0, HOUR))}
                if dice.random() < 0.25:
                    changes |= {"completion_percent": dice.choice((100.0, 140.0))}
                one = undescribed(offset, person, at_ms, **changes)
                if one["profile_id"] in world.kids and not world.is_kid(one):
                    one |= {"profile_described": True, "is_kids": False}  # as the door would have it
                rows.append(one)
                offset += 1
            files.append(rows)
        if files:
            lake.receive(*files)
        if dice.random() < 0.5:
            told = [description(dice.choice(("ann", "bob", "cat")), is_kids=dice.random() < 0.5, at_ms=T0 + 2 * HOUR)]
            told += [told[0] | {"event_timestamp": T0 + HOUR, "is_kids": not told[0]["is_kids"]}] * dice.randint(0, 1)
            fresh = [one for one in told if one["profile_id"] not in world.kids]
            if fresh:
                lake.describe(*fresh)
            for one in fresh:
                world.kids.setdefault(one["profile_id"], []).append((one["event_timestamp"], one["is_kids"]))
        world.fresh += [one for rows in files for one in rows]
        if dice.random() < 0.3:
            cleaning = Cleaning(lake.settings)  # another process, which remembers nothing
        report = cleaning.run()
        counted = counts_of(report.did, report.wrote)
        del counted[WAITING]
        assert counted == world.clean(clock.ms, 24 * HOUR)
        assert world.fates.total() + len(world.waiting) == offset
        stored = {one["event_id"]: (one["offset"], one["is_kids"]) for one in lake.rows(PLAYBACK)}
        assert stored == world.silver
        for one in lake.rows(PLAYBACK):
            assert all((one[name] is None) is one["is_kids"] for name in PERSON_IDS if name != "device_id")


def fates_on_record(lake: Lake) -> Counter[str]:
    """What became of the rows of playback, as its snapshots say."""
    table = lake.lakehouse.existing(PLAYBACK)
    summaries = [snapshot.summary.additional_properties for snapshot in table.metadata.snapshots]
    fates: Counter[str] = Counter()
    for one in summaries:
        fates.update(json.loads(one.get("reel.counts", "{}")))
    return fates


def test_maintenance_while_rows_wait_loses_and_repeats_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """Bronze is compacted, histories are cut short and the registry changes, before the profile is described."""
    monkeypatch.setattr(clean, "STALE_MS", -1)  # tables without news say at once how far they have read
    lake = Lake(tmp_path)
    lake.settings = lake.settings.model_copy(
        update={
            "lakehouse": LakehouseSettings(
                event_partition="month",
                snapshots_at_least=1,
                snapshots_at_most=1,
                snapshot_keep_hours=0,
                bronze_retention_days=36_500,
                silver_retention_days=36_500,
            )
        }
    )
    lake.describe(description("bob", is_kids=False))
    for number in range(4):
        known = row("playback.heartbeat", number, T0, "bob", ingested_at=NOW)
        lake.receive([known, undescribed(10 + number, "ann", T0, ingested_at=NOW)])
        lake.clean()
    assert len(lake.rows(PLAYBACK)) == 4
    lake.describe(description("cat", is_kids=False))
    before = len(list(lake.lakehouse.table(lake.bronze).scan().plan_files()))
    maintain(lake.settings)
    assert len(list(lake.lakehouse.table(lake.bronze).scan().plan_files())) < before
    lake.describe(description("ann", is_kids=True))
    maintain(lake.settings)
    report = lake.clean()
    assert report.wrote[PLAYBACK] == 4
    assert not [name for name in report.did if name.startswith(PLAYBACK)]
    assert sorted(one["offset"] for one in lake.rows(PLAYBACK)) == [0, 1, 2, 3, 10, 11, 12, 13]
    assert lake.clean().wrote[PLAYBACK] == 0


def test_a_row_waits_a_day_to_the_millisecond(tmp_path: Path, clock: Clock):
    lake = Lake(tmp_path)
    lake.receive([undescribed(1, "ann", T0, ingested_at=NOW)])
    for after_ms, rows in ((0, 0), (24 * HOUR - 1, 0), (24 * HOUR, 1), (25 * HOUR, 0)):
        clock.ms = NOW + after_ms
        assert lake.clean().wrote[PLAYBACK] == rows
    (stored,) = lake.rows(PLAYBACK)
    assert stored["is_kids"]
    assert stored["user_id"] is stored["profile_id"] is stored["session_id"] is None
    assert stored["viewer_token"] not in (None, pseudonym("ann-p"))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_run_that_is_killed_at_any_commit_is_finished_by_the_next(
    is_committed: bool, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    lake, commit = Lake(tmp_path), clean.commit_files
    told = description("ann", is_kids=False)
    left = 0

    def mortal(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            if is_committed:
                commit(*arguments)
            raise Killed
        return commit(*arguments)

    monkeypatch.setattr(clean, "commit_files", mortal)
    sent, deaths = 0, 4
    for lives in range(deaths):
        files = [
            [undescribed(10 * lives, "ann", T0 + HOUR * lives, ingested_at=NOW, event_id=f"evt_{lives}")],
            [row("playback.heartbeat", 10 * lives + 1, T0 + HOUR * lives, "bob", ingested_at=NOW)],
            [row("title.added", 10 * lives + 2, T0, None, content_id=f"vod-{lives}", topic="catalog.changes")],
            [row("auth.login_succeeded", 10 * lives + 3, T0, "bob", topic="user.events", ingested_at=NOW)],
        ]
        lake.receive(*files, [undescribed(10 * lives + 4, "ann", T0, ingested_at=NOW, event_id=f"evt_{lives}")])
        sent += 3
        left = lives
        with pytest.raises(Killed):
            lake.clean()
        if lives == 2:
            lake.describe(told)
    left = 100
    lake.clean()
    stored = [one["event_id"] for one in lake.rows(PLAYBACK)]
    assert (
        sorted(stored)
        == sorted({*stored})
        == sorted(
            [f"evt_{lives}" for lives in range(deaths)] + [f"evt_{10 * lives + 1:08d}" for lives in range(deaths)]
        )
    )
    fates = fates_on_record(lake)
    assert (fates["valid"], fates[DUPLICATE]) == (2 * deaths, deaths)
    assert fates["valid"] + fates[DUPLICATE] == sent
    assert (
        len(lake.rows("silver.titles")) == len(lake.rows("silver.catalog")) == len(lake.rows("silver.user")) == deaths
    )
    assert sum(one["event_count"] for one in lake.rows("silver.playback_sessions")) == 2 * deaths
