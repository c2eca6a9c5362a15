"""The sources of features: to add one, describe it in a module here and list it below."""

from features.errors import UnknownSourceError
from features.names import nearest
from features.playbacks import VIEWING_LOG
from features.source import Source
from features.sources.account_signals import ACCOUNT_SIGNALS
from features.sources.channels import CHANNELS
from features.sources.engagement import ENGAGEMENT
from features.sources.interactions import INTERACTIONS
from features.sources.playback_quality import PLAYBACK_QUALITY
from features.sources.sessions import SESSIONS
from features.sources.watching import WATCHING

SOURCES: tuple[Source, ...] = (
    VIEWING_LOG, INTERACTIONS, ENGAGEMENT, CHANNELS, PLAYBACK_QUALITY, SESSIONS, ACCOUNT_SIGNALS, WATCHING,
)  # fmt: skip


def source(name: str) -> Source:
    """The source of this name; `UnknownSourceError` names the nearest if there is none."""
    known = {one.name: one for one in SOURCES}
    if name not in known:
        raise UnknownSourceError(
            f"no source is called {name!r}; the nearest is {nearest(name, known)}, of {', '.join(known)}"
        )
    return known[name]
