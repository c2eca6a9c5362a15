"""The feature groups: to add one, declare it in a module here and list it below."""

from difflib import get_close_matches

from features.declarations import FeatureGroup
from features.errors import UnknownGroupError
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.user_viewing_history import USER_VIEWING_HISTORY

GROUPS: tuple[FeatureGroup, ...] = (USER_VIEWING_HISTORY, CONTENT_POPULARITY)


def group(name: str) -> FeatureGroup:
    """The group of this name; `UnknownGroupError` names the nearest if there is none."""
    names = {known.name: known for known in GROUPS}
    if name in names:
        return names[name]
    nearest = get_close_matches(name, names, n=1, cutoff=0)
    raise UnknownGroupError(f"no feature group is called {name!r}; the nearest is {nearest[0]}, of {', '.join(names)}")
