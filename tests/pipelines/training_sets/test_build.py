"""Declared training sets, built: rows, labels, weights and splits against plain loops over what was sent."""

import json
from collections import Counter
from dataclasses import replace

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import DeclarationError, PurposeNotAllowedError, SelectionError
from features.playbacks import VIEWING_LOG
from features.purposes import Purpose
from features.training import (
    Balance,
    FileRows,
    Happened,
    Label,
    Negatives,
    Sampling,
    SeenIn,
    SplitAt,
    TableRows,
    TrainingSet,
)
from features.training.written import as_json, from_json
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.readers import Readers
from pipelines.lakehouse.tables import TableSpec
from pipelines.point_in_time.join import Request, join
from pipelines.training_sets import BuiltTrainingSet, build, rebuild
from pipelines.training_sets.build import EmptyTrainingSetError
from pipelines.training_sets.built import ManifestError
from tests.pipelines.training_sets.world import CHURN, KID, LEAVER, MIDNIGHT, RANKER, REFUSER, VIEWERS
from tests.platform import DAY, HOUR, T0, Platform, hashed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PEOPLE = [*VIEWERS, LEAVER]
TIME = pa.timestamp("ms", tz="UTC")


@pytest.fixture(scope="module")
def churn(platform) -> BuiltTrainingSet:
    return build(platform.settings, CHURN)


@pytest.fixture(scope="module")
def ranker(platform) -> BuiltTrainingSet:
    return build(platform.settings, RANKER)


def rows_of(one: BuiltTrainingSet) -> list[dict]:
    rows = []
    for split in ("train", "validation", "test"):
        for row in one.frame(split).to_dicts():
            rows.append(row | {"split": split, "t": round(row["event_timestamp"].timestamp() * 1000)})
    return rows


def newest(platform: Platform, *domains: str) -> int:
    """The last event of the tables that a set is made from, of whoever sent it."""
    return max(one["event_timestamp"] for one in platform.told if one["event_name"].partition(".")[0] in domains)


USER_EVENTS = ("auth", "support", "payment", "subscription", "profile", "consent")


def churn_rows(platform: Platform) -> tuple[list[tuple[str, int]], Counter]:
    """(user, midnight) of every row that should be, and how many are left out for which reason."""
    last, left_out, rows = newest(platform, *USER_EVENTS), Counter(), []
    for person in PEOPLE:
        own = [one for one in platform.told if one.get("user_id") == person and one["event_name"].partition(".")[0] in
               ("auth", "support", "payment", "subscription")]  # fmt: skip
        for day in range(-1, 40):
            t = MIDNIGHT + day * DAY
            before = [one for one in own if one["event_timestamp"] < t]
            is_over = any(one["event_name"] == "subscription.cancelled" for one in before)
            if t > last or is_over or not any(t - one["event_timestamp"] <= 10 * DAY for one in before):
                continue
            if t + 4 * DAY > last:
                left_out["horizon not wholly inside the data"] += 1
            elif MIDNIGHT + 11 * DAY <= t < MIDNIGHT + 15 * DAY or MIDNIGHT + 18 * DAY <= t < MIDNIGHT + 22 * DAY:
                left_out["in the gap between splits"] += 1
            else:
                rows.append((hashed(person), t))
    return rows, left_out


def test_churn_has_the_rows_of_those_who_were_there_and_counts_the_others(platform, churn):
    expected, left_out = churn_rows(platform)
    got = rows_of(churn)
    assert len(got) == sum(churn.rows.values())
    kept = {(row["user_id"], row["t"]) for row in got}
    assert len(kept) == len(got)
    assert kept <= set(expected)
    dropped = churn.left_out.pop("left out to balance")
    assert len(expected) - len(got) == dropped > 0
    assert {name: count for name, count in churn.left_out.items() if name != "left out to balance"} == left_out
    assert churn.manifest["counts"]["rows"] == len(expected) + sum(left_out.values())
    nobody = {hashed(who) for who in (KID, REFUSER)}
    assert not nobody & {user for user, _ in kept}
    assert churn.manifest["events_left_out"]["features.accounts_by_user_id"].keys() >= {"refused_on_event"}


