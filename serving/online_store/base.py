"""What every backend of the online store offers, and which keys it takes."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import ClassVar, Self

from serving.errors import StoreKeyError

_GROUP = re.compile(r"[a-z][a-z0-9_]{0,63}")
# LMDB's keys hold 511 bytes; a group's name, one separator and this fit.
MAX_ENTITY_BYTES = 400


class OnlineStore(ABC):
    """Bytes by (group, entity). Many processes may read while one writes; a batch is seen whole or not.

    A group's name is lower_snake_case of at most 64 letters; an entity is text of 1 to 400 bytes of UTF-8.
    Every method raises StoreUnavailableError when the store cannot be used.
    """

    is_embedded: ClassVar[bool] = False
    """Whether values are read from this process's own memory, and waited for only where a page is still on disk."""

    @abstractmethod
    def put_many(self, group: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Write (entity, value) rows over what is there, in batches; how many were written.

        Raises StoreKeyError for a group or an entity that cannot be a key; batches before it stay written.
        """

    @abstractmethod
    def put_groups(self, rows: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]) -> int:
        """`put_many` of each (group, rows), in one write, which is seen whole or not; how many were written.

        Everything is in memory at once: for some ten thousand rows. Raises StoreKeyError, and then nothing is written.
        """

    def get_many(self, group: str, entities: Sequence[str]) -> list[bytes | None]:
        """The value of each entity, in the order asked; None where there is none."""
        return self.get_groups([(group, entities)])[0]

    @abstractmethod
    def get_groups(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """`get_many` of each (group, entities), in one read."""

    @abstractmethod
    def delete_many(self, group: str, entities: Iterable[str]) -> int:
        """Delete what `group` holds of each entity; how many values that were."""

    @abstractmethod
    def delete_entity(self, entity: str) -> int:
        """Delete what every group holds of `entity`; how many values that were."""

    def delete_entities(self, entities: Iterable[str]) -> int:
        """Delete what every group holds of each; how many values that were."""
        return sum(self.delete_entity(entity) for entity in entities)

    @abstractmethod
    def delete_group(self, group: str) -> int:
        """Delete all that `group` holds; how many values that were. What is written meanwhile may stay."""

    def scrub(self) -> None:
        """Leave no bytes of what was deleted, as far as that is the client's to do.

        Redis keeps values in memory; what its own files hold is rewritten when it next writes them (`BGREWRITEAOF`,
        `BGSAVE`).
        """
        return

    @abstractmethod
    def keys(self, group: str) -> Iterator[str]:
        """The entities of `group`, each once, in no promised order; what is written meanwhile may be missed."""

    @abstractmethod
    def close(self) -> None:
        """Give the store back; using it afterwards is a mistake."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_group(group: str) -> str:
    """`group` itself, if it can be a group's name."""
    if not _GROUP.fullmatch(group):
        raise StoreKeyError(f"a group is lower_snake_case of at most 64 letters; received {group[:80]!r}")
    return group


def is_entity(entity: str) -> bool:
    """Whether a value could be stored under `entity` at all."""
    if not 0 < len(entity) <= MAX_ENTITY_BYTES:
        return False
    if entity.isascii():
        return True
    try:
        return len(entity.encode()) <= MAX_ENTITY_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def check_entity(entity: str) -> str:
    """`entity` itself, if it can be a key."""
    if not is_entity(entity):
        raise StoreKeyError(f"an entity is text of 1 to {MAX_ENTITY_BYTES} bytes of UTF-8; received {entity[:80]!r}")
    return entity


def batches(rows: Iterable[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    """`rows` in lists of `size`, the last one shorter; nothing is read ahead."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch
