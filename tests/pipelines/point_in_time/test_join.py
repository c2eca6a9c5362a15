"""The join on Ray: what a service would have had, whatever the left table is and however it is cut."""

import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from features.entities import entity as entity_of
from features.errors import LogError, PurposeNotAllowedError, SelectionError
from features.groups import GROUPS
from features.purposes import Purpose
from features.source import Source
from features.values import values_at
from features.windows import Cadence
from pipelines.feature_logs import silver_schemas
from pipelines.lakehouse.scans import by_bucket
from pipelines.lakehouse.tables import TITLES
from pipelines.point_in_time.exchange import NotCutError
from pipelines.point_in_time.join import EventValues, FeaturesNotBuiltError, OutputExistsError, Request, join
from pipelines.point_in_time.left import LeftTableError
from tests.features import oracle
from tests.pipelines.watched import KID, LEAVER, REFUSER, VIEWERS
from tests.platform import DAY, HOUR, T0, Platform, hashed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
TIME = pa.timestamp("ms", tz="UTC")
BOTH = ["user_viewing_history", "content_popularity"]


@pytest.fixture(scope="module")
def platform(watched_platform) -> Platform:
    return watched_platform


def ms(instant) -> int:
    return round(instant.timestamp() * 1000)


def is_same(one, other) -> bool:
    """Equal, but for the last bits of real numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and one and isinstance(one[0], float):
        return len(one) == len(other) and all(map(is_same, one, other))
    return math.isclose(one, other, rel_tol=1e-9) if isinstance(one, float) else one == other


@pytest.fixture(scope="module")
def left(platform) -> pa.Table:
    """Rows in no order, some of nobody, of strangers, without an instant, and twice the same."""
    chance = random.Random(5)
    people = [*VIEWERS, *VIEWERS, KID, REFUSER, LEAVER, "stranger", None]
    rows = []
    for _ in range(240):
        person = chance.choice(people)
        rows.append(
            {
                "profile_id": hashed(f"{person}-p") if person else None,
                "content_id": chance.choice([*(f"vod-{n}" for n in range(8)), "vod-none", None]),
                "event_timestamp": None if chance.random() < 0.05 else chance.randrange(T0 - DAY, platform.watermark),
            }
        )
    rows += rows[:20]
    kinds = {"profile_id": pa.string(), "content_id": pa.string(), "event_timestamp": TIME}
    table = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
    return table.append_column("row", pa.array(np.arange(table.num_rows)))


def request(*features, **changes) -> Request:
    return Request(features or BOTH, **({"purpose": Purpose.PERSONALIZATION} | changes))


@pytest.fixture(scope="module")
def joined(platform, left):
    return join(platform.settings, left, request(reason="why"))


def a_world(platform, people):
    """Events of some people as the oracle reads them, and the titles."""
    whose = {hashed(f"{person}-p") for person in people}
    events = [
        row
        | {
            "time": ms(row["event_timestamp"]),
            "client_timestamp": ms(row["client_timestamp"]) if row["client_timestamp"] else None,
        }
        for row in platform.silver
        if row["profile_id"] in whose
    ]
    titles = [row | {"time": ms(row["event_timestamp"])} for row in platform.rows("silver.titles")]
    return events, titles


def test_every_row_has_what_the_oracle_says(platform, left, joined):
    mine = a_world(platform, VIEWERS)
    # Popularity keeps what was allowed at its boundary: he who withdrew later is still counted.
    everybody = a_world(platform, [*VIEWERS, LEAVER])
    table = joined.table()
    answered = 0
    for row in table.to_pylist():
        t = ms(row["event_timestamp"]) if row["event_timestamp"] else None
        expected = {name: None for name in table.column_names if "__" in name}
        if t is not None and row["profile_id"] is not None:
            values, age = oracle.user_viewing_history(*mine, "profile_id", row["profile_id"], t)
            expected |= {f"user_viewing_history__{name}": value for name, value in values.items()}
            expected["user_viewing_history__age_ms"] = age
        if t is not None and row["content_id"] is not None:
            values, age = oracle.content_popularity(*everybody, row["content_id"], t)
            expected |= {f"content_popularity__{name}": value for name, value in values.items()}
            expected["content_popularity__age_ms"] = age
        genres = row["user_viewing_history__last_30_day_genres"]
        row["user_viewing_history__last_30_day_genres"] = dict(genres) if genres is not None else None
        for name, value in expected.items():
            assert is_same(row[name], value), (row["row"], name, row[name], value)
            answered += value is not None
    assert answered > 500


def test_every_group_of_every_entity_is_what_its_log_says(platform):
    """All declared groups, whichever their source and the columns of their key, against values from silver itself."""
    chance, of_nobody = np.random.default_rng(8), []
    for one in GROUPS:
        # What was published at a boundary stays; a value of its own instant has nothing of who withdrew since.
        log = log_of(platform, one.source, but=LEAVER if one.cadence is Cadence.EVENT else None)
        for entity in one.entities:
            gone = {hashed(f"{LEAVER}{suffix}") for suffix in ("", "-p", "-session")}
            keys = [*sorted(set(log[entity].drop_null().to_pylist()) - gone), None, "nobody"]
            chosen = pa.array([keys[place] for place in chance.integers(0, len(keys), 60)], pa.string())
            instants = chance.integers(T0, platform.watermark, 60)
            left = pa.table(key_columns(entity, chosen) | {"event_timestamp": pa.array(instants).cast(TIME)})
            if entity == "session_id":  # whose it is must be said; nobody here has withdrawn
                left = left.append_column("user_id", pa.array([hashed(VIEWERS[0])] * 60))
            name = one.stored_as(entity)
            table = join(platform.settings, left, request(name)).table()
            exact = values_at(one, entity, log, chosen, instants)
            for column in exact.column_names:
                to = f"{name}__{column}" if column != one.age_column else f"{name}__age_ms"
                for mine, theirs in zip(table[to].to_pylist(), exact[column].to_pylist(), strict=True):
                    assert is_same(mine, theirs), (name, column, mine, theirs)
            if table[f"{name}__age_ms"].null_count == 60:
                of_nobody.append(name)
    assert of_nobody == ["concurrent_viewers_by_channel_id"]  # nobody here has watched what is live


def key_columns(entity: str, keys: pa.Array) -> dict[str, pa.Array]:
    """The left table's columns of an entity: where it has several, they and not its key."""
    names = entity_of(entity).columns
    if names == (entity,):
        return {entity: keys}
    parts = [key.split("/") if key and "/" in key else [None] * len(names) for key in keys.to_pylist()]
    return {name: pa.array([part[place] for part in parts], pa.string()) for place, name in enumerate(names)}


