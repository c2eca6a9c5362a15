"""The Feast repository: entities, feature views and feature services, made from the declarations.

entity    one for each column of an entity that a group has
view      a group for one of its entities: `user_viewing_history_by_profile_id`
service   what may be asked for together for one purpose, which its tag `purpose` says:
          `personalization_user_viewing_history_by_profile_id` for each view, and `personalization_by_profile_id`
          for all views of an entity (`features/services.py`)
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import yaml
from feast import Entity, FeatureService, FeatureView, Field
from feast.type_map import pa_to_feast_value_type
from feast.types import FeastType, from_value_type
from feast.value_type import ValueType

from features.declarations import Feature, FeatureGroup
from features.entities import entity
from features.groups import GROUPS
from features.services import services_of, views_of
from features.words import aggregate_words, duration_words, range_words
from pipelines.errors import ReelError, UsageError
from pipelines.feast.purposes import PURPOSE_TAG
from pipelines.feast.source import ReelSource
from pipelines.quality.output import write_whole

PROJECT = "reel"
DEFINITIONS = '''"""Made by `reel features feast`: what `features/groups` declares, as it is declared there now."""

from pipelines.feast.repository import feast_objects

globals().update({type(one).__name__ + "_" + one.name: one for one in feast_objects()})
'''

FeastObject: TypeAlias = "Entity | FeatureView | FeatureService"


class NotExpressibleError(ReelError):
    """A feature has a type that Feast has no word for."""


def feast_objects(groups: Sequence[FeatureGroup] = GROUPS) -> list[FeastObject]:
    """Everything that the groups declare, in Feast's words."""
    keys = dict.fromkeys(key for group in groups for key in group.entities)
    entities = {column: _entity(key, column) for key in keys for column in entity(key).columns}
    views = [
        _view(view.group, view.entity, [entities[column] for column in entity(view.entity).columns])
        for view in views_of(groups)
    ]
    return [*entities.values(), *views, *_services(groups, views)]


def write_repository(folder: Path, settings_file: Path | None) -> list[Path]:
    """Write `feature_store.yaml` and the definitions into `folder`; the files that are written.

    Raises:
        UsageError: the folder is a file.
        OutputNotWritten: it cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the repository")
    folder.mkdir(parents=True, exist_ok=True)
    settings = str(settings_file.resolve()) if settings_file else None
    configuration = {
        "project": PROJECT,
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {
            "type": "pipelines.feast.offline_store.ReelOfflineStore",
            "settings": settings,
            "event_values": "exact",
        },
        "online_store": {"type": "pipelines.feast.online_store.ReelOnlineStore", "settings": settings},
        "entity_key_serialization_version": 3,
    }
    texts = {"feature_store.yaml": yaml.safe_dump(configuration, sort_keys=False), "definitions.py": DEFINITIONS}
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def _entity(key: str, column: str) -> Entity:
    one = entity(key)
    said = f"{one.description} Its pseudonym, as it is stored." if one.is_personal else one.description
    return Entity(name=column, join_keys=[column], value_type=ValueType.STRING, description=said)


def _view(group: FeatureGroup, key: str, entities: list[Entity]) -> FeatureView:
    tags = {
        PURPOSE_TAG: str(group.purpose),
        "group": group.name,
        "cadence": str(group.cadence),
        "delay": duration_words(group.delay),
    }
    source = ReelSource(
        group=group.name,
        entity=key,
        name=f"{group.stored_as(key)}_source",
        description=f"{group.description} From {group.source.name}.",
        owner=group.owner,
        tags=tags,
    )
    keys = [Field(name=one.name, dtype=from_value_type(ValueType.STRING)) for one in entities]
    return FeatureView(
        name=group.stored_as(key),
        entities=entities,
        schema=[*keys, *(_field(group, feature) for feature in group.features)],
        source=source,
        ttl=timedelta(milliseconds=group.ttl_ms),
        description=group.description,
        owner=group.owner,
        tags=tags,
    )


def _field(group: FeatureGroup, feature: Feature) -> Field:
    tags = {
        "unit": feature.unit,
        "range": range_words(feature.range),
        "window": duration_words(feature.window_ms),
        "aggregate": aggregate_words(feature.aggregate),
    }
    where = f"{group.name}.{feature.name}"
    return Field(
        name=feature.name, dtype=_feast_type(where, feature.arrow_type), description=feature.description, tags=tags
    )


def _feast_type(where: str, arrow_type: pa.DataType) -> FeastType:
    try:
        return from_value_type(pa_to_feast_value_type(str(arrow_type)))
    except (KeyError, ValueError):
        raise NotExpressibleError(f"{where} is {arrow_type}, for which Feast has no type") from None


def _services(groups: Sequence[FeatureGroup], views: Sequence[FeatureView]) -> list[FeatureService]:
    by_name = {view.name: view for view in views}
    return [
        FeatureService(
            name=service.name,
            features=[by_name[view.name] for view in service.views],
            tags={PURPOSE_TAG: str(service.purpose)},
            description=f"For {service.purpose}: {', '.join(view.name for view in service.views)}.",
        )
        for service in services_of(groups)
    ]
