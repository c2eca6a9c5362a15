"""Feast's online store on Reel's: one packed value for each key of a view, valued as of the asked instant.

`FeatureStore(...).get_online_features(features=service, entity_rows=...)` reads all keys of all views at once and
values them in bulk. TTL, delay and sliding windows are those of every other path, and a value of another version of a
group is refused, not misread.

Keys are stored ids: a person's is the pseudonym, as the repository says of its entities. This is the tool of a trusted
scientist, who reads the store itself: the purpose that the feature service's tag says is asked for at each call, and
who withdrew is not in the store, since `reel features` deletes them. Services that know plain ids ask
`/get-online-features`, where each person's consent is asked for too.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from feast import Entity as FeastEntity
from feast import FeatureService
from feast.feature_view import FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

from features.declarations import CREATED, LAST_EVENT
from features.entities import entity as entity_of
from features.entities import key_of
from features.errors import PackedValueError
from features.packing import pack, unpack
from features.selection import require_purpose
from features.source import EVENT_TIME
from features.windows import Cadence
from pipelines.feast.errors import NotReelsError
from pipelines.feast.online_plan import OnlineView, Plans
from pipelines.feast.online_response import ColumnarResponse
from pipelines.feast.purposes import purpose_of_service
from pipelines.feast.source import ReelSource
from pipelines.online import OnlineTarget
from pipelines.settings import Settings, load_settings
from serving import online_store

FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
ReadRow = tuple[datetime | None, dict[str, Value] | None]
Columns = Mapping[str, Sequence[Any] | RepeatedValue]


class ReelOnlineStoreConfig(FeastConfigBaseModel):
    """The online store's part of `feature_store.yaml`."""

    type: Literal["pipelines.feast.online_store.ReelOnlineStore"] = "pipelines.feast.online_store.ReelOnlineStore"
    settings: str | None = None
    """Reel's settings file; null: REEL_CONFIG, else configs/local.yaml."""


@dataclass(frozen=True)
class _Opened:
    """A store that was opened for reading, by what the configuration said."""

    said: str | None
    settings: Settings
    store: online_store.OnlineStore


