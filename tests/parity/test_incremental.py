"""Features built in many steps, with late events, are those of one build of everything, and those of the log itself."""

import time

import numpy as np
import pyarrow as pa
import pytest

from features.columns import milliseconds
from features.declarations import CREATED, LAST_EVENT
from features.groups import GROUPS
from features.packing import unpack
from features.source import EVENT_TIME
from features.tiles import values_from_tiles
from features.values import values_at
from pipelines.build_features import build_features
from pipelines.feature_tables import Target
from pipelines.maintain import maintain
from serving.online_store import open_online_store
from tests.features import source_worlds
from tests.silver import Silver

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]
TARGETS = [Target(group, entity) for group in GROUPS for entity in group.entities]
PEOPLE = ("silver.playback", "silver.navigation", "silver.browse", "silver.search", "silver.live", "silver.user")
STEPS = 6
each_target = pytest.mark.parametrize("target", TARGETS, ids=[one.name for one in TARGETS])


class InterruptedBuildError(Exception):
    """Somebody pulled the plug."""


def delivered(rng, world, steps):
    """Events of a world by the step in which they come: half at first, then in the order of time, few of them late."""
    times = np.sort([one["time"] for name in (*PEOPLE, "silver.titles") for one in world[name]])
    edges = times[(np.linspace(0.5, 1, steps)[:-1] * len(times)).astype(int)]
    found = [{name: [] for name in world} for _ in range(steps)]
    for name, events in world.items():
        for place, one in enumerate(events):
            step = int(np.searchsorted(edges, one["time"], side="right"))
            if rng.random() < 0.01:
                step = min(steps - 1, step + int(rng.integers(1, steps)))
            found[step][name].append(one | ({"event_id": f"t-{place}"} if name == "silver.titles" else {}))
    return found


def one_person_each(world):
    """The world, where whoever has no profile is one person: nobody's rows are made into logs with somebody else's."""
    for name in PEOPLE:
        for one in world[name]:
            if one["profile_id"] is None:
                one["viewer_token"] = f"child-{one['event_id'].split('-')[1]}"
    return world


def consent_of(user, at_ms, allows):
    return {"user_id": user, "time": at_ms, "allows_analytics": True, "allows_ad_targeting": True,
            "allows_personalization": allows}  # fmt: skip


class Built:
    """Two lakehouses of the same silver: one built in steps, the other at once."""

    def __init__(self, folder):
        rng = np.random.default_rng(31)
        self.world = one_person_each(source_worlds.together(rng, 45))
        self.steps, self.whole = Silver(folder / "steps"), Silver(folder / "whole")
        users = sorted({one["user_id"] for one in self.world["silver.playback"] if one["user_id"]})
        leavers = [str(user) for user in rng.choice(users, 6, replace=False)]
        self.reports, self.began_ms = [], time.time() * 1000
        consents = {
            2: [consent_of(user, 1, False) for user in leavers[:4]],
            3: [consent_of(leavers[4], 1, False), consent_of(leavers[0], 2, True)],
            5: [consent_of(leavers[5], 1, False), consent_of(leavers[1], 2, True)],
        }
        self.gone = {leavers[place] for place in (2, 3, 4, 5)}
        for number, rows in enumerate(delivered(rng, self.world, STEPS)):
            rows["privacy.consents"] = consents.get(number, [])
            self.steps.append(rows)
            self.whole.append(rows)
            if number == 3:
                self.interrupt()
            if number == 4:
                maintain(self.steps.settings)
            self.reports.append(build_features(self.steps.settings))
        self.at_once = build_features(self.whole.settings)

    def interrupt(self):
        """Begin to build, and stop when about half of the tables are there."""

        def stop(done, total):
            if done == total - 2:
                raise InterruptedBuildError

        with pytest.raises(InterruptedBuildError):
            build_features(self.steps.settings, on_progress=stop)

    def stored(self, silver, name, schema):
        """Rows of a feature table, in the types of its declaration."""
        return silver.rows(name, schema)

    def log(self, target):
        """The log of all who may be used, straight from the events."""
        source = target.group.source
        allowed = {
            name: [one for one in events if not (name in PEOPLE and one["user_id"] in self.gone)]
            for name, events in self.world.items()
        }
        return source.log(source_worlds.tables(source, allowed, np.random.default_rng(1)))


@pytest.fixture(scope="module")
def built(ray_session, tmp_path_factory):
    return Built(tmp_path_factory.mktemp("incremental"))


def latest(rows, entity):
    """Of each entity and boundary the row that was created last, without saying when."""
    newest = {}
    for row in sorted(rows.to_pylist(), key=lambda row: row[CREATED]):
        newest[row[entity], row[EVENT_TIME]] = {name: value for name, value in row.items() if name != CREATED}
    return newest


def by_key(tiled, entity):
    rows = tiled.to_pylist()
    found = {(row[entity], row["tile_ms"], row["tile_start"]): row for row in rows}
    assert len(found) == len(rows), "a tile is there twice"
    return found