def test_churn_labels_are_what_came_within_the_horizon(platform, churn):
    whose = {hashed(person): person for person in PEOPLE}
    seen = Counter()
    for row in rows_of(churn):
        came = Counter(
            one["event_name"]
            for one in platform.told
            if one.get("user_id") == whose[row["user_id"]] and row["t"] < one["event_timestamp"] <= row["t"] + 4 * DAY
        )
        assert row["churned"] == (came["subscription.cancelled"] > 0)
        assert row["contacts"] == came["support.contacted"]
        seen[row["split"], row["churned"]] += 1
    assert all(seen[split, True] for split in ("train", "validation"))


def test_churn_is_balanced_in_the_train_split_alone_with_weights_that_make_up_for_it(platform, churn):
    expected, _ = churn_rows(platform)
    got = {(row["user_id"], row["t"]): row for row in rows_of(churn)}
    for key in expected:
        row = got.get(key)
        if row is None:
            assert key[1] < MIDNIGHT + 11 * DAY, "only train rows are left out"
        else:
            assert row["weight"] == (2.0 if row["split"] == "train" and not row["churned"] else 1.0)
    train = [row for row in got.values() if row["split"] == "train" and not row["churned"]]
    of_all = sum(t < MIDNIGHT + 11 * DAY for _, t in expected) - sum(
        row["split"] == "train" and row["churned"] for row in got.values()
    )
    assert 0.3 < len(train) / of_all < 0.7


def test_splits_lie_apart_by_the_gap(churn, ranker):
    for one, horizon in ((churn, 4 * DAY), (ranker, 6 * HOUR)):
        times = {split: [row["t"] for row in rows_of(one) if row["split"] == split] for split in one.rows}
        bounds = one.manifest["split_ms"]
        assert max(times["train"]) < bounds["train_end"] == bounds["validation_begin"] - horizon
        assert bounds["validation_begin"] <= min(times["validation"])
        assert max(times["validation"]) < bounds["validation_end"] == bounds["test_begin"] - horizon
        assert bounds["test_begin"] <= min(times["test"])


@pytest.mark.parametrize("which", ["churn", "ranker"])
def test_features_are_those_of_the_join(platform, which, request):
    one = request.getfixturevalue(which)
    declared = {"churn": CHURN, "ranker": RANKER}[which]
    got = pa.concat_tables([pq.read_table(path, partitioning=None) for split in one.rows for path in one.paths(split)])
    features = [name for name in got.column_names if "__" in name]
    joined = join(platform.settings, got.drop_columns(features), Request(declared.features, declared.purpose)).table()
    assert joined.select(features).equals(got.select(features))
    assert any(got[name].null_count < got.num_rows for name in features)
    assert set(one.manifest["columns"]) == {name for name in features if not name.endswith("age_ms")}


def started(platform: Platform) -> list[tuple[str, int, str]]:
    return [
        (one["user_id"], one["event_timestamp"], one["content_id"])
        for one in platform.told
        if one["event_name"] == "playback.started" and one["user_id"] in PEOPLE
    ]


def offered(platform: Platform, t: int) -> set[str]:
    """Titles on offer at an instant, by what the catalogue had said before it."""
    said: dict[str, dict] = {}
    for one in sorted((o for o in platform.told if o["event_name"] in ("title.added", "availability.changed")),
                      key=lambda o: o["event_timestamp"]):  # fmt: skip
        if one["event_timestamp"] < t:
            said[one["content_id"]] = said.get(one["content_id"], {}) | one
    return {
        name
        for name, facts in said.items()
        if facts["content_type"] == "vod"
        and facts.get("is_available") is not False
        and (facts.get("available_until") is None or t < facts["available_until"])
    }


