"""Feast's offline store on Reel's engine.

`FeatureStore(...).get_historical_features(entity_df, features=service)` runs the point-in-time join of
`pipelines.point_in_time` and gives the same values. What Feast has no word for is kept: a purpose is obligatory (the
feature service's tag `purpose` says it), rows of people who may not be used get nothing personal, versions created
after a row's instant are invisible to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage

from features.entities import entity
from features.groups import group
from features.selection import Selection, require_purpose
from pipelines.cluster import connected
from pipelines.feast.errors import NotReelsError
from pipelines.feast.purposes import purpose_of_features
from pipelines.feast.source import ReelSource
from pipelines.point_in_time.join import EventValues, Joined, Request, join
from pipelines.point_in_time.left import parts_of, schema_of
from pipelines.settings import Settings, load_settings

INSTANT = "event_timestamp"


class ReelOfflineStoreConfig(FeastConfigBaseModel):
    """The offline store's part of `feature_store.yaml`."""

    type: Literal["pipelines.feast.offline_store.ReelOfflineStore"] = "pipelines.feast.offline_store.ReelOfflineStore"
    settings: str | None = None
    """Reel's settings file; null: REEL_CONFIG, else configs/local.yaml."""
    event_values: EventValues = EventValues.EXACT
    """How groups of event cadence are valued: exact, or tiles."""


class ReelRetrievalJob(RetrievalJob):
    """One join, run when its result is asked for; Ray is joined or started for it unless it is there."""

    def __init__(
        self,
        settings: Settings,
        left: pa.Table | Path,
        request: Request,
        names: dict[str, str],
        metadata: RetrievalMetadata,
        on_demand: list[OnDemandFeatureView],
        full_feature_names: bool,
        repo_path: str,
    ) -> None:
        """`names` maps columns of the join's result to the ones that Feast gives, in its order."""
        self._settings, self._left, self._request, self._names = settings, left, request, names
        self._metadata, self._on_demand, self._full = metadata, on_demand, full_feature_names
        self._repo_path = repo_path

    def joined(self) -> Joined:
        """The join itself, its parts left in Ray's store, with what it counted; Ray must be connected."""
        return join(self._settings, self._left, self._request)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with connected(self._settings):
            return self._named(self.joined().table())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _named(self, table: pa.Table) -> pa.Table:
        return table.select(list(self._names)).rename_columns(self._names)

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as one Parquet file, or a folder of them, where the storage says."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise NotReelsError(f"a result is saved as a file, not as {type(storage).__name__}")
        path = Path(FileSource.get_uri_for_file_path(repo_path=self._repo_path, uri=storage.file_options.uri))
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        if path.suffix == ".parquet":
            pq.write_table(self.to_arrow(), path)
        else:
            pq.write_to_dataset(self.to_arrow(), path)

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are called `view__feature`."""
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast works out of the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for, and the instants it spans."""
        return self._metadata


@dataclass(frozen=True)
class _FileJob(RetrievalJob):
    """Rows of a saved dataset."""

    read: Callable[[], pa.Table]

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.read()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self.read().to_pandas()

    @property
    def full_feature_names(self) -> bool:
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> None:
        return None


class ReelOfflineStore(OfflineStore):
    """The plug-in that `feature_store.yaml` names."""

    supports_filter_by_created_timestamp = True
    """It does so always."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **changes: Any,
    ) -> ReelRetrievalJob:
        """The features as of each row's instant; everything about the call is checked at once.

        `entity_df` is a data frame, or the path of Parquet files. Its instant is `event_timestamp`, or else its only
        column of timestamps.

        Raises:
            PurposeNotAllowedError: no feature service with a purpose has these features, or the groups do not allow it.
            NotReelsError: no rows are given, or a view's source is not Reel's.
        """
        if entity_df is None:
            raise NotReelsError("there are no rows to join to: give an entity_df; Reel values features at its instants")
        purpose = purpose_of_features(feature_refs, registry, project)
        selections, names = _selections(feature_views, feature_refs, full_feature_names)
        require_purpose(purpose, selections)
        left, columns = _left(entity_df)
        instant = _instant(columns)
        store = config.offline_store
        request = Request(selections, purpose, instant, event_values=EventValues(store.event_values))
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        earliest, latest = _span(left, instant)
        keys = [name for name in columns.names if name != instant]
        return ReelRetrievalJob(
            load_settings(Path(store.settings) if store.settings else None),
            left,
            request,
            {name: name for name in columns.names} | names,
            RetrievalMetadata(feature_refs, keys, earliest, latest),
            on_demand,
            full_feature_names,
            str(config.repo_path),
        )

    @staticmethod
    def pull_latest_from_table_or_query(*arguments: Any, **named: Any) -> RetrievalJob:
        """Not done: Reel brings the online store up to date itself."""
        raise NotReelsError("Reel fills the online store itself, not through Feast: run `reel features`")

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Rows of a dataset that was saved as Parquet, between two instants."""
        if not isinstance(data_source, FileSource):
            raise NotReelsError("only datasets saved as files are read whole; ask for features with an entity_df")
        path = FileSource.get_uri_for_file_path(repo_path=config.repo_path, uri=data_source.path)
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        bounds = [(timestamp_field, ">=", start_date), (timestamp_field, "<=", end_date)]
        filters = [bound for bound in bounds if bound[2] is not None]
        return _FileJob(lambda: pq.read_table(path, columns=columns, filters=filters or None))


def _selections(
    views: Sequence[FeatureView], refs: Sequence[str], full_feature_names: bool
) -> tuple[list[Selection], dict[str, str]]:
    """What the views select, and how Feast calls its columns, in the order of the references."""
    selections: list[Selection] = []
    named: dict[str, tuple[str, str]] = {}
    for view in views:
        projection: Any = view.projection  # Feast's own is not typed
        source, used = view.batch_source, projection.name_to_use()
        if not isinstance(source, ReelSource):
            raise NotReelsError(f"{view.name} reads {type(source).__name__}, which is not Reel's")
        wanted = [ref.partition(":")[2] for ref in refs if ref.partition(":")[0] == used]
        keys = [projection.join_key_map.get(column, column) for column in entity(source.entity).columns]
        one = Selection.of(used, group(source.group), source.entity, keys, wanted)
        selections.append(one)
        named |= {f"{used}:{name}": (one.columns[name], name) for name in wanted}
    columns = dict(named[ref] for ref in refs if ref in named)
    return selections, {column: column if full_feature_names else name for column, name in columns.items()}


def _left(entity_df: pd.DataFrame | str) -> tuple[pa.Table | Path, pa.Schema]:
    if isinstance(entity_df, str):
        return Path(entity_df), schema_of(parts_of(entity_df)[0])
    table = pa.Table.from_pandas(entity_df, preserve_index=False)
    return table, table.schema


def _instant(columns: pa.Schema) -> str:
    if INSTANT in columns.names:
        return INSTANT
    times = [field.name for field in columns if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise NotReelsError(f"which column is the instant? call it {INSTANT}; there are {', '.join(times) or 'none'}")
    return str(times[0])


def _span(left: pa.Table | Path, instant: str) -> tuple[datetime | None, datetime | None]:
    """The first and last instant of rows in memory; of files it is not looked up."""
    if isinstance(left, Path):
        return None, None
    bounds = pa.compute.min_max(left[instant]).as_py()
    return bounds["min"], bounds["max"]
