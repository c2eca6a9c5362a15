"""Feast's SDK on Reel's online store: what Feast's own store gives that holds the same values, and refusals."""

import asyncio
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis
from feast import FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Float64
from hypothesis import given, settings
from hypothesis import strategies as st

from features.entities import entity as entity_of
from features.errors import PackedValueError, PurposeNotAllowedError
from features.groups import GROUPS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.packing import pack
from features.plain import python_values
from features.services import Service, services_of
from features.windows import DAY_MS, HOUR_MS, MINUTE_MS
from pipelines.feast.errors import NotReelsError
from serving.online_store import OnlineStore, StoreUnavailableError, open_online_store
from tests.pipelines.feast.stocked import ASKED_MS, VIEWS, Stock, feasts, reels
from tests.serving.conftest import redis_url  # noqa: F401  # a fixture

VIEWING, POPULARITY = "user_viewing_history_by_profile_id", "content_popularity_by_content_id"
ENGAGEMENT = "content_engagement_by_content_id"
SERVICES = services_of(GROUPS)
TTL_MS = CONTENT_POPULARITY.ttl_ms
AT_HOUR_MS = ASKED_MS - ASKED_MS % HOUR_MS


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "lmdb":
        return f"lmdb://{tmp_path_factory.mktemp('online')}/store"
    address: str = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(address) as client:
        client.flushdb()
    return address


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock.of(VIEWS)


@pytest.fixture(scope="module")
def known(stock: Stock) -> dict[str, pa.Table]:
    return stock.known


