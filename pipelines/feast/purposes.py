"""What a call of Feast's is for: the tag `purpose` of its feature service. Without one it is refused."""

from collections.abc import Sequence
from typing import Any

from feast import FeatureService
from feast.infra.registry.base_registry import BaseRegistry

from features.errors import PurposeNotAllowedError
from features.purposes import Purpose

PURPOSE_TAG = "purpose"
_NO_PURPOSE = (
    "no purpose is given: ask through a feature service that has a tag `purpose`, such as those that "
    "`reel features feast` makes, or apply one of your own"
)


def purpose_of_service(service: FeatureService) -> Purpose:
    """What the service's tag says. Raises PurposeNotAllowedError if it says nothing, or no purpose."""
    return _purpose(service.tags.get(PURPOSE_TAG))


def purpose_of_features(
    refs: Sequence[str], registry: BaseRegistry, project: str, *, allow_cache: bool = False
) -> Purpose:
    """The purpose of the feature service that has just these features.

    Feast tells an offline store which features are asked for, not through which service, so that is looked up; so it
    is where a caller lists features. Raises PurposeNotAllowedError if there is none, or several that differ.
    """
    asked = frozenset(refs)
    on_demand = {view.name for view in registry.list_on_demand_feature_views(project, allow_cache=allow_cache)}
    said = set()
    for service in registry.list_feature_services(project, allow_cache=allow_cache):
        projections: list[Any] = service.feature_view_projections  # Feast's own are not typed
        own = {f"{one.name_to_use()}:{each.name}" for one in projections for each in one.features}
        # What on-demand views read is asked for besides.
        reads_more = any(one.name in on_demand for one in projections)
        if own and (own == asked or (reads_more and own < asked)):
            said.add(service.tags.get(PURPOSE_TAG))
    if len(said) > 1:
        raise PurposeNotAllowedError(
            f"several feature services have just these features, for the purposes {', '.join(sorted(map(str, said)))}; "
            "leave one of them"
        )
    return _purpose(said.pop() if said else None)


def _purpose(text: str | None) -> Purpose:
    if text is None:
        raise PurposeNotAllowedError(_NO_PURPOSE)
    if text not in set(Purpose):
        raise PurposeNotAllowedError(f"the feature service's purpose is {text!r}; there are {', '.join(Purpose)}")
    return Purpose(text)