class ReelOnlineStore(OnlineStore):
    """The plug-in that `feature_store.yaml` names."""

    def __init__(self) -> None:
        self._opened: _Opened | None = None
        self._plans = Plans()

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Columns,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """The features of each row as a service asked now would get them.

        What on-demand views need is worked out by Feast, from what `online_read` gives.

        Raises:
            PurposeNotAllowedError: no feature service with a purpose has these features, or a group is for another.
            NotReelsError: a view's source is not Reel's, or a row lacks a key.
            PackedValueError: a stored value is damaged, or of another version of its group.
            StoreUnavailableError: the store cannot be read.
        """
        plan = self._plans.of(features, registry, project, has_full_names=full_feature_names)
        require_purpose(
            purpose_of_service(features) if isinstance(features, FeatureService) else plan.purpose, plan.selections
        )
        if plan.is_on_demand:
            return super().get_online_features(
                config, features, entity_rows, registry, project, full_feature_names,
                include_feature_view_version_metadata,
            )  # fmt: skip
        columns = _columnar(entity_rows)
        texts = _texts(columns, plan.needed_by)
        keys = [_keys([texts[name] for name in view.key_columns]) for view in plan.views]
        packed, asked_ms = self._read(config, list(zip((view.stored for view in plan.views), keys, strict=True)))
        answers = [view.answer(values, asked_ms) for view, values in zip(plan.views, packed, strict=True)]
        said = {name: list(values) for name, values in columns.items() if name in texts}
        return ColumnarResponse(said, answers, names_versions=include_feature_view_version_metadata)

    async def get_online_features_async(self, *arguments: Any, **named: Any) -> OnlineResponse:
        """The same, in a thread."""
        return await asyncio.to_thread(self.get_online_features, *arguments, **named)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """(last event that contributed, values) of each key; no values past the TTL, neither if it is unknown.

        Feast calls this for on-demand views, after `get_online_features` has asked for the purpose.
        """
        ours = OnlineView.of(table, requested_features)
        (packed,), asked_ms = self._read(config, [(ours.stored, _names_of(ours, entity_keys))])
        answer = ours.answer(packed, asked_ms)
        values = {name: python_values_to_proto_values(column, kind) for name, (column, kind) in answer.columns.items()}
        return [
            (
                None if age_ms is None else datetime.fromtimestamp((asked_ms - age_ms) / 1000, UTC),
                None
                if age_ms is None or age_ms > ours.group.ttl_ms
                else {name: column[place] for name, column in values.items()},
            )
            for place, age_ms in enumerate(answer.ages_ms)
        ]

    async def online_read_async(self, *arguments: Any, **named: Any) -> list[ReadRow]:
        """The same, in a thread."""
        return await asyncio.to_thread(self.online_read, *arguments, **named)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of an hourly or daily group over what is older; a later boundary that is stored stays.

        Feast says of a row when it was true, not when its last event was: the one is taken for the other, and the TTL
        counts from there.

        Raises:
            NotReelsError: the group's values are kept as tiles, or are of people, whose consent is not asked here.
        """
        ours = OnlineView.of(table)
        if ours.group.cadence is Cadence.EVENT:
            raise NotReelsError(
                f"{table.name} is stored as tiles, which Feast has no rows of: `reel features` fills it"
            )
        if entity_of(ours.entity).is_personal:
            raise NotReelsError(f"{table.name} is of people: `reel features`, which asks their consent, fills it")
        rows = _boundary_rows(ours, data)
        with online_store.open_online_store(self._settings(config).online_store_url) as store:
            keys = sorted(set(rows[ours.entity].to_pylist()))
            stored = _readable(ours, store, keys)
            # The last of equal boundaries wins, so what is stored comes first.
            store.put_many(ours.stored, pack(ours.group, ours.entity, pa.concat_tables([stored, rows])))
        if progress:
            progress(len(data))

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[FeastEntity],
        entities_to_keep: Sequence[FeastEntity],
        partial: bool,
    ) -> None:
        """Delete the values of views that are no more. Views and entities need no making."""
        self._delete(config, tables_to_delete)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[FeastEntity]) -> None:
        """Delete the values of these views; all else that is in the store stays."""
        self._delete(config, tables)

    async def close(self) -> None:
        """Give the store back."""
        if self._opened is not None:
            self._opened.store.close()
            self._opened = None

    def _delete(self, config: RepoConfig, tables: Sequence[FeatureView]) -> None:
        """A view owns the values that are stored under its name: another one of the same group only reads them."""
        sources = [(view.name, view.batch_source) for view in tables]
        ours = [(name, source) for name, source in sources if isinstance(source, ReelSource)]
        owned = [name for name, source in ours if name == f"{source.group}_by_{source.entity}"]
        if owned:
            OnlineTarget(self._settings(config).online_store_url, 0).drop(owned)

    def _settings(self, config: RepoConfig) -> Settings:
        said = config.online_store.settings
        return load_settings(Path(said) if said else None)

    def _read(
        self, config: RepoConfig, wanted: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[list[list[bytes | None]], int]:
        """The packed values of each (stored name, keys), and the instant to answer as of, as the settings say."""
        said = config.online_store.settings
        opened = self._opened
        if opened is None or opened.said != said:
            settings = self._settings(config)
            store = online_store.open_online_store(settings.online_store_url, readonly=True)
            opened = self._opened = _Opened(said, settings, store)
        if opened.settings.serving.as_of == "now":
            return opened.store.get_groups(wanted), time.time_ns() // 1_000_000
        (watermark,), *packed = opened.store.get_groups([("meta", ["watermark_ms"]), *wanted])
        return packed, 0 if watermark is None else int(json.loads(watermark))


def _columnar(entity_rows: list[dict[str, Any]] | Columns) -> Mapping[str, Sequence[Any]]:
    """The caller's rows by column; Feast's clients give them either way, its feature server as protobuf too."""
    if isinstance(entity_rows, list):
        names = list(entity_rows[0]) if entity_rows else []
        if any(row.keys() != set(names) for row in entity_rows):
            raise NotReelsError("the rows have different keys; give each the same")
        return {name: [row[name] for row in entity_rows] for name in names}
    columns: dict[str, Any] = {
        name: values.val if isinstance(values, RepeatedValue) else values for name, values in entity_rows.items()
    }
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise NotReelsError(f"the keys' columns have different lengths: {lengths}; give each row each key")
    return columns


def _texts(columns: Mapping[str, Sequence[Any]], needed_by: Mapping[str, str]) -> dict[str, list[str | None]]:
    """The columns that views need as keys."""
    texts: dict[str, list[str | None]] = {}
    for name, view in needed_by.items():
        if name not in columns:
            raise NotReelsError(f"{view} needs the key {name}; the rows have {', '.join(columns) or 'none'}")
        values = [one.string_val if isinstance(one, Value) else one for one in columns[name]]
        wrong = next((one for one in values if one is not None and not isinstance(one, str)), None)
        if wrong is not None:
            raise NotReelsError(f"keys of {name} are texts; received {wrong!r}")
        texts[name] = values
    return texts


def _keys(columns: Sequence[Sequence[str | None]]) -> list[str]:
    """The keys that entities are stored under; nothing is stored under that of a null, which is empty."""
    if len(columns) == 1:
        return [key or "" for key in columns[0]]
    keys = key_of([pa.array(column, pa.string()) for column in columns]).to_pylist()
    return [key or "" for key in keys]


def _names_of(ours: OnlineView, entity_keys: Sequence[EntityKey]) -> list[str]:
    """The keys that Feast's protobuf says."""
    said = [dict(zip(one.join_keys, one.entity_values, strict=True)) for one in entity_keys]
    return _keys([[one[column].string_val for one in said] for column in entity_of(ours.entity).columns])


def _boundary_rows(ours: OnlineView, data: Sequence[FeastRow]) -> pa.Table:
    """Feast's rows as the group's own."""
    keys = _names_of(ours, [key for key, *_ in data])
    schema = ours.group.row_schema(ours.entity)
    known_ms = ours.group.delay
    columns: dict[str, Any] = {
        ours.entity: keys,
        EVENT_TIME: [_utc(at) for _, _, at, _ in data],
        CREATED: [_utc(made) if made else _later(_utc(at), known_ms) for _, _, at, made in data],
        LAST_EVENT: [_utc(at) for _, _, at, _ in data],
    }
    for feature in ours.group.features:
        columns[feature.name] = [
            feast_value_type_to_python_type(values.get(feature.name, Value())) for _, values, *_ in data
        ]
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema)


def _readable(ours: OnlineView, store: online_store.OnlineStore, keys: Sequence[str]) -> pa.Table:
    """What is stored under the keys already; what another version of the group wrote is written over."""
    found = []
    for key, value in zip(keys, store.get_many(ours.stored, keys), strict=True):
        if value is not None:
            try:
                found.append(unpack(ours.group, ours.entity, [(key, value)]))
            except PackedValueError:
                continue
    return pa.concat_tables([ours.group.row_schema(ours.entity).empty_table(), *found])


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _later(at: datetime, by_ms: int) -> datetime:
    return datetime.fromtimestamp(at.timestamp() + by_ms / 1000, UTC)