@pytest.fixture(scope="module")
def reel(url: str, stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    stock.put(url)
    return reels(tmp_path_factory.mktemp("reel"), url)


@pytest.fixture(scope="module")
def reference(known: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    folder = tmp_path_factory.mktemp("feast")
    return feasts(folder, known, {"type": "sqlite", "path": str(folder / "online.db")})


def keys_of(service: Service, known: dict[str, pa.Table]) -> dict[str, list[str]]:
    """Everybody, somebody twice, somebody unknown; by the entity's columns."""
    (entity,) = {view.entity for view in service.views}
    names = sorted({name for view in service.views for name in known[view.name][entity].to_pylist()})
    columns = entity_of(entity).columns
    names = [*names[::-1], names[0], "no/body"]
    if len(columns) == 1:
        return {columns[0]: names}
    return {column: [name.split("/")[place] for name in names] for place, column in enumerate(columns)}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_service_gives_what_feasts_own_store_gives(
    reel: FeatureStore, reference: FeatureStore, known: dict[str, pa.Table], service: Service
) -> None:
    keys = keys_of(service, known)
    mine = reel.get_online_features(reel.get_feature_service(service.name), keys)
    theirs = reference.get_online_features(reference.get_feature_service(service.name), keys)
    expected = theirs.to_dict(include_event_timestamps=True)
    said = mine.to_dict(include_event_timestamps=True)
    assert said.keys() == expected.keys()
    for name, values in expected.items():
        if not name.endswith("__ts"):
            assert said[name] == values, name
            fresh = [place for place, value in enumerate(values) if value is not None]
            assert [said[f"{name}__ts"][place] for place in fresh] == [
                expected[f"{name}__ts"][place] for place in fresh
            ]
    # The protobuf says the same, made from the columns.
    assert type(theirs)(mine.proto).to_dict(include_event_timestamps=True) == said
    for name, vector in zip(mine.proto.metadata.feature_names.val, mine.proto.results, strict=True):
        has_value = [status == FieldStatus.PRESENT for status in vector.statuses]
        assert has_value == [value is not None for value in said[name]], name


def test_the_comparison_has_values_of_every_feature_and_gaps(known: dict[str, pa.Table]) -> None:
    columns = {
        f"{view.name}.{one}": known[view.name][one] for view in VIEWS for one in view.group.feature_schema().names
    }
    assert [name for name, column in columns.items() if column.null_count == len(column)] == []
    assert sum(column.null_count for column in columns.values()) > 0


def test_rows_full_names_and_the_asynchronous_call(reel: FeatureStore, known: dict[str, pa.Table]) -> None:
    service = reel.get_feature_service(f"personalization_{POPULARITY}")
    rows = [{"content_id": name} for name in ("content_id-1", "content_id-2")]
    said = reel.get_online_features(service, rows).to_dict()
    assert said == reel.get_online_features(service, {"content_id": ["content_id-1", "content_id-2"]}).to_dict()
    full = reel.get_online_features(service, rows, full_feature_names=True).to_dict()
    assert full == {name if name == "content_id" else f"{POPULARITY}__{name}": values for name, values in said.items()}
    assert asyncio.run(reel.get_online_features_async(service, rows)).to_dict() == said
    listed = [f"{POPULARITY}:{feature.name}" for feature in CONTENT_POPULARITY.features]
    assert reel.get_online_features(listed, rows).to_dict() == said
    assert reel.get_online_features(service, rows).to_df().shape == (2, 5)
    versions = reel.get_online_features(service, rows, include_feature_view_version_metadata=True).proto.metadata
    assert [one.name for one in versions.feature_view_metadata] == [POPULARITY]


@pytest.fixture
def own(tmp_path: Path, stock: Stock) -> tuple[FeatureStore, OnlineStore]:
    """A repository and a store of a test's own."""
    url = f"lmdb://{tmp_path}/online"
    store = open_online_store(url)
    stock.put(url)
    return reels(tmp_path, url), store


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, OnlineStore]:
    folder = tmp_path_factory.mktemp("empty")
    url = f"lmdb://{folder}/online"
    store = open_online_store(url)
    return reels(folder, url), store


def views_of_feast(store: FeatureStore) -> dict[str, FeatureView]:
    return {view.name: view for view in store.list_feature_views()}


def test_without_a_purpose_that_is_allowed_it_is_refused(own: tuple[FeatureStore, OnlineStore]) -> None:
    store, _ = own
    view = views_of_feast(store)[POPULARITY]
    services = {
        "untagged": ({}, "no purpose is given"),
        "advertising": ({"purpose": "ad_targeting"}, "declared for the purpose personalization, and was asked for ad"),
        "nonsense": ({"purpose": "fun"}, "purpose is 'fun'; there are essential"),
    }
    store.apply(
        [
            FeatureService(name=name, features=[view[["hourly_viewers"]]], tags=tags)
            for name, (tags, _) in services.items()
        ]
    )
    rows = [{"content_id": "content_id-1"}]
    for name, (_, said) in services.items():
        with pytest.raises(PurposeNotAllowedError, match=said):
            store.get_online_features(store.get_feature_service(name), rows)
    with pytest.raises(PurposeNotAllowedError, match="several feature services have just these features"):
        store.get_online_features([f"{POPULARITY}:hourly_viewers"], rows)
    with pytest.raises(PurposeNotAllowedError, match="no purpose is given"):
        store.get_online_features([f"{POPULARITY}:completion_rate"], rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"profile_id": "x"}], "needs the key content_id; the rows have profile_id"),
        ([], "needs the key content_id; the rows have none"),
        ([{"content_id": 17}], "keys of content_id are texts; received 17"),
        ([{"content_id": "a"}, {"other": "b"}], "different keys"),
        ({"content_id": ["a"], "other": ["b", "c"]}, "different lengths: content_id 1, other 2"),
    ],
)
def test_rows_that_cannot_be_looked_up_are_refused(reel: FeatureStore, rows: Any, said: str) -> None:
    with pytest.raises(NotReelsError, match=said):
        reel.get_online_features(reel.get_feature_service(f"personalization_{POPULARITY}"), rows)