def test_ranker_has_each_start_and_negatives_that_were_on_offer(platform, ranker):
    rows = rows_of(ranker)
    own = [row for row in rows if not row["is_drawn"]]
    last = newest(platform, "playback")
    whose = {hashed(person): person for person in PEOPLE}
    usable = [one for one in started(platform) if one[1] - 1 + 6 * HOUR <= last]
    assert len(own) + ranker.left_out["in the gap between splits"] == len(usable)
    assert {(whose[row["user_id"]], row["t"] + 1, row["content_id"]) for row in own} <= set(usable)
    drawn: dict[str, list[dict]] = {}
    for row in rows:
        if row["is_drawn"]:
            drawn.setdefault(row["event_id"], []).append(row)
    for row in own:
        others = offered(platform, row["t"]) - {row["content_id"]}
        negatives = drawn[row["event_id"]]
        assert {one["content_id"] for one in negatives} <= others
        assert len({one["content_id"] for one in negatives}) == len(negatives) == min(3, len(others))
        assert all(one["weight"] == len(others) / len(negatives) for one in negatives)
        assert all((one["profile_id"], one["t"], one["split"]) == (row["profile_id"], row["t"], row["split"])
                   for one in negatives)  # fmt: skip
        assert row["weight"] == 1.0
    # Titles that came later or had gone are drawn only while they were there.
    assert {one["content_id"] for ones in drawn.values() for one in ones} == {f"vod-{n}" for n in range(10)}
    assert ranker.manifest["counts"]["drawn"] == len(rows) - len(own)


def test_ranker_labels_are_right_by_duckdb(platform, ranker):
    stops = [
        {"profile_id": hashed(f"{one['user_id']}-p"), "content_id": one["content_id"], "at": one["event_timestamp"],
         "done": one["completion_percent"] >= 50}
        for one in platform.told
        if one["event_name"] == "playback.stopped"
    ]  # fmt: skip
    stopped, rows = pl.DataFrame(stops), pl.DataFrame(rows_of(ranker)).drop("event_timestamp")
    con = duckdb.connect()
    con.register("stopped", stopped.to_arrow())
    con.register("rows", rows.to_arrow())
    wrong, right = con.sql(
        """
        WITH truth AS (
            SELECT r.event_id, r.content_id, r.finished, r.next_title,
                   coalesce(bool_or(s.done AND s.content_id = r.content_id), false) AS did,
                   arg_min(s.content_id, s.at) FILTER (s.done) AS came
            FROM rows r LEFT JOIN stopped s
              ON s.profile_id = r.profile_id AND s.at > r.t AND s.at <= r.t + 21600000
            GROUP BY ALL)
        SELECT count(*) FILTER (did <> finished OR came IS DISTINCT FROM next_title), count(*) FILTER (did)
        FROM truth
        """
    ).fetchall()[0]
    assert wrong == 0
    assert right > 20
    positives = pl.DataFrame(rows_of(ranker)).group_by("is_drawn").agg(pl.col("finished").mean())
    by_kind = dict(positives.iter_rows())
    assert by_kind[False] > by_kind[True]


def test_every_row_is_accounted_for(churn, ranker):
    for one in (churn, ranker):
        counts = one.manifest["counts"]
        assert counts["rows"] + counts["drawn"] == sum(one.rows.values()) + sum(one.manifest["excluded"].values())


def test_the_same_inputs_have_a_set_already_and_its_snapshots_are_kept(platform, churn):
    stamp = (churn.folder / "manifest.json").stat().st_mtime_ns
    again = build(platform.settings, CHURN)
    assert again.folder == churn.folder
    assert (again.folder / "manifest.json").stat().st_mtime_ns == stamp
    pins = Readers.of(Lakehouse.open(platform.settings), platform.settings.work_dir).pins
    for table, snapshot in churn.manifest["snapshots"].items():
        assert snapshot in pins[table]


def test_a_manifest_declares_what_was_built(churn, ranker):
    for one, declared in ((churn, CHURN), (ranker, RANKER)):
        assert from_json(json.loads(json.dumps(as_json(declared)))) == declared
        assert from_json(one.manifest["declaration"]) == declared
        manifest = one.manifest
        assert manifest["code_version"]
        assert manifest["schema_hash"]
        assert [name for name, _ in manifest["schema"]] == one.schema.names


