"""The embedded backend: LMDB, a memory-mapped B+ tree in one folder.

Any number of processes read without locks while one writes. The map grows by doubling when it is full; other
processes follow when they next touch it.

Keys are `group NUL place entity`: a group is one range, and in it an entity's place is its hash with the bits turned
round. Features are built by the bucket, and an entity's bucket is the rest of that hash (Iceberg's, Murmur3): where
there are 2, 4, 8, … buckets those of one lie side by side, so that writing them touches few pages, each once. In order
of their names they would be all over the file, and every page of it would be written for every bucket.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar
from weakref import WeakValueDictionary

import lmdb
import mmh3

from serving.errors import StoreUnavailableError, StoreUrlError
from serving.online_store.base import OnlineStore, batches, check_entity, check_group, is_entity

if TYPE_CHECKING:
    Transaction = lmdb.Transaction[bytes]

Result = TypeVar("Result")
Identity = tuple[int, int]

INITIAL_MAP_BYTES = 256 * 1024 * 1024  # address space, not disk: the file holds what was written
ROWS_PER_COMMIT = 10_000
KEYS_PER_PAGE = 10_000
PLACE_BYTES = 4  # of an entity's place in a group
MAX_READERS = 1024
SCRUBBING = ".scrubbing"  # the folder beside a store in which it is written anew
_SEPARATOR: Final = b"\0"
_AFTER_SEPARATOR: Final = b"\1"
# How keys are laid out, said in every store by a key that no group has. Of other layouts nothing would be found.
_LAYOUT_KEY, _LAYOUT = b"\0layout", b"2"
_TURNED_ROUND = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Environment:
    """One open folder. LMDB forbids a process to open the same files twice, so its stores share this."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        self.handle = _opened(folder, map_bytes)
        self.handle.reader_check()  # frees the slots of readers that died
        self.lock = threading.RLock()  # the map may only be resized while this process has no transaction
        self.folder = folder
        self.identity = _identity(folder)
        self.is_marked = self.run(partial(_is_marked, folder=folder), write=False)

    def run(self, work: Callable[[Transaction], Result], *, write: bool) -> Result:
        """`work` in one transaction; again after the map was grown by us (full) or by another (resized)."""
        with self.lock:
            while True:
                try:
                    with self.handle.begin(write=write) as transaction:
                        # Whoever replaced the files held this lock meanwhile, and these are not the store any more.
                        if write and self.identity != _identity(self.folder):
                            raise lmdb.Error("it was replaced meanwhile; ask again")
                        return work(transaction)
                except lmdb.MapFullError:
                    self.handle.set_mapsize(2 * self.handle.info()["map_size"])
                except lmdb.MapResizedError:
                    self.handle.set_mapsize(0)


def _opened(folder: Path, map_bytes: int) -> lmdb.Environment:
    """The files in the folder, mapped with room to grow; once more where another process grew them meanwhile.

    LMDB looks twice while it opens: how long the files are, then what is in them, which by then may lie beyond.
    """
    while True:
        file = folder / "data.mdb"
        there = file.stat().st_size if file.exists() else 0
        try:
            return lmdb.open(str(folder), map_size=max(map_bytes, 2 * there), max_readers=MAX_READERS)
        except lmdb.MapResizedError:
            continue


def _is_marked(transaction: Transaction, folder: Path) -> bool:
    """Whether a store says how its keys are laid out: all do but a new one.

    Raises StoreUnavailableError if they are laid out in another way.
    """
    layout = transaction.get(_LAYOUT_KEY)
    if layout != _LAYOUT and transaction.stat()["entries"]:
        raise StoreUnavailableError(
            f"online store at {folder} was written by another version, which laid its keys out otherwise; delete the "
            "folder and run `reel features`, which fills it anew"
        )
    return layout is not None


_open_environments: WeakValueDictionary[Path, _Environment] = WeakValueDictionary()
_opening = threading.Lock()