def test_a_value_of_another_version_or_a_damaged_one_is_refused_not_misread(
    own: tuple[FeatureStore, OnlineStore],
) -> None:
    store, packed = own
    service = store.get_feature_service(f"personalization_{POPULARITY}")
    (value,) = packed.get_many(POPULARITY, ["content_id-1"])
    assert value is not None
    for other, said in (
        (value[:5] + bytes(8) + value[13:], "older declaration"),
        (value[:-9], "damaged"),
        (b"{}", "are no packed value of content_popularity"),
    ):
        packed.put_many(POPULARITY, [("content_id-1", other)])
        with pytest.raises(PackedValueError, match=said):
            store.get_online_features(service, [{"content_id": "content_id-1"}])
        assert store.get_online_features(service, [{"content_id": "content_id-2"}]).to_dict()["hourly_viewers"] != [
            None
        ]


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    store = reels(tmp_path, f"lmdb://{tmp_path}/nowhere")
    with pytest.raises(StoreUnavailableError, match="no online store in"):
        store.get_online_features(store.get_feature_service(f"personalization_{POPULARITY}"), [{"content_id": "a"}])


def test_another_source_is_not_reels(own: tuple[FeatureStore, OnlineStore], tmp_path: Path) -> None:
    store, _ = own
    pd.DataFrame({"content_id": ["a"], "x": [1.0], "event_timestamp": [datetime.now(UTC)]}).to_parquet(
        tmp_path / "x.parquet"
    )
    source = FileSource(path=str(tmp_path / "x.parquet"), timestamp_field="event_timestamp")
    foreign = FeatureView(
        name="foreign", entities=[store.get_entity("content_id")], schema=[Field(name="x", dtype=Float64)],
        source=source, ttl=timedelta(days=1),
    )  # fmt: skip
    store.apply([foreign, FeatureService(name="foreign", features=[foreign], tags={"purpose": "personalization"})])
    with pytest.raises(NotReelsError, match="foreign reads FileSource"):
        store.get_online_features(store.get_feature_service("foreign"), [{"content_id": "a"}])


def test_an_on_demand_view_is_worked_out_of_what_is_stored(own: tuple[FeatureStore, OnlineStore]) -> None:
    store, _ = own

    @on_demand_feature_view(
        sources=[views_of_feast(store)[POPULARITY]], schema=[Field(name="doubled", dtype=Float64)], mode="pandas"
    )
    def doubled_rate(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"doubled": inputs["completion_rate"].astype(float) * 2})

    view = views_of_feast(store)[POPULARITY][["completion_rate"]]
    service = FeatureService(name="doubled", features=[doubled_rate, view], tags={"purpose": "personalization"})
    with pytest.warns(RuntimeWarning, match="experimental feature"):
        store.apply([doubled_rate, service])
    rows = {"content_id": [f"content_id-{number}" for number in range(8)]}
    said = store.get_online_features(service, rows).to_dict()
    plain = store.get_online_features(store.get_feature_service(f"personalization_{POPULARITY}"), rows).to_dict()
    assert said["completion_rate"] == plain["completion_rate"]
    for rate, doubled in zip(plain["completion_rate"], said["doubled"], strict=True):
        assert doubled is None or np.isnan(doubled) if rate is None else doubled == 2 * rate
    assert any(rate is not None for rate in plain["completion_rate"])


numbers = st.one_of(st.none(), st.floats(allow_nan=False))
texts = st.one_of(st.none(), st.text(max_size=3))
COLUMNS = {
    pa.float64(): numbers,
    pa.int64(): st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    pa.string(): texts,
    pa.list_(pa.float64()): st.one_of(st.none(), st.lists(numbers, max_size=3)),
    pa.list_(pa.string()): st.one_of(st.none(), st.lists(texts, max_size=3)),
    pa.map_(pa.string(), pa.float64()): st.one_of(st.none(), st.dictionaries(st.text(max_size=3), numbers, max_size=3)),
}


