"""The feature groups: to add one, declare it in a module here and list it below."""

from features.declarations import FeatureGroup
from features.errors import UnknownGroupError
from features.groups.channel_load import CHANNEL_LOAD
from features.groups.channel_performance import CHANNEL_PERFORMANCE
from features.groups.churn_signals import CHURN_SIGNALS
from features.groups.concurrent_viewers import CONCURRENT_VIEWERS
from features.groups.content_engagement import CONTENT_ENGAGEMENT
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.qoe_signals import QOE_SIGNALS
from features.groups.session_context import SESSION_CONTEXT
from features.groups.user_interaction_signals import USER_INTERACTION_SIGNALS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.names import nearest

GROUPS: tuple[FeatureGroup, ...] = (
    USER_VIEWING_HISTORY,
    USER_INTERACTION_SIGNALS,
    CONTENT_POPULARITY,
    CONTENT_ENGAGEMENT,
    CHANNEL_PERFORMANCE,
    QOE_SIGNALS,
    SESSION_CONTEXT,
    CHURN_SIGNALS,
    CONCURRENT_VIEWERS,
    CHANNEL_LOAD,
)


def group(name: str) -> FeatureGroup:
    """The group of this name; `UnknownGroupError` names the nearest if there is none."""
    names = {known.name: known for known in GROUPS}
    if name in names:
        return names[name]
    raise UnknownGroupError(
        f"no feature group is called {name!r}; the nearest is {nearest(name, names)}, of {', '.join(names)}"
    )
