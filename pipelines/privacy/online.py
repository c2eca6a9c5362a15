"""Taking people out of the online store: every value under any of their pseudonyms, and what deleting leaves behind."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipelines.online_people import a_stream_is_running, stream_knows_erasures
from pipelines.privacy.person import Person
from pipelines.settings import Settings
from serving.online_store import open_online_store

_POLL_S = 0.1


def erase(settings: Settings, person: Person) -> int:
    """Delete all that is stored under any of their pseudonyms; how many values."""
    if not is_there(settings):
        return 0
    names = sorted({name for names in person.ids.values() for name in names})
    with open_online_store(settings.online_store_url) as store:
        deleted = store.delete_entities(names)
        store.scrub()
    return deleted


def once_the_stream_knows(settings: Settings, newest_mark: Callable[[], str]) -> bool:
    """Wait for a running stream to begin anew behind the newest mark, as it does with a checkpoint; was there one?

    One that has ended, or has said nothing for a while, is waited for no longer: whoever begins goes by the newest.
    """
    if not is_there(settings):
        return False
    with open_online_store(settings.online_store_url) as store:
        was_running = a_stream_is_running(store)
        while not stream_knows_erasures(store, newest_mark()):
            time.sleep(_POLL_S)
    return was_running


def erase_values(settings: Settings, names: Sequence[str], groups: Iterable[str]) -> int:
    """Delete what some groups hold under some names, and no more than that; how many values."""
    if not names or not is_there(settings):
        return 0
    with open_online_store(settings.online_store_url) as store:
        deleted = sum(store.delete_many(group, names) for group in groups)
        if deleted:
            store.scrub()
    return deleted


def is_there(settings: Settings) -> bool:
    """Whether there is a store that anything could be in; asking would make an embedded one."""
    url = settings.online_store_url
    return not url.startswith("lmdb://") or (Path(url.removeprefix("lmdb://")) / "data.mdb").exists()