def test_draws_do_not_depend_on_how_the_data_are_cut(platform, churn, ranker, tmp_path):
    """The same rows handed over as files of other sizes, in another order, get the same draws and weights."""
    for one, declared in ((churn, CHURN), (ranker, RANKER)):
        spine = declared.spine
        own = rows_table(platform, one, declared)
        shuffled = own.take(pa.array(list(reversed(range(own.num_rows)))))
        folder = tmp_path / declared.name
        folder.mkdir()
        for number, start in enumerate(range(0, shuffled.num_rows, 7)):
            pq.write_table(shuffled.slice(start, 7), folder / f"rows-{number:03d}.parquet")
        bounds = one.manifest["split_ms"]
        files = replace(
            declared,
            name=f"{declared.name}_of_files",
            spine=FileRows(str(folder), spine.identity),
            split=SplitAt(bounds["validation_begin"], bounds["test_begin"], bounds["gap"]),
        )
        again = build(platform.settings, files)
        assert len(again.paths("train")) > len(one.paths("train"))
        assert in_order(again) == in_order(one)


def test_smaller_tasks_make_the_same_rows(platform, churn, ranker, monkeypatch):
    monkeypatch.setattr("pipelines.training_sets.build.ROWS_PER_PART", 40)
    for one, declared in ((churn, CHURN), (ranker, RANKER)):
        again = build(platform.settings, replace(declared, name=f"{declared.name}_in_parts"))
        assert len(again.paths("train")) > len(one.paths("train"))
        assert in_order(again) == in_order(one)
        for kind in ("rows", "excluded", "counts", "split_ms"):
            assert again.manifest[kind] == one.manifest[kind]


def in_order(one: BuiltTrainingSet) -> list[dict]:
    names = ("split", "t", "user_id", "event_id", "content_id")
    return sorted(rows_of(one), key=lambda row: [str(row.get(name)) for name in names])


def rows_table(platform: Platform, one: BuiltTrainingSet, declared: TrainingSet) -> pa.Table:
    """All rows of a set before anything is drawn or left out: built without balance and negatives."""
    whole = build(platform.settings, replace(declared, name=f"{declared.name}_whole", sampling=Sampling()))
    tables = [pq.read_table(path, partitioning=None) for split in whole.rows for path in whole.paths(split)]
    return pa.concat_tables(tables).select(list(declared.spine.columns))


def test_another_seed_draws_others(platform, churn, ranker):
    for one, declared in ((churn, CHURN), (ranker, RANKER)):
        other = build(platform.settings, replace(declared, sampling=replace(declared.sampling, seed=77)))
        assert other.folder != one.folder
        assert rows_of(other) != rows_of(one)


