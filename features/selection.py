"""Which features are asked for, of whom, and whether the purpose allows it.

    "churn_signals.engagement_trend"                  one feature
    "churn_signals"                                   all of its group
    "user_viewing_history_by_profile_id.recent_titles"  of one of the group's entities, where the rows have several

A selection's columns are called `{name}__{feature}` and `{name}__age_ms`, where name is the group as it was asked for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from features.consent import required_consents
from features.declarations import Feature, FeatureGroup
from features.errors import PurposeNotAllowedError, SelectionError, UnknownGroupError
from features.profiles import PERSON_IDS
from features.purposes import Purpose


@dataclass(frozen=True)
class Selection:
    """Features of one group for one of its entities, and the left table's column(s) that hold the entity."""

    name: str
    group: FeatureGroup
    """Narrowed to the features that are asked for."""
    entity: str
    key: str

    @classmethod
    def of(cls, name: str, group: FeatureGroup, entity: str, key: str, wanted: Sequence[str]) -> "Selection":
        """Some features of a group, under a name of one's own. Raises SelectionError for an unknown one."""
        return cls(name, replace(group, features=tuple(_feature(group, one) for one in wanted)), entity, key)

    @property
    def columns(self) -> dict[str, str]:
        """Column of the group's values to column of the result: the features, then the age."""
        names = [*self.group.feature_schema().names]
        return {name: f"{self.name}__{name}" for name in names} | {self.group.age_column: f"{self.name}__age_ms"}

    @property
    def is_personal(self) -> bool:
        """Whether the entity is a person, or something of theirs."""
        return self.entity in PERSON_IDS


def select(
    wanted: Sequence[str | Selection],
    left_columns: Collection[str],
    groups: Sequence[FeatureGroup],
    keys: Mapping[str, str] | None = None,
) -> list[Selection]:
    """What `wanted` asks of `groups`, for rows with `left_columns`; in the order asked for, each group once.

    `keys` says for an entity in which column the rows have it, where that is called otherwise. What is a `Selection`
    already is only checked.

    Raises:
        UnknownGroupError: no group is called so.
        SelectionError: nothing is asked for; a feature is unknown or asked for twice; the rows have none of the
            group's entities, or several and it is not said which.
    """
    if not wanted:
        raise SelectionError("no feature is asked for; name groups, or features as group.feature")
    keys = keys or {}
    found: dict[str, Selection] = {}
    for text in wanted:
        if isinstance(text, Selection):
            _require_key(text.name, text.entity, left_columns, {text.entity: text.key})
            if text.name in found:
                raise SelectionError(f"{text.name} is asked for twice; give one of them another name")
            found[text.name] = text
            continue
        name, _, feature = text.partition(".")
        group, entity = _group_and_entity(name, groups, left_columns, keys)
        features = group.features if not feature else (_feature(group, feature),)
        before = found[name].group.features if name in found else ()
        doubled = [one.name for one in features if one in before]
        if doubled:
            raise SelectionError(f"{name}.{doubled[0]} is asked for twice; leave one out")
        narrowed = replace(group, features=(*before, *features))
        found[name] = Selection(name, narrowed, entity, keys.get(entity, entity))
    return list(found.values())


def require_purpose(purpose: Purpose | None, selections: Sequence[Selection]) -> None:
    """Refuse unless there is a purpose, and every group that is asked for is declared for it.

    Raises:
        PurposeNotAllowedError: no purpose, or another than a group's.
        PurposeNotDecidableError: a purpose that people's rows cannot be asked for.
    """
    if purpose is None:
        raise PurposeNotAllowedError("no purpose is given; say what the features are used for")
    required_consents(purpose)
    for one in selections:
        if one.group.purpose is not purpose:
            raise PurposeNotAllowedError(
                f"{one.name} is declared for the purpose {one.group.purpose}, and was asked for {purpose}; "
                "leave it out, or declare a group for that purpose"
            )


def _group_and_entity(
    name: str, groups: Sequence[FeatureGroup], left_columns: Collection[str], keys: Mapping[str, str]
) -> tuple[FeatureGroup, str]:
    for group in groups:
        for entity in group.entities:
            if name == group.stored_as(entity):
                _require_key(name, entity, left_columns, keys)
                return group, entity
        if name == group.name:
            present = [entity for entity in group.entities if keys.get(entity, entity) in left_columns]
            if len(present) == 1:
                return group, present[0]
            if not present:
                _require_key(name, " or ".join(group.entities), left_columns, keys)
            choices = " or ".join(group.stored_as(entity) for entity in present)
            raise SelectionError(f"{name}: the rows have {' and '.join(present)}; say which is meant: {choices}")
    known = [*(group.name for group in groups), *(group.stored_as(one) for group in groups for one in group.entities)]
    nearest = get_close_matches(name, known, n=1, cutoff=0)
    raise UnknownGroupError(f"no feature group is called {name!r}; the nearest is {', '.join(nearest) or 'none'}")


def _require_key(name: str, entity: str, left_columns: Collection[str], keys: Mapping[str, str]) -> None:
    key = keys.get(entity, entity)
    if key not in left_columns:
        raise SelectionError(f"{name} needs the column {key}; the rows have {', '.join(left_columns)}")


def _feature(group: FeatureGroup, name: str) -> Feature:
    features = {feature.name: feature for feature in group.features}
    if name not in features:
        nearest = get_close_matches(name, features, n=1, cutoff=0)
        raise SelectionError(f"{group.name} has no feature {name!r}; the nearest is {nearest[0]}")
    return features[name]
