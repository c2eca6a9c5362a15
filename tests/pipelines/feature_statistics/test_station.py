"""Days are described as a plain loop over the values describes them, once, and again only when something changed."""

import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.drift import Verdict
from features.groups import GROUPS, group
from features.values import values_at
from features.windows import Cadence
from pipelines.errors import UsageError
from pipelines.feature_statistics.record import date_of, read_days
from pipelines.feature_statistics.reference import NoReferenceError, reference_named
from pipelines.feature_statistics.report import feature_report
from pipelines.feature_statistics.station import NothingToDescribeError, feature_statistics
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks, scan_tasks
from tests.features.random_log import DAY_MS
from tests.pipelines.feature_statistics.world import DAYS, FIRST_DAY, World, a_log, boundary_rows

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
LAST_DAY = FIRST_DAY + DAYS - 1
ENGAGEMENT = group("content_engagement")
SOME = [group(name) for name in ("user_viewing_history", "session_context", "content_popularity", "churn_signals")]


def kept(world: World, first: int = FIRST_DAY - 40, last: int = LAST_DAY + 40):
    return read_days(world.lakehouse, first, last)


def raw_rows(world: World) -> list[dict]:
    table = world.lakehouse.existing("features.statistics")
    return read_tasks(TableFiles.of(table), scan_tasks(table)).to_pylist()


def snapshot(world: World) -> int:
    return world.lakehouse.existing("features.statistics").metadata.current_snapshot_id


