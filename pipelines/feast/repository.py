"""The Feast repository: entities, feature views and feature services, made from the declarations.

entity    one for each entity that a group has
view      a group for one of its entities: `user_viewing_history_by_profile_id`
service   what may be asked for together for one purpose, which its tag `purpose` says:
          `personalization_user_viewing_history_by_profile_id` for each view, and `personalization_by_profile_id`
          for all views of an entity
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
from features.groups import GROUPS
from features.profiles import PERSON_IDS
from features.words import aggregate_words, duration_words, range_words
from pipelines.errors import ReelError, UsageError
from pipelines.feast.source import ReelSource
from pipelines.quality.output import write_whole

PURPOSE_TAG = "purpose"
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
    entities = {entity: _entity(entity) for group in groups for entity in group.entities}
    views = [_view(group, entity, entities[entity]) for group in groups for entity in group.entities]
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
    configuration = {
        "project": PROJECT,
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {
            "type": "pipelines.feast.offline_store.ReelOfflineStore",
            "settings": str(settings_file.resolve()) if settings_file else None,
            "event_values": "exact",
        },
        "online_store": None,
        "entity_key_serialization_version": 3,
    }
    texts = {"feature_store.yaml": yaml.safe_dump(configuration, sort_keys=False), "definitions.py": DEFINITIONS}
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def _entity(name: str) -> Entity:
    is_person = name in PERSON_IDS
    said = "Pseudonym, as it is stored." if is_person else "As in the events."
    return Entity(name=name, join_keys=[name], value_type=ValueType.STRING, description=said)


def _view(group: FeatureGroup, entity: str, declared: Entity) -> FeatureView:
    tags = {
        PURPOSE_TAG: str(group.purpose),
        "group": group.name,
        "cadence": str(group.cadence),
        "delay": duration_words(group.delay),
    }
    source = ReelSource(
        group=group.name,
        entity=entity,
        name=f"{group.stored_as(entity)}_source",
        description=f"{group.description} From {group.source.name}.",
        owner=group.owner,
        tags=tags,
    )
    key = Field(name=entity, dtype=from_value_type(ValueType.STRING))
    return FeatureView(
        name=group.stored_as(entity),
        entities=[declared],
        schema=[key, *(_field(group, feature) for feature in group.features)],
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
    together: dict[str, tuple[FeatureGroup, list[FeatureView]]] = {}
    for group in groups:
        for entity in group.entities:
            view = by_name[group.stored_as(entity)]
            for name in (f"{group.purpose}_{view.name}", f"{group.purpose}_by_{entity}"):
                together.setdefault(name, (group, []))[1].append(view)
    return [
        FeatureService(
            name=name,
            features=list(members),
            tags={PURPOSE_TAG: str(group.purpose)},
            description=f"For {group.purpose}: {', '.join(view.name for view in members)}.",
        )
        for name, (group, members) in together.items()
    ]
