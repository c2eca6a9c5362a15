"""Taking people out of the online store: every value under any of their pseudonyms, and what deleting leaves behind."""

from pathlib import Path

from pipelines.privacy.person import Person
from pipelines.settings import Settings
from serving.online_store import open_online_store


def erase(settings: Settings, person: Person) -> int:
    """Delete all that is stored under any of their pseudonyms; how many values."""
    if not is_there(settings):
        return 0
    names = sorted({name for names in person.ids.values() for name in names})
    with open_online_store(settings.online_store_url) as store:
        deleted = store.delete_entities(names)
        store.scrub()
    return deleted


def is_there(settings: Settings) -> bool:
    """Whether there is a store that anything could be in; asking would make an embedded one."""
    url = settings.online_store_url
    return not url.startswith("lmdb://") or (Path(url.removeprefix("lmdb://")) / "data.mdb").exists()