def test_rows_of_an_iceberg_table_and_what_may_not_be_used_in_them(platform, ranker):
    """Rows that somebody else made name a child, a stranger, somebody before the data, and no instant."""
    people = [VIEWERS[0], VIEWERS[6], KID, "stranger", LEAVER]
    at = [T0 + 5 * DAY, T0 + 21 * DAY, T0 + 6 * DAY, T0 + 6 * DAY, T0 - 9 * DAY]
    rows = pa.table(
        {
            "row": [1, 2, 3, 4, 5, 6],
            "profile_id": [*(hashed(f"{who}-p") for who in people), hashed(f"{VIEWERS[1]}-p")],
            "content_id": ["vod-1"] * 6,
            "asked_at": pa.array([*at, None], pa.int64())
            .cast(pa.timestamp("ms", tz="UTC"))
            .cast(pa.timestamp("us", tz="UTC")),
        }
    )
    lakehouse = Lakehouse.open(platform.settings)
    table = lakehouse.table(TableSpec("gold.asked", rows.schema))
    commit_files(table, write_files(TableFiles.of(table), rows), None)
    declared = TrainingSet(
        name="asked",
        spine=TableRows("gold.asked", ("row",), instant="asked_at"),
        features=("user_viewing_history.completion_rate",),
        purpose=Purpose.PERSONALIZATION,
        label=Label("started", Happened("is_start"), VIEWING_LOG, by=("profile_id",)),
        horizon_ms=DAY,
        sampling=Sampling(negatives=Negatives("content_id", 2, SeenIn(VIEWING_LOG, "content_id"))),
        split=SplitAt(T0 + 20 * DAY, T0 + 25 * DAY),
    )
    one = build(platform.settings, declared)
    assert one.left_out == {"kids_profile": 2, "without an instant": 1, "before the data begin": 1}
    assert one.frame("train").filter(~pl.col("is_drawn"))["row"].to_list() == [1]
    assert one.frame("validation").filter(~pl.col("is_drawn"))["row"].to_list() == [2]
    first = {}
    for one_event in platform.told:
        if one_event["event_name"] == "playback.started" and one_event["user_id"] in PEOPLE:
            name, t = one_event["content_id"], one_event["event_timestamp"]
            first[name] = min(first.get(name, t), t)
    for split, t in (("train", at[0]), ("validation", at[1])):
        drawn = one.frame(split).filter("is_drawn")
        others = {name for name, since in first.items() if since < t} - {"vod-1"}
        assert set(drawn["content_id"]) <= others
        assert set(drawn["weight"]) == {len(others) / 2}
    # The table gains a column and rows; as of its snapshot it has neither.
    more = rows.slice(0, 1).append_column("colour", pa.array(["red"]))
    table = lakehouse.table(TableSpec("gold.asked", more.schema))
    commit_files(table, write_files(TableFiles.of(table), more), None)
    again = rebuild(platform.settings, one.folder / "manifest.json")
    assert again.is_same
    assert again.built.frame("train").equals(one.frame("train"))
    anew = build(platform.settings, declared)
    assert anew.rows["train"] == 2 * one.rows["train"]
    assert set(anew.frame("train")["colour"]) == {None, "red"}


def test_what_does_not_fit_is_refused_in_one_line(platform, tmp_path):
    settings = platform.settings
    with pytest.raises(PurposeNotAllowedError, match="no purpose is given"):
        replace(CHURN, purpose=None)
    with pytest.raises(PurposeNotAllowedError, match="declared for the purpose personalization"):
        replace(CHURN, purpose=Purpose.ANALYTICS)
    of_session = pa.table({"session_id": ["s"], "event_timestamp": pa.array([T0]).cast(TIME)})
    pq.write_table(of_session, tmp_path / "rows.parquet")
    nobody = replace(
        CHURN, spine=FileRows(str(tmp_path / "rows.parquet"), ("session_id",)), features=("session_context",),
        label=Label("again", Happened(), VIEWING_LOG, by=("user_id",)), sampling=Sampling(),
    )  # fmt: skip
    with pytest.raises(DeclarationError, match="its rows have no column user_id"):
        build(settings, nobody)
    with pytest.raises(EmptyTrainingSetError, match="would have no train row"):
        build(settings, replace(CHURN, split=SplitAt(MIDNIGHT - 30 * DAY, MIDNIGHT - 20 * DAY)))
    with pytest.raises(EmptyTrainingSetError, match="no row that may be used"):
        build(settings, replace(RANKER, horizon_ms=90 * DAY))
    with pytest.raises(ManifestError, match="there is no manifest"):
        rebuild(settings, tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text('{"name": "recommendation"}')
    with pytest.raises(ManifestError, match="no manifest of a declared training set"):
        rebuild(settings, tmp_path / "manifest.json")
    with pytest.raises(SelectionError, match="has no feature"):
        replace(CHURN, features=("churn_signals.mood",))
    with pytest.raises(DeclarationError, match="none of its labels"):
        replace(CHURN, sampling=Sampling(balance=Balance("left", ((False, 0.5),))))
