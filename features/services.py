"""Feature services: what may be asked for together, by one name, for one purpose (Feast's word for it).

`personalization_user_viewing_history_by_profile_id`   the features of one group, for one of its entities
`personalization_by_profile_id`                        all features of an entity

Both sides of Feast's protocol know a service by its name alone: the repository that is generated, and the service that
answers `/get-online-features`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from features.declarations import FeatureGroup
from features.purposes import Purpose


@dataclass(frozen=True)
class View:
    """A group for one of its entities."""

    group: FeatureGroup
    entity: str

    @property
    def name(self) -> str:
        """As Feast calls it, and as the online store calls what is stored of it."""
        return self.group.stored_as(self.entity)


@dataclass(frozen=True)
class Service:
    """Views that may be asked for together, and what for."""

    name: str
    purpose: Purpose
    views: tuple[View, ...]


def views_of(groups: Sequence[FeatureGroup]) -> list[View]:
    """Each group for each of its entities, in the order of the declarations."""
    return [View(group, entity) for group in groups for entity in group.entities]


def services_of(groups: Sequence[FeatureGroup]) -> list[Service]:
    """Every service: one for each view, and one for all views of an entity with the same purpose."""
    together: dict[str, tuple[Purpose, list[View]]] = {}
    for view in views_of(groups):
        purpose = view.group.purpose
        for name in (f"{purpose}_{view.name}", f"{purpose}_by_{view.entity}"):
            together.setdefault(name, (purpose, []))[1].append(view)
    return [Service(name, purpose, tuple(views)) for name, (purpose, views) in together.items()]
