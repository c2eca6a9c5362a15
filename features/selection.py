"""Which features are asked for, of whom, and whether the purpose allows it.

    "churn_signals.engagement_trend"                  one feature
    "churn_signals"                                   all of its group
    "user_viewing_history_by_profile_id.recent_titles"  of one of the group's entities, where the rows have several

A selection's columns are called `{name}__{feature}` and `{name}__age_ms`, where name is the group as it was asked for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from features.decision import required_consents
from features.declarations import Feature, FeatureGroup
from features.entities import entity as entity_of
from features.errors import PurposeNotAllowedError, SelectionError, UnknownGroupError
from features.names import nearest
from features.purposes import Purpose


@dataclass(frozen=True)
class Selection:
    """Features of one group for one of its entities, and the left table's column(s) that the entity's key is made of.

    `group` is narrowed to the features that are asked for.
    """

    name: str
    group: FeatureGroup
    entity: str
    key_columns: tuple[str, ...]

    @classmethod
    def of(
        cls, name: str, group: FeatureGroup, entity: str, key_columns: Sequence[str], wanted: Sequence[str]
    ) -> "Selection":
        """Some features of a group, under a name of one's own. Raises SelectionError for an unknown one."""
        features = tuple(feature_of(group, one) for one in wanted)
        return cls(name, replace(group, features=features), entity, tuple(key_columns))

    @property
    def columns(self) -> dict[str, str]:
        """Column of the group's values to column of the result: the features, then the age."""
        names = [*self.group.feature_schema().names]
        return {name: f"{self.name}__{name}" for name in names} | {self.group.age_column: f"{self.name}__age_ms"}

    @property
    def is_personal(self) -> bool:
        """Whether the entity is a person, or leads to one."""
        return entity_of(self.entity).is_personal


def select(
    wanted: Sequence[str | Selection],
    left_columns: Collection[str],
    groups: Sequence[FeatureGroup],
    keys: Mapping[str, str] | None = None,
) -> list[Selection]:
    """What `wanted` asks of `groups`, for rows with `left_columns`; in the order asked for, each group once.

    `keys` says for an entity's column in which column the rows have it, where that is called otherwise. What is a
    `Selection` already is only checked.

    Raises:
        UnknownGroupError: no group is called so.
        SelectionError: nothing is asked for; a feature is unknown or asked for twice; the rows have none of the
            group's entities, or several and it is not said which.
    """
    if not wanted:
        raise SelectionError("no feature is asked for; name groups, or features as group.feature")
    found: dict[str, Selection] = {}
    for one in wanted:
        if isinstance(one, Selection):
            _require_columns(one.name, one.key_columns, left_columns)
            if one.name in found:
                raise SelectionError(f"{one.name} is asked for twice; give one of them another name")
            found[one.name] = one
            continue
        name, _, feature = one.partition(".")
        group, entity, key_columns = _located(name, groups, left_columns, keys or {})
        features = group.features if not feature else (feature_of(group, feature),)
        before = found[name].group.features if name in found else ()
        doubled = [each.name for each in features if each in before]
        if doubled:
            raise SelectionError(f"{name}.{doubled[0]} is asked for twice; leave one out")
        found[name] = Selection(name, replace(group, features=(*before, *features)), entity, key_columns)
    return list(found.values())


def require_purpose(purpose: Purpose | None, selections: Sequence[Selection]) -> Purpose:
    """`require_declared_for` of what is selected."""
    return require_declared_for(purpose, {one.name: one.group for one in selections})


def require_declared_for(purpose: Purpose | None, groups: Mapping[str, FeatureGroup]) -> Purpose:
    """The purpose; refused unless there is one, and every group that is asked for, by its name, is declared for it.

    Raises:
        PurposeNotAllowedError: no purpose, or another than a group's.
        PurposeNotDecidableError: a purpose that people's rows cannot be asked for.
    """
    if purpose is None:
        raise PurposeNotAllowedError("no purpose is given; say what the features are used for")
    required_consents(purpose)
    for name, group in groups.items():
        if group.purpose is not purpose:
            raise PurposeNotAllowedError(
                f"{name} is declared for the purpose {group.purpose}, and was asked for {purpose}; "
                "leave it out, or declare a group for that purpose"
            )
    return purpose


def feature_of(group: FeatureGroup, name: str) -> Feature:
    """A group's feature by its name. Raises SelectionError naming the nearest."""
    features = {feature.name: feature for feature in group.features}
    if name not in features:
        raise SelectionError(
            f"{group.name} has no feature {name!r}; the nearest is {nearest(name, features)}, of {', '.join(features)}"
        )
    return features[name]


def key_columns_of(entity: str, left_columns: Collection[str], keys: Mapping[str, str]) -> tuple[str, ...]:
    """The columns of the rows that an entity's key is, or is made of where it has several."""
    key = keys.get(entity, entity)
    if key in left_columns:
        return (key,)
    return tuple(keys.get(column, column) for column in entity_of(entity).columns)


def _located(
    name: str, groups: Sequence[FeatureGroup], left_columns: Collection[str], keys: Mapping[str, str]
) -> tuple[FeatureGroup, str, tuple[str, ...]]:
    """(group, entity, columns of its key) that a name means for these rows."""
    for group in groups:
        by_entity = {entity: key_columns_of(entity, left_columns, keys) for entity in group.entities}
        for entity, columns in by_entity.items():
            if name == group.stored_as(entity):
                _require_columns(name, columns, left_columns)
                return group, entity, columns
        if name == group.name:
            present = [entity for entity, columns in by_entity.items() if set(columns) <= set(left_columns)]
            if len(present) == 1:
                return group, present[0], by_entity[present[0]]
            if not present:
                needed = " or ".join(" and ".join(columns) for columns in by_entity.values())
                _require_columns(name, (needed,), left_columns)
            choices = " or ".join(group.stored_as(entity) for entity in present)
            raise SelectionError(f"{name}: the rows have {' and '.join(present)}; say which is meant: {choices}")
    known = [*(group.name for group in groups), *(group.stored_as(one) for group in groups for one in group.entities)]
    raise UnknownGroupError(f"no feature group is called {name!r}; the nearest is {nearest(name, known)}")


def _require_columns(name: str, columns: Sequence[str], left_columns: Collection[str]) -> None:
    missing = [column for column in columns if column not in left_columns]
    if missing:
        raise SelectionError(f"{name} needs the column {', '.join(missing)}; the rows have {', '.join(left_columns)}")