def log_of(platform: Platform, source: Source, but: str | None) -> pa.Table:
    """The log of all whose events allow personalization, but one, straight from silver."""
    left_out = None if but is None else hashed(but)
    schemas = silver_schemas(platform.contract, platform.settings.lakehouse.event_partition)
    found = {"silver.titles": pa.Table.from_pylist(platform.rows("silver.titles"), schema=TITLES)}
    for name in source.reads:
        rows = [row for row in platform.rows(name) if row["consent_personalization"] and not row["is_kids"]]
        rows = [row for row in rows if left_out is None or row["user_id"] != left_out]
        found[name] = pa.Table.from_pylist(rows, schema=schemas[name])
    return source.log(found)


def test_left_rows_are_kept_as_they_are(left, joined):
    table = joined.table()
    assert table.select(left.column_names).equals(left)
    assert joined.rows == left.num_rows
    assert table.column_names[-1] == "why"
    assert joined.late == {}


def test_who_may_not_be_used_keeps_the_row_and_gets_nothing_personal(left, joined):
    reasons = {hashed(f"{KID}-p"): "kids_profile", hashed("stranger-p"): "kids_profile"}
    reasons[hashed(f"{LEAVER}-p")] = "withdrawn_since"
    rows = joined.table().to_pylist()
    for row in rows:
        assert row["why"] == reasons.get(row["profile_id"])
        if row["why"]:
            assert {row[name] for name in row if name.startswith("user_viewing_history__")} == {None}
    told = [row for row in rows if row["why"] == "withdrawn_since"]
    assert any(row["content_popularity__hourly_viewers"] is not None for row in told)
    for reason in set(reasons.values()):
        assert joined.excluded[reason] == sum(row["why"] == reason for row in rows) > 0


def test_a_user_who_withdrew_is_known_by_profile_and_by_user(platform, left):
    by_user = pa.table(
        {"user_id": [hashed(LEAVER), hashed(VIEWERS[0])], "event_timestamp": left["event_timestamp"][:2]}
    )
    said = join(platform.settings, by_user, request("user_viewing_history.completion_rate", reason="why"))
    assert said.table()["why"].to_pylist() == ["withdrawn_since", None]
    # Consent is asked for as of an instant: before he withdrew he was in.
    earlier = request("user_viewing_history.completion_rate", reason="why", at_ms=platform.watermark - 1)
    assert join(platform.settings, by_user, earlier).excluded == {}