def test_a_step_in_which_nobody_changed_their_mind_made_a_part_anew(built):
    did = built.reports[1].did
    assert any(what.startswith("days made anew") for what in did), did
    assert not any(what.startswith("built as a whole") for what in did), did


@each_target
def test_tables_are_those_of_one_build(built, target):
    tile_name = target.tile_spec(2).name
    schema = target.group.tile_schema(target.entity)
    ours, theirs = (by_key(built.stored(one, tile_name, schema), target.entity) for one in (built.steps, built.whole))
    assert ours == theirs
    assert len(theirs) > 5
    if target.has_boundaries:
        schema = target.group.row_schema(target.entity)
        ours, theirs = (
            latest(built.stored(one, target.name, schema), target.entity) for one in (built.steps, built.whole)
        )
        assert ours == theirs
        assert len(theirs) > 5


@each_target
def test_tables_give_the_values_of_the_log(built, target):
    group, entity = target.group, target.entity
    log = built.log(target)
    names = [feature.name for feature in group.features]
    if not target.has_boundaries:
        tiled = built.stored(built.steps, target.name, group.tile_schema(entity))
        whose = tiled[entity].unique()
        asked = np.full(len(whose), int(milliseconds(tiled[LAST_EVENT]).max()) + group.delay + 1)
        got, wanted = values_from_tiles(group, entity, tiled, whose, asked), values_at(group, entity, log, whose, asked)
        assert set(whose.to_pylist()) == set(log[entity].drop_null().to_pylist())
    else:
        rows = built.stored(built.steps, target.name, group.row_schema(entity)).sort_by(CREATED)
        newest = pa.Table.from_pylist([*latest(rows, entity).values()], rows.schema.remove(2))
        newest = newest.filter(
            pa.array(milliseconds(newest[EVENT_TIME]) + group.delay <= milliseconds(newest[LAST_EVENT]) + group.ttl_ms)
        )
        asked = milliseconds(newest[EVENT_TIME]) + group.delay
        got, wanted = newest, values_at(group, entity, log, newest[entity].combine_chunks(), asked)
    for name in names:
        assert_close(got[name].to_pylist(), wanted[name].to_pylist(), name)


def assert_close(got, wanted, name):
    """Equal to 1e-9, relative."""
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        if isinstance(one, list) and isinstance(other, list):
            flat = [part for pair in one for part in (pair if isinstance(pair, tuple) else (pair,))]
            other = [part for pair in other for part in (pair if isinstance(pair, tuple) else (pair,))]
            assert_close(flat, other, name)
        elif isinstance(one, float) and isinstance(other, float):
            assert one == pytest.approx(other, rel=1e-9, abs=0), name
        else:
            assert one == other, name


@pytest.mark.parametrize("target", [one for one in TARGETS if one.has_boundaries], ids=lambda one: one.name)
def test_rows_were_published_at_their_boundary_and_corrections_now(built, target):
    group, entity = target.group, target.entity
    rows = built.stored(built.steps, target.name, group.row_schema(entity))
    created, boundaries = milliseconds(rows[CREATED]), milliseconds(rows[EVENT_TIME])
    in_time = created == boundaries + group.delay
    assert (in_time | (created >= built.began_ms)).all()
    assert 0 < in_time.sum() < len(in_time)
    whole = built.stored(built.whole, target.name, group.row_schema(entity))
    assert (milliseconds(whole[CREATED]) == milliseconds(whole[EVENT_TIME]) + group.delay).all()


@each_target
def test_the_online_store_is_that_of_one_build(built, target):
    name = target.group.stored_as(target.entity)
    found = []
    for silver in (built.steps, built.whole):
        with open_online_store(silver.settings.online_store_url, readonly=True) as store:
            keys = sorted(store.keys(name))
            found.append(unpacked(target, dict(zip(keys, store.get_many(name, keys), strict=True))))
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    assert ours == theirs


def unpacked(target, packed):
    """What is stored of each entity; a correction says when it was created, which the other build cannot know."""
    rows = unpack(target.group, target.entity, sorted(packed.items()))
    rows = rows.drop_columns([CREATED]) if target.has_boundaries else rows
    whose = rows[target.entity].to_pylist()
    found = {key: [] for key in packed}
    for key, row in zip(whose, rows.to_pylist(), strict=True):
        found[key].append(row)
    return found


def test_nothing_new_writes_nothing(built):
    """The last of the tests: more rows that change no feature move no file of a table."""
    assert build_features(built.steps.settings).did == {"already built": "from these snapshots and declarations"}
    last = max(one["time"] for name in PEOPLE for one in built.world[name])
    built.steps.append({"silver.browse": [{"event_id": "x", "event_name": "hero.click", "time": last - 1}]})
    report = build_features(built.steps.settings)
    written = {name: rows for name, rows in report.wrote.items() if name.startswith("features.")}
    assert not any(written.values()), report