class LmdbStore(OnlineStore):
    """The online store in a folder of this machine."""

    is_embedded = True

    @classmethod
    def at(cls, url: str, *, readonly: bool) -> Self:
        """The store of an `lmdb:///absolute/path` address."""
        path = url.removeprefix("lmdb://")
        if not path.startswith("/") or path == "/":
            raise StoreUrlError(url, "the folder's path must be absolute")
        return cls(Path(path), readonly=readonly)

    def __init__(self, folder: Path, *, readonly: bool = False, map_bytes: int = INITIAL_MAP_BYTES) -> None:
        self._folder = folder.resolve()
        self._readonly = readonly
        self._map_bytes = map_bytes
        self._environment: _Environment | None = None
        if readonly:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._environment = self._share()
            if not self._environment.is_marked:
                self._environment.run(_mark, write=True)
        except (OSError, lmdb.Error) as error:
            raise StoreUnavailableError(
                f"online store at {folder} cannot be written: {error}; name a folder this user may write"
            ) from None

    def put_many(self, group: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """See OnlineStore; each 10,000 rows are one transaction."""
        prefix = _prefix(group)
        written = 0
        for batch in batches(rows, ROWS_PER_COMMIT):
            items = [(prefix + _name(check_entity(entity)), value) for entity, value in batch]
            self._run(partial(_put, items=items), write=True)
            written += len(items)
        return written

    def put_groups(self, rows: Sequence[tuple[str, Sequence[tuple[str, bytes]]]]) -> int:
        """See OnlineStore; one transaction."""
        prefixed = [(_prefix(group), of_group) for group, of_group in rows]
        items = [(prefix + _name(check_entity(entity)), value) for prefix, some in prefixed for entity, value in some]
        if items:
            self._run(partial(_put, items=items), write=True)
        return len(items)

    def get_groups(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[bytes | None]]:
        """See OnlineStore; everything is read from one snapshot."""
        names = {entity: _name(entity) for _, entities in wanted for entity in entities if is_entity(entity)}
        keys = [
            [prefix + names[entity] if entity in names else None for entity in entities]
            for prefix, entities in [(_prefix(group), entities) for group, entities in wanted]
        ]

        def look_up(transaction: Transaction) -> list[list[bytes | None]]:
            get = transaction.get
            return [[None if key is None else get(key) for key in of_group] for of_group in keys]

        return self._run(look_up)

    def delete_many(self, group: str, entities: Iterable[str]) -> int:
        """See OnlineStore; one transaction."""
        prefix = _prefix(group)
        keys = [prefix + _name(check_entity(entity)) for entity in entities]
        return self._run(partial(_delete_keys, keys=keys), write=True) if keys else 0

    def delete_entity(self, entity: str) -> int:
        """See OnlineStore; one transaction."""
        return self._run(partial(_delete, names=[_name(check_entity(entity))]), write=True)

    def delete_entities(self, entities: Iterable[str]) -> int:
        """See OnlineStore; each 10,000 entities are one transaction."""
        deleted = 0
        remaining = iter(entities)
        while batch := [_name(check_entity(one)) for one in islice(remaining, ROWS_PER_COMMIT)]:
            deleted += self._run(partial(_delete, names=batch), write=True)
        return deleted

    def delete_group(self, group: str) -> int:
        """See OnlineStore; each 10,000 values are one transaction."""
        prefix = _prefix(group)
        deleted = 0
        while page := self._run(partial(_delete_page, prefix=prefix), write=True):
            deleted += page
        return deleted

    def scrub(self) -> None:
        """See OnlineStore: what is there is written to a new store, for free pages and gaps keep what was deleted.

        While nobody writes, the folder is put in the place of the old one; readers find it as any replaced store.
        Killed between the two renames, there is no store until it is filled again.
        """
        beside = self._folder.with_name(self._folder.name + SCRUBBING)
        shutil.rmtree(beside, ignore_errors=True)
        fresh, old = beside / "fresh", beside / "old"

        def replace(transaction: Transaction) -> None:
            fresh.mkdir(parents=True)
            _copy(transaction, fresh, environment.handle.info()["map_size"])
            self._folder.rename(old)
            fresh.rename(self._folder)

        environment = self._current()
        self._run(replace, write=True)
        environment.handle.close()
        self._environment = self._share()
        shutil.rmtree(beside)

    def keys(self, group: str) -> Iterator[str]:
        """See OnlineStore; read by the page, so that no snapshot is held while the caller works."""
        prefix = _prefix(group)
        start = prefix
        while True:
            page = self._run(partial(_page, prefix=prefix, start=start))
            yield from (key[len(prefix) + PLACE_BYTES :].decode() for key in page)
            if len(page) < KEYS_PER_PAGE:
                return
            start = page[-1] + b"\0"

    def close(self) -> None:
        """See OnlineStore; the files are closed with their last store in this process."""
        self._environment = None

    def _run(self, work: Callable[[Transaction], Result], *, write: bool = False) -> Result:
        if write and self._readonly:
            raise StoreUnavailableError(f"online store at {self._folder} was opened for reading only")
        try:
            return self._current().run(work, write=write)
        except (OSError, lmdb.Error) as error:
            raise StoreUnavailableError(f"online store at {self._folder} failed: {error}") from None

    def _current(self) -> _Environment:
        """The environment of the files in the folder now: a reader follows a store that was replaced."""
        environment, there = self._environment, _identity(self._folder)
        if environment is not None and environment.identity == there:
            return environment
        if there is None or not self._readonly:
            raise StoreUnavailableError(f"no online store in {self._folder} (any more); fill it, ask again")
        self._environment = self._share()
        return self._environment

    def _share(self) -> _Environment:
        with _opening:
            environment = _open_environments.get(self._folder)
            if environment is None or environment.identity != _identity(self._folder):
                environment = _Environment(self._folder, self._map_bytes)
                _open_environments[self._folder] = environment
            return environment


def _identity(folder: Path) -> Identity | None:
    """Which data file lies in the folder: (device, inode); None if there is none."""
    try:
        status = os.stat(f"{folder}/data.mdb")  # at every read: no new Path for it
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def key_of(group: str, entity: str) -> bytes:
    """The key that an entity's value in a group is stored by. Raises StoreKeyError if there can be none."""
    return _prefix(group) + _name(check_entity(entity))


def _prefix(group: str) -> bytes:
    return check_group(group).encode() + _SEPARATOR


def _name(entity: str) -> bytes:
    """An entity in a key: its place in a group, and itself."""
    return (mmh3.hash(entity) & 0xFFFFFFFF).to_bytes(PLACE_BYTES, "little").translate(_TURNED_ROUND) + entity.encode()


def _mark(transaction: Transaction) -> None:
    """Say in a new store how its keys are laid out."""
    transaction.put(_LAYOUT_KEY, _LAYOUT)


def _put(transaction: Transaction, items: list[tuple[bytes, bytes]]) -> None:
    transaction.cursor().putmulti(items)


def _copy(transaction: Transaction, folder: Path, map_bytes: int) -> None:
    """Every key with its value to a new store."""
    with lmdb.open(str(folder), map_size=map_bytes) as copy:
        items = iter(transaction.cursor())
        while batch := list(islice(items, ROWS_PER_COMMIT)):
            with copy.begin(write=True) as writing:
                writing.cursor().putmulti(batch, append=True)


def _delete_keys(transaction: Transaction, keys: list[bytes]) -> int:
    return sum(transaction.delete(key) for key in keys)


def _delete(transaction: Transaction, names: list[bytes]) -> int:
    prefixes = list(_prefixes(transaction))
    return sum(transaction.delete(prefix + name) for prefix in prefixes for name in names)


def _delete_page(transaction: Transaction, prefix: bytes) -> int:
    return sum(transaction.delete(key) for key in _page(transaction, prefix, prefix))


def _page(transaction: Transaction, prefix: bytes, start: bytes) -> list[bytes]:
    cursor = transaction.cursor()
    if not cursor.set_range(start):
        return []
    page: list[bytes] = []
    for key in cursor.iternext(keys=True, values=False):
        if not key.startswith(prefix) or len(page) == KEYS_PER_PAGE:
            break
        page.append(key)
    return page


def _prefixes(transaction: Transaction) -> Iterator[bytes]:
    """Each group's prefix: from the first key of a group straight to the first key after it."""
    cursor = transaction.cursor()
    found = cursor.set_range(_AFTER_SEPARATOR)
    while found:
        group = cursor.key().partition(_SEPARATOR)[0]
        yield group + _SEPARATOR
        found = cursor.set_range(group + _AFTER_SEPARATOR)