def test_files_in_and_files_out_are_the_same(platform, left, joined, tmp_path):
    pq.write_table(left.slice(0, 100), tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(left.slice(100), tmp_path / "b.parquet")
    written = join(platform.settings, tmp_path, request(reason="why"), tmp_path / "out")
    assert written.parts == []
    assert [path.name for path in written.paths] == ["part-00000.parquet", "part-00001.parquet"]
    read = pa.concat_tables([pq.read_table(path) for path in written.paths])
    assert read.to_pylist() == joined.table().to_pylist()
    assert written.excluded == joined.excluded
    with pytest.raises(OutputExistsError, match="is there already"):
        join(platform.settings, left, request(), tmp_path / "out")


def test_parts_in_rays_store_are_joined_where_they_are(platform, left, joined):
    pieces = [ray.put(left.slice(start, 37)) for start in range(0, left.num_rows, 37)]
    again = join(platform.settings, pieces, request(reason="why"))
    assert len(again.parts) == len(pieces)
    assert again.table().equals(joined.table())


def test_parts_that_are_the_buckets_need_no_shuffle(platform, left, joined):
    keyed = left.filter(left["profile_id"].is_valid())
    buckets = platform.settings.lakehouse.buckets
    parts = by_bucket(keyed, "profile_id", buckets)
    cut = join(platform.settings, [ray.put(part) for part in parts], request(reason="why", cut_by="profile_id"))
    expected = {row["row"]: row for row in joined.table().to_pylist()}
    rows = cut.table().to_pylist()
    assert [row["row"] for row in rows] == pa.concat_tables(parts)["row"].to_pylist()
    assert all(row == expected[row["row"]] for row in rows)
    with pytest.raises(NotCutError, match=r"bucket\[2\]"):
        join(platform.settings, [ray.put(keyed)] * 2, request(cut_by="profile_id"))


def test_tiles_are_read_without_a_log(platform, left):
    said = join(platform.settings, left, request("user_viewing_history", event_values=EventValues.TILES))
    assert list(said.snapshots) == ["features.user_viewing_history_by_profile_id"]
    exact = join(platform.settings, left, request("user_viewing_history"))
    assert list(exact.snapshots) == ["features.viewing_log_by_profile_id"]
    ages = [
        (tiled, true)
        for tiled, true in zip(*(one.table()["user_viewing_history__age_ms"].to_pylist() for one in (said, exact)),
                               strict=True)
        if tiled is not None
    ]  # fmt: skip
    assert ages
    assert all(tiled >= true for tiled, true in ages), "a tile that has not ended was read"


def test_a_log_is_sorted_once(platform, left):
    first, second = (join(platform.settings, left, request()).snapshots for _ in range(2))
    assert first == second


def test_a_session_of_nobody_knows_whom_is_refused(platform):
    left = pa.table({"session_id": ["s"], "event_timestamp": pa.array([T0]).cast(TIME)})
    with pytest.raises(SelectionError, match="whose session_id is it"):
        join(platform.settings, left, request("session_context"))


def test_rows_after_the_last_boundary_that_is_built_are_counted(platform):
    late = pa.table(
        {"content_id": ["vod-1"] * 2, "event_timestamp": pa.array([platform.watermark + 3 * HOUR, T0]).cast(TIME)}
    )
    assert join(platform.settings, late, request("content_popularity")).late == {"content_popularity": 1}


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"purpose": None}, PurposeNotAllowedError, "no purpose is given"),
        ({"purpose": Purpose.ANALYTICS}, PurposeNotAllowedError, "declared for the purpose personalization"),
        ({"instant": "at"}, SelectionError, "no column at"),
        ({"reason": "row"}, SelectionError, "row already"),
        ({"instant": "row"}, LogError, "where a timestamp is needed"),
        ({"keys": {"content_id": "row"}}, LogError, "where a text is needed"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(platform, left, changes, error, said):
    with pytest.raises(error, match=said):
        join(platform.settings, left, request("content_popularity", **changes))


def test_a_left_table_that_is_none_is_refused(platform, tmp_path: Path):
    for wrong, said in (([], "has no part"), ([1], "is a int"), (tmp_path / "none", "no Parquet file")):
        with pytest.raises(LeftTableError, match=said):
            join(platform.settings, wrong, request())
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(LeftTableError, match="is no Parquet file"):
        join(platform.settings, tmp_path, request())


def test_features_that_were_never_built_are_missed(tmp_path, left):
    with pytest.raises(FeaturesNotBuiltError, match="run `reel features` first"):
        join(nothing_at(tmp_path), left, request("content_popularity"))


def nothing_at(folder: Path):
    from pipelines.settings import Settings

    return Settings(work_dir=folder)
