"""The online store: one packed value per (group, entity), read in well under a millisecond.

Two backends, one behaviour: LMDB embedded in the process (`lmdb:///absolute/path`) and Redis shared by many
machines (`redis://host:port/db`). What a value means is the business of whoever wrote its group.
"""

from serving.errors import StoreKeyError, StoreUnavailableError, StoreUrlError
from serving.online_store.base import OnlineStore
from serving.online_store.lmdb_store import LmdbStore

__all__ = ["OnlineStore", "StoreKeyError", "StoreUnavailableError", "StoreUrlError", "open_online_store"]


def open_online_store(url: str, *, readonly: bool = False, timeout_s: float = 2.0) -> OnlineStore:
    """The online store at `url`: `lmdb:///absolute/path`, `redis://host:port/db` or `rediss://…` (TLS).

    A writer's store is made if it is not there, and reached before this returns. A reader's (`readonly`) is
    reached at its first read, found again when it was replaced, and never made. `timeout_s` bounds each wait
    for Redis.

    Raises StoreUrlError for an address no backend understands, StoreUnavailableError if a writer cannot use
    the store.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise StoreUrlError(url, "it names no scheme")
    if scheme == "lmdb":
        return LmdbStore.at(url, readonly=readonly)
    if scheme in ("redis", "rediss"):
        # Every station opens a store, few of them a Redis: its client takes half a second to import.
        from serving.online_store.redis_store import RedisStore

        return RedisStore.at(url, readonly=readonly, timeout_s=timeout_s)
    raise StoreUrlError(url, f"unknown scheme {scheme!r}")
