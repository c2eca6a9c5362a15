"""The shared backend: Redis, for services on many machines.

A value is one string under `reel:{group}:{entity}`, read with MGET; the set `reel:groups` names the groups,
so that an entity can be deleted from all of them without scanning. A batch is one MULTI.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.errors import StoreSlowError, StoreUnavailableError, StoreUrlError
from serving.online_store.base import OnlineStore, batches, check_entity, check_group, is_entity

ROWS_PER_BATCH = 5_000
KEYS_PER_SCAN = 5_000
GROUPS_KEY = b"reel:groups"


class RedisStore(OnlineStore):
    """The online store in one database of a Redis server."""

    @classmethod
    def at(cls, url: str, *, readonly: bool, timeout_s: float) -> Self:
        """The store of a `redis://host:port/db` address; a password in it is never shown."""
        public = _without_password(url)
        try:
            parts = urlsplit(url)
            named = parts.hostname and parts.port != 0
        except ValueError as error:
            raise StoreUrlError(public, str(error)) from None
        if not named or not re.fullmatch(r"/?\d*", parts.path):
            raise StoreUrlError(public, "it must name a host and, if any, a database number")
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once more at once, for a connection that went stale in the pool; a timeout is not tried again.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
        return cls(client, public, readonly=readonly)

    def __init__(self, client: "redis.Redis", name: str, *, readonly: bool = False) -> None:
        self._client = client
        self._name = name
        self._readonly = readonly
        if not readonly:
            self._run(client.ping)

    def put_many(self, group: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """See OnlineStore; each 5,000 rows are one MULTI."""
        self._check_writable()
        prefix = _prefix(group)
        written = 0
        for batch in batches(rows, ROWS_PER_BATCH):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.sadd(GROUPS_KEY, group)
            pipeline.mset({prefix + check_entity(entity).encode(): value for entity, value in batch})
            self._run(pipeline.execute)
            written += len(batch)
        return written

    def put_groups(self, rows: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]) -> int:
        """See OnlineStore; one MULTI."""
        self._check_writable()
        filled = [(group, _prefix(group), of_group) for group, of_group in rows if of_group]
        if not filled:
            return 0
        pipeline = self._client.pipeline(transaction=True)
        pipeline.sadd(GROUPS_KEY, *(group for group, _, _ in filled))
        pipeline.mset(
            {prefix + check_entity(entity).encode(): value for _, prefix, some in filled for entity, value in some}
        )
        self._run(pipeline.execute)
        return sum(len(some) for _, _, some in filled)

    def get_groups(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """See OnlineStore; one MGET, each key in it once."""
        keys = [
            [prefix + entity.encode() if is_entity(entity) else None for entity in entities]
            for prefix, entities in [(_prefix(group), entities) for group, entities in wanted]
        ]
        asked = dict.fromkeys(key for of_group in keys for key in of_group if key is not None)
        if not asked:
            return [[None] * len(of_group) for of_group in keys]
        found = self._run(lambda: self._client.mget(list(asked)))
        values: dict[bytes | None, bytes | None] = dict(zip(asked, found, strict=True))
        return [[values.get(key) for key in of_group] for of_group in keys]

    def delete_many(self, group: str, entities: Iterable[str]) -> int:
        """See OnlineStore; one DEL for each 5,000 keys."""
        self._check_writable()
        prefix, deleted = _prefix(group), 0
        remaining = iter(entities)
        while batch := [prefix + check_entity(entity).encode() for entity in islice(remaining, ROWS_PER_BATCH)]:
            deleted += int(self._run(partial(self._client.delete, *batch)))
        return deleted

    def delete_entity(self, entity: str) -> int:
        """See OnlineStore; one DEL over the groups."""
        self._check_writable()
        name = check_entity(entity).encode()
        groups = self._run(lambda: self._client.smembers(GROUPS_KEY))
        if not groups:
            return 0
        keys = [_prefix(group.decode()) + name for group in groups]
        return int(self._run(lambda: self._client.delete(*keys)))

    def delete_group(self, group: str) -> int:
        """See OnlineStore; one DEL for each 5,000 keys."""
        self._check_writable()
        prefix = _prefix(group)
        deleted = 0
        found = iter(list(self.keys(group)))
        while batch := [prefix + key.encode() for key in islice(found, ROWS_PER_BATCH)]:
            deleted += int(self._run(partial(self._client.delete, *batch)))
        return deleted

    def keys(self, group: str) -> Iterator[str]:
        """See OnlineStore; SCAN, whose repetitions are dropped."""
        prefix = _prefix(group)
        seen: set[bytes] = set()
        cursor = 0
        while True:
            scan = partial(self._client.scan, cursor, match=prefix + b"*", count=KEYS_PER_SCAN)
            cursor, page = self._run(scan)
            fresh = set(page) - seen
            seen |= fresh
            yield from (key.removeprefix(prefix).decode() for key in fresh)
            if cursor == 0:
                return

    def close(self) -> None:
        """See OnlineStore."""
        self._client.close()

    def _check_writable(self) -> None:
        if self._readonly:
            raise StoreUnavailableError(f"online store {self._name} was opened for reading only")

    def _run(self, command: Callable[[], Any]) -> Any:
        try:
            return command()
        except redis.TimeoutError as error:
            raise StoreSlowError(f"online store {self._name} took too long: {error}") from None
        except redis.RedisError as error:
            raise StoreUnavailableError(
                f"online store {self._name} does not answer: {error}; start Redis there, or mend the address"
            ) from None


def _prefix(group: str) -> bytes:
    return b"reel:" + check_group(group).encode() + b":"


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^@/]*@", "…@", url)