@pytest.mark.parametrize("kind", COLUMNS, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_columns_become_the_lists_that_arrow_makes_of_them(kind: pa.DataType, data: st.DataObject) -> None:
    column = pa.array(data.draw(st.lists(COLUMNS[kind], max_size=8)), kind)
    start = data.draw(st.integers(0, 8))
    for part in (column, column.slice(start), column.slice(start, 2)):
        assert python_values(part) == part.to_pylist(maps_as_pydicts="strict")


def put_row(store: OnlineStore, boundary_ms: int, last_event_ms: int, viewers: int) -> None:
    row = {
        "content_id": "title", "event_timestamp": boundary_ms, "created_timestamp": boundary_ms + 15 * MINUTE_MS,
        "last_event_timestamp": last_event_ms, "hourly_viewers": viewers, "daily_unique_viewers": viewers,
        "completion_rate": 0.5, "trending_velocity": None,
    }  # fmt: skip
    table = pa.Table.from_pylist([row], CONTENT_POPULARITY.row_schema("content_id"))
    store.put_many(POPULARITY, pack(CONTENT_POPULARITY, "content_id", table))


def ask(store: FeatureStore, packed: OnlineStore, at_ms: int, names: list[str]) -> Any:
    packed.put_many("meta", [("watermark_ms", json.dumps(at_ms).encode())])
    return store.get_online_features(store.get_feature_service(f"personalization_{POPULARITY}"), {"content_id": names})


@settings(max_examples=60, deadline=None)
@given(
    back_hours=st.integers(0, 300),
    age_ms=st.one_of(st.integers(0, 2 * TTL_MS), st.sampled_from([TTL_MS - 1, TTL_MS, TTL_MS + 1])),
    past_ms=st.one_of(st.integers(0, HOUR_MS - 1), st.sampled_from([15 * MINUTE_MS - 1, 15 * MINUTE_MS])),
    unknown=st.text(max_size=500),
)
def test_the_ttl_and_the_delay_are_obeyed_whatever_the_instant(
    empty: tuple[FeatureStore, OnlineStore], back_hours: int, age_ms: int, past_ms: int, unknown: str
) -> None:
    store, packed = empty
    at_ms = AT_HOUR_MS + past_ms
    boundary_ms = AT_HOUR_MS - back_hours * HOUR_MS
    put_row(packed, boundary_ms, at_ms - age_ms, 7)
    answer = ask(store, packed, at_ms, ["title", unknown])
    # A boundary is known 15 minutes after it, from the first boundary at or after which that is so.
    is_known = boundary_ms <= (at_ms - 15 * MINUTE_MS) // HOUR_MS * HOUR_MS
    is_fresh = is_known and age_ms <= TTL_MS
    expected = FieldStatus.PRESENT if is_fresh else FieldStatus.OUTSIDE_MAX_AGE if is_known else FieldStatus.NOT_FOUND
    said = answer.to_dict(include_event_timestamps=True)
    unknown_value = 7 if unknown == "title" and is_fresh else None
    assert said["hourly_viewers"] == [7 if is_fresh else None, unknown_value]
    assert said["trending_velocity"] == [None, None]
    assert said["hourly_viewers__ts"][0] == ((at_ms - age_ms) // 1000 if is_known else 0)
    statuses = dict(
        zip(answer.proto.metadata.feature_names.val, [one.statuses for one in answer.proto.results], strict=True)
    )
    assert statuses["hourly_viewers"][0] == expected
    assert statuses["trending_velocity"][0] == (FieldStatus.NULL_VALUE if is_fresh else expected)
    assert unknown == "title" or statuses["hourly_viewers"][1] == FieldStatus.NOT_FOUND


def frame(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """(title, boundary, viewers) as Feast's writers give rows."""
    at = [pd.Timestamp(boundary_ms, unit="ms", tz="UTC") for _, boundary_ms, _ in rows]
    return pd.DataFrame(
        {
            "content_id": [title for title, *_ in rows], "event_timestamp": at, "created_timestamp": at,
            "hourly_viewers": [viewers for *_, viewers in rows], "daily_unique_viewers": [1] * len(rows),
            "completion_rate": [0.25] * len(rows), "trending_velocity": [None] * len(rows),
        }
    )  # fmt: skip


def test_rows_that_feast_writes_are_read_again_and_never_replace_a_later_boundary(
    empty: tuple[FeatureStore, OnlineStore],
) -> None:
    store, packed = empty
    one, two = f"one-{uuid.uuid4()}", f"two-{uuid.uuid4()}"
    asked_ms = AT_HOUR_MS + 20 * MINUTE_MS

    def viewers() -> list[Any]:
        said: list[Any] = ask(store, packed, asked_ms, [one, two]).to_dict()["hourly_viewers"]
        return said

    store.write_to_online_store(
        POPULARITY, frame((one, AT_HOUR_MS, 5), (one, AT_HOUR_MS - HOUR_MS, 4), (two, AT_HOUR_MS, 9))
    )
    assert viewers() == [5, 9]
    store.write_to_online_store(POPULARITY, frame((one, AT_HOUR_MS - HOUR_MS, 3), (two, AT_HOUR_MS, 10)))
    assert viewers() == [5, 10]
    packed.put_many(POPULARITY, [(one, b"of another version")])
    store.write_to_online_store(POPULARITY, frame((one, AT_HOUR_MS - HOUR_MS, 2)))
    assert viewers() == [2, 10]
    store.write_to_online_store(POPULARITY, frame((one, AT_HOUR_MS + HOUR_MS, 6)))
    assert viewers() == [None, 10]  # a later boundary is not known yet at this instant


@pytest.mark.parametrize(
    ("view", "said"),
    [(VIEWING, "stored as tiles"), ("churn_signals_by_user_id", "is of people")],
)
def test_what_reel_alone_may_write_is_refused_by_name(
    empty: tuple[FeatureStore, OnlineStore], known_frame: Callable[[str], pd.DataFrame], view: str, said: str
) -> None:
    store, packed = empty
    with pytest.raises(NotReelsError, match=f"{view} .*{said}.*`reel features`"):
        store.write_to_online_store(view, known_frame(view))
    assert not list(packed.keys(view))


@pytest.fixture
def known_frame(empty: tuple[FeatureStore, OnlineStore]) -> Callable[[str], pd.DataFrame]:
    store, _ = empty

    def make(name: str) -> pd.DataFrame:
        view = views_of_feast(store)[name]
        at = pd.Timestamp(ASKED_MS - DAY_MS, unit="ms", tz="UTC")
        features = {field.name: [None] for field in view.features}
        first = "completion_rate" if name == VIEWING else "engagement_trend"
        return pd.DataFrame(
            features | {first: [0.5], view.join_keys[0]: ["x"], "event_timestamp": [at], "created_timestamp": [at]}
        )

    return make


def test_a_view_that_is_no_more_takes_its_values_along_and_no_others(own: tuple[FeatureStore, OnlineStore]) -> None:
    store, packed = own
    packed.put_many("consents", [("somebody", b"{}")])
    packed.put_many("meta", [("identity", b'"before"'), ("built_from", b'"something"')])
    alias = FeatureView(
        name="popularity", entities=[store.get_entity("content_id")], ttl=timedelta(days=1),
        schema=[Field(name="completion_rate", dtype=Float64)], source=views_of_feast(store)[POPULARITY].batch_source,
    )  # fmt: skip
    store.apply([alias])
    before = len(list(packed.keys(POPULARITY)))
    store.apply([], objects_to_delete=[alias], partial=False)
    assert len(list(packed.keys(POPULARITY))) == before > 0  # it only read them
    assert packed.get_many("meta", ["identity"]) == [b'"before"']
    services = [one for one in store.list_feature_services() if POPULARITY in str(one)]
    store.apply([], objects_to_delete=[views_of_feast(store)[POPULARITY], *services], partial=False)
    assert not list(packed.keys(POPULARITY))
    assert list(packed.keys(ENGAGEMENT))
    # Reel must know that what it once put there is not there any more.
    assert packed.get_many("meta", ["identity", "built_from"])[0] != b'"before"'
    assert packed.get_many("meta", ["built_from"]) == [b"null"]
    store.teardown()
    assert not list(packed.keys(ENGAGEMENT))
    assert packed.get_many("consents", ["somebody"]) == [b"{}"]