def values_by_day(group, entity, log, rows):
    """{day: {feature: values}}, by the design's words alone."""
    names = [feature.name for feature in group.features]
    found: dict[int, list[dict]] = {}
    if group.cadence is Cadence.EVENT:
        seen = {
            (round(at.timestamp() * 1000) // DAY_MS, who)
            for at, who in zip(log["event_timestamp"].to_pylist(), log[entity].to_pylist(), strict=True)
            if who is not None
        }
        for day, who in sorted(seen):
            told = values_at(group, entity, log, pa.array([who]), [(day + 1) * DAY_MS + group.delay])
            found.setdefault(day, []).append(told.to_pylist()[0] | {"who": who})
    else:
        for row in rows.to_pylist():
            boundary = round(row["event_timestamp"].timestamp() * 1000)
            found.setdefault(math.ceil(boundary / DAY_MS) - 1, []).append(row | {"who": row[entity]})
    return {day: {name: [one[name] for one in ones] for name in ["who", *names]} for day, ones in found.items()}


@pytest.fixture(scope="module")
def described(ray_session, tmp_path_factory):
    """A world, what its days should hold, and the report of describing all of them."""
    world = World(tmp_path_factory.mktemp("world"))
    expected = {}
    for one in SOME:
        log = a_log(one)
        for entity in one.entities:
            expected[one.name, entity] = values_by_day(one, entity, log, world.store_log(one, entity, log))
    return world, expected, feature_statistics(world.settings, days=DAYS, groups=SOME)


def test_every_day_of_every_feature_is_told_as_a_loop_tells_it(described):
    world, expected, _ = described
    found = kept(world)
    subjects = {(one.group, one.entity, one.feature, one.day) for one in found}
    assert subjects == {
        (name, entity, feature.name, day)
        for (name, entity), days in expected.items()
        for feature in group(name).features
        for day in days
        if FIRST_DAY <= day <= LAST_DAY
    }
    for subject, one in found.items():
        day = expected[subject.group, subject.entity][subject.day]
        values = day[subject.feature]
        there = [value for value in values if value is not None]
        assert (one.count, one.nulls) == (len(values), len(values) - len(there)), subject
        assert one.entities == len(set(day["who"])), subject
        if there and isinstance(there[0], int | float):
            assert one.quantile(0.5) == pytest.approx(np.quantile(there, 0.5, method="inverted_cdf"), rel=1 / 128)
            assert (one.mean, one.least, one.greatest) == pytest.approx((np.mean(there), min(there), max(there)))
            assert one.distinct == len(set(there)), subject
        elif there and isinstance(there[0], str):
            assert dict(one.keys) == Counter(there), subject
        elif there and isinstance(there[0][0], tuple):
            sums = Counter()
            for value in there:
                sums.update(dict(value))
            assert dict(one.keys) == pytest.approx(dict(sums)), subject
        assert one.outside == 0, subject


def test_a_day_that_is_not_over_is_not_told(described):
    world, expected, _ = described
    assert LAST_DAY + 1 in expected["session_context", "session_id"]
    assert max(one.day for one in kept(world)) == LAST_DAY


def test_the_report_says_what_was_read_and_written(described):
    world, _, report = described
    assert report.read == {"feature tables": 5, "changed since": 5}
    assert report.wrote == {"features.statistics": len(kept(world))} == {"features.statistics": len(raw_rows(world))}


def test_the_same_again_writes_nothing_and_a_change_replaces_its_days(tmp_path):
    world = World(tmp_path)
    one, other = SOME[1], SOME[3]
    log = a_log(one)
    world.store_log(one, "session_id", log)
    world.store_log(other, "user_id", a_log(other))
    feature_statistics(world.settings, days=DAYS, groups=(one, other))
    before, first = kept(world), snapshot(world)

    again = feature_statistics(world.settings, days=DAYS, groups=(one, other))
    fewer = feature_statistics(world.settings, days=3, groups=(one, other))
    assert again.did == fewer.did == {"already described": "from these snapshots and declarations"}
    assert snapshot(world) == first

    times = np.asarray(log["event_timestamp"].cast(pa.int64()))
    changed = log.filter(pa.array((times // DAY_MS != FIRST_DAY + 4) | (np.arange(len(times)) % 3 > 0)))
    world.store_log(one, "session_id", changed)
    report = feature_statistics(world.settings, days=DAYS, groups=(one, other))
    assert report.read["changed since"] == 1
    after, rows = kept(world), raw_rows(world)
    assert len(rows) == len(after) == len({(row["group"], row["entity"], row["feature"], row["day"]) for row in rows})
    moved = {subject.day for subject in before if before[subject].count != after[subject].count}
    assert moved == {FIRST_DAY + 4}
    same = [subject for subject in before if subject.group == other.name]
    assert same
    assert all(before[subject].bucket_counts.tolist() == after[subject].bucket_counts.tolist() for subject in same)


def test_days_before_those_that_are_asked_for_stay_as_they_were(tmp_path):
    world, one = World(tmp_path), SOME[1]
    world.store_log(one, "session_id", a_log(one))
    feature_statistics(world.settings, days=3, groups=(one,))
    assert {subject.day for subject in kept(world)} == {LAST_DAY - 2, LAST_DAY - 1, LAST_DAY}
    assert feature_statistics(world.settings, days=5, groups=(one,)).read["changed since"] == 1
    whole = kept(world)
    assert {subject.day for subject in whole} == set(range(LAST_DAY - 4, LAST_DAY + 1))
    world.store_log(one, "session_id", a_log(one, seed=2))
    feature_statistics(world.settings, days=2, groups=(one,))
    now = kept(world)
    old = [subject for subject in whole if subject.day < LAST_DAY - 1]
    assert all(now[subject].bucket_counts.tolist() == whole[subject].bucket_counts.tolist() for subject in old)
    assert any(now[subject].count != whole[subject].count for subject in whole if subject.day >= LAST_DAY - 1)


def test_what_was_built_from_another_declaration_is_not_told(tmp_path):
    world, one = World(tmp_path), SOME[3]
    rows = world.store_log(one, "user_id", a_log(one))
    world.store(one, "user_id", rows, fingerprint="another")
    with pytest.raises(NothingToDescribeError, match="`reel features`"):
        feature_statistics(world.settings, groups=GROUPS)
    with pytest.raises(UsageError, match="0 days"):
        feature_statistics(world.settings, days=0)
    with pytest.raises(NothingToDescribeError, match="`reel features report`"):
        feature_report(world.lakehouse, reference_named(None, GROUPS), 7)


@pytest.fixture(scope="module")
def drifting(ray_session, tmp_path_factory) -> World:
    """Titles whose intros are skipped more on the last day, when 3 have a share above 1; else all is as ever."""
    world, rng = World(tmp_path_factory.mktemp("drifting")), np.random.default_rng(3)
    parts = []
    for day in range(FIRST_DAY, LAST_DAY + 1):
        is_last = day == LAST_DAY
        columns = {
            "avg_watch_time": rng.gamma(2, 1e5, 900),
            "skip_intro_rate": rng.beta(4 if is_last else 2, 3, 900),
            "binge_rate": rng.beta(1, 5, 900),
        }
        columns["binge_rate"][:3] = 1.5 if is_last else 0.5
        parts.append(boundary_rows(ENGAGEMENT, day, columns))
    world.store(ENGAGEMENT, "content_id", pa.concat_tables(parts))
    feature_statistics(world.settings, groups=(ENGAGEMENT,))
    return world


def by_feature(report):
    return {one.feature.name: one for one in report.histories}


def test_a_planted_drift_is_found_and_nothing_else(drifting):
    report = feature_report(drifting.lakehouse, reference_named(None, GROUPS), 5, (ENGAGEMENT,))
    skipped, *others = report.wanting
    assert {one.feature.name: one.complaints for one in others} == {
        "binge_rate": ["3 out of range"],
        "drop_off_curve": ["null throughout"],
    }
    binged = by_feature(report)["binge_rate"]
    assert skipped.feature.name == "skip_intro_rate"
    assert skipped.drift.verdict is Verdict.DRIFT
    assert skipped.complaints == ["drift of its numbers"]
    assert binged.drift.verdict is Verdict.STABLE
    assert [skipped.drifts[day].verdict for day in sorted(skipped.drifts)] == [Verdict.STABLE] * 4 + [Verdict.DRIFT]
    assert report.count(Verdict.DRIFT) == 1
    calm = feature_report(drifting.lakehouse, reference_named(str(date_of(LAST_DAY - 1)), GROUPS), 1, (ENGAGEMENT,))
    assert by_feature(calm)["skip_intro_rate"].drift.verdict is Verdict.DRIFT
    alone = feature_report(drifting.lakehouse, reference_named(str(date_of(LAST_DAY)), GROUPS), 1, (ENGAGEMENT,))
    assert by_feature(alone)["skip_intro_rate"].drift is None, "a day is not compared with itself"
    with pytest.raises(NoReferenceError, match="2025-12-31"):
        feature_report(drifting.lakehouse, reference_named("2025-12-31", GROUPS), 1, (ENGAGEMENT,))


def training_set(folder, columns: dict, manifest: dict | None = None):
    """Two files to learn from, and one to test on, which must not be read."""
    for split, files in (("train", 2), ("test", 1)):
        (folder / f"split={split}").mkdir(parents=True)
        for number in range(files):
            rows = {name: values[number::files] for name, values in columns.items()}
            rows = rows if split == "train" else {name: pa.nulls(5, pa.array(v).type) for name, v in columns.items()}
            pq.write_table(pa.table(rows), folder / f"split={split}" / f"part-{number}.parquet")
    (folder / "manifest.json").write_text(json.dumps(manifest or {}))
    return folder


def test_days_are_compared_with_what_was_learned_from(drifting, tmp_path):
    rng = np.random.default_rng(4)
    columns = {
        "content_id": [f"title-{n}" for n in range(3000)],
        "content_engagement__skip_intro_rate": rng.beta(2, 3, 3000),
        "watch": rng.gamma(2, 1e5, 3000),
        "label": rng.random(3000),
        "else__where": rng.random(3000),
        "user_viewing_history__completion_rate": rng.random(3000),
    }
    names = {"watch": "content_engagement.avg_watch_time"}
    folder = training_set(tmp_path / "churn-1", columns, {"columns": names})
    reference = reference_named(str(folder), GROUPS)
    assert reference.words == "the training set churn-1 (3,000 rows, split train)"
    features = [("content_engagement", "content_id", name) for name in ("skip_intro_rate", "avg_watch_time")]
    assert sorted(reference.fixed) == sorted(features), "there is no profile or user whose completion rate it could be"
    report = feature_report(drifting.lakehouse, reference, 5, (ENGAGEMENT,))
    found = by_feature(report)
    verdicts = [found["skip_intro_rate"].drifts[day].verdict for day in report.days]
    assert verdicts == [Verdict.STABLE] * 4 + [Verdict.DRIFT]
    assert found["avg_watch_time"].drift.verdict is Verdict.STABLE
    assert found["binge_rate"].drift is None
    assert report.count(None) == 2


def test_what_is_no_reference_is_refused(tmp_path):
    with pytest.raises(NoReferenceError, match="no date like"):
        reference_named("2026-31-01", GROUPS)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(NoReferenceError, match="no Parquet file"):
        reference_named(str(tmp_path), GROUPS)
    folder = training_set(tmp_path / "set", {"content_id": ["a"], "label": [1.0], "nothing__known": [1.0]})
    with pytest.raises(NoReferenceError, match="content_id, label, nothing__known"):
        reference_named(str(folder), GROUPS)
