"""What a call for online features means: which views, which keys, what for; worked out once, and asked for often."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from feast import FeatureService, utils
from feast.feature_view import FeatureView
from feast.infra.registry.base_registry import BaseRegistry
from feast.value_type import ValueType

from features.declarations import FeatureGroup
from features.entities import entity as entity_of
from features.groups import group as group_of
from features.packing import read_values
from features.purposes import Purpose
from features.selection import Selection
from pipelines.feast.errors import NotReelsError
from pipelines.feast.online_response import ViewAnswer
from pipelines.feast.purposes import purpose_of_features
from pipelines.feast.source import ReelSource

_MOST_PLANS = 100


@dataclass(frozen=True)
class OnlineView:
    """A view of Feast's: the group for an entity that it reads, and which of the caller's columns are the key.

    `names`: what a feature is to be called; `kinds`: its type in Feast.
    """

    name: str
    group: FeatureGroup
    entity: str
    key_columns: tuple[str, ...]
    names: Mapping[str, str]
    kinds: Mapping[str, ValueType]

    @classmethod
    def of(
        cls, view: FeatureView, wanted: Sequence[str] | None = None, *, has_full_names: bool = False
    ) -> "OnlineView":
        """The view for the features wanted (None: all). Raises NotReelsError for a view of another source."""
        source = view.batch_source
        if not isinstance(source, ReelSource):
            raise NotReelsError(f"{view.name} reads {type(source).__name__}, which is not Reel's")
        projection: Any = view.projection  # Feast's own is not typed
        keys = tuple(projection.join_key_map.get(column, column) for column in entity_of(source.entity).columns)
        group = group_of(source.group)
        prefix = f"{projection.name_to_use()}__" if has_full_names else ""
        names = {one: prefix + one for one in wanted or [feature.name for feature in group.features]}
        kinds = {field.name: field.dtype.to_value_type() for field in view.features}
        return cls(view.name, group, source.entity, keys, names, kinds)

    @cached_property
    def stored(self) -> str:
        """What the online store calls it."""
        return self.group.stored_as(self.entity)

    def answer(self, packed: Sequence[bytes | None], asked_ms: int) -> ViewAnswer:
        """What is said of the keys that have these values."""
        found = read_values(self.group, packed, asked_ms, as_newest=True)
        columns = {called: (found.columns[name], self.kinds[name]) for name, called in self.names.items()}
        return ViewAnswer(self.name, columns, found.ages_ms, asked_ms, self.group.ttl_ms)


@dataclass(frozen=True)
class Plan:
    """What a feature service, or a list of features, means, as long as Feast resolves it to the same object.

    `purpose` is that of a list; a service says its own.
    """

    resolved: Any
    purpose: Purpose | None
    views: tuple[OnlineView, ...]
    selections: tuple[Selection, ...]
    needed_by: Mapping[str, str]
    is_on_demand: bool

    @classmethod
    def of(
        cls,
        resolved: Any,
        features: list[str] | FeatureService,
        registry: BaseRegistry,
        project: str,
        *,
        has_full_names: bool,
    ) -> "Plan":
        """Raises NotReelsError for a view of another source, PurposeNotAllowedError for a list that has no purpose."""
        _, on_demand, _, _, _, grouped, *_ = resolved
        purpose = None
        if not isinstance(features, FeatureService):
            purpose = purpose_of_features(features, registry, project, allow_cache=True)
        views = tuple(OnlineView.of(view, wanted, has_full_names=has_full_names) for view, wanted in grouped)
        selections = tuple(
            Selection(view.projection.name_to_use(), one.group, one.entity, one.key_columns)
            for (view, _), one in zip(grouped, views, strict=True)
        )
        needed_by = {name: view.name for view in views for name in view.key_columns}
        return cls(resolved, purpose, views, selections, needed_by, bool(on_demand))


class Plans:
    """The plans that were made."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Plan] = {}

    def of(
        self, features: list[str] | FeatureService, registry: BaseRegistry, project: str, *, has_full_names: bool
    ) -> Plan:
        """What the features mean. Feast remembers that until it reads its registry anew, and so long a plan holds."""
        resolve: Any = utils._get_cached_request_context  # what Feast's own stores resolve names with
        resolved = resolve(registry, project, features, has_full_names)
        asked = (project, features.name if isinstance(features, FeatureService) else tuple(features), has_full_names)
        plan = self._known.get(asked)
        if plan is None or plan.resolved is not resolved:
            plan = Plan.of(resolved, features, registry, project, has_full_names=has_full_names)
            if len(self._known) >= _MOST_PLANS:
                self._known.clear()
            self._known[asked] = plan
        return plan
