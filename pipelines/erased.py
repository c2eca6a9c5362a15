"""Who was erased, and who asked to be: what the door must not let in again.

A tombstone is an HMAC-SHA256 (RFC 2104) under a key of its own, over `user:` and the plain id, or over `profile:` or
`session:` and a pseudonym, where nothing else was known. Nobody can be told from it, and whoever holds an id and the
key can tell whether it was erased.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.distinct import Codes, codes_of, encoded
from features.pseudonyms import Pseudonymizer
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all

USER, PROFILE, SESSION = "user", "profile", "session"
KINDS = (USER, PROFILE, SESSION)
USER_DELETED = "user.deleted"
_MOST_REMEMBERED = 131_072

Flags = NDArray[np.bool_]
Marks = Mapping[str, frozenset[bytes]]
"""HMACs by kind."""


@dataclass(frozen=True)
class Tombstones:
    """Recognises the erased among plain ids. Travels to Ray tasks; costs nothing while nobody was erased."""

    key: bytes = field(repr=False)
    marks: Marks = field(default_factory=dict, repr=False)
    # What was found of ids that come back in batch after batch, in this process.
    _known: dict[tuple[str, str], bool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, lakehouse: Lakehouse, key: bytes) -> "Tombstones":
        """Of everybody who was erased or asked to be."""
        stones = read_all(lakehouse.existing("privacy.tombstones"), tables.TOMBSTONES)
        asked = read_all(lakehouse.existing("privacy.erasures"), tables.ERASURES)
        return cls.of(key, stones, asked)

    @classmethod
    def of(cls, key: bytes, stones: pa.Table, asked: pa.Table) -> "Tombstones":
        """From rows of `privacy.tombstones` and `privacy.erasures`."""
        pairs = list(zip(stones["kind"].to_pylist(), stones["mark"].to_pylist(), strict=True))
        pairs += [(USER, request) for request in asked["request"].unique().to_pylist()]
        marks: dict[str, set[bytes]] = {}
        for kind, mark in pairs:
            marks.setdefault(kind, set()).add(bytes.fromhex(mark))
        return cls(key, {kind: frozenset(found) for kind, found in marks.items()})

    def __reduce__(self) -> tuple[object, ...]:
        return Tombstones, (self.key, self.marks)

    def mark(self, kind: str, name: str) -> str:
        """The tombstone of a plain user id, or of another's pseudonym: 64 hex digits."""
        return self._digest(kind, name).hex()

    def has(self, kind: str, name: str) -> bool:
        """Whether it was erased, or asked to be."""
        return self._digest(kind, name) in self.marks.get(kind, ())

    def among(self, events: pa.Table, hasher: Pseudonymizer) -> Flags | None:
        """Which of some events, their ids still plain, are of somebody who was erased; None: none of them."""
        if not self.marks:
            return None
        found = np.zeros(events.num_rows, dtype=bool)
        if USER in self.marks:
            users = encoded(events["user_id"])
            found |= self._flags(USER, codes_of(users), [users.dictionary])
        for kind in (PROFILE, SESSION):
            if kind in self.marks:
                people = hasher.pseudonyms(events[f"{kind}_id"])
                found |= self._flags(kind, people.codes, people.names)
        return found if found.any() else None

    def _flags(self, kind: str, codes: Codes, names: Sequence[pa.Array]) -> Flags:
        """Of each row, shape (n,); `names` are those of each person, one array a salt."""
        of_people = np.zeros(len(names[0]) + 1, dtype=bool)  # the last is nobody's
        for under_one_salt in names:
            of_people[:-1] |= np.fromiter(
                (self._is_erased(kind, name) for name in under_one_salt.to_pylist()), bool, len(under_one_salt)
            )
        flags: Flags = of_people[codes]
        return flags

    def _is_erased(self, kind: str, name: str) -> bool:
        known = self._known.get((kind, name))
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = self._known[kind, name] = self.has(kind, name)
        return known

    def _digest(self, kind: str, name: str) -> bytes:
        return hmac.digest(self.key, f"{kind}:{name}".encode(), "sha256")


NOBODY = Tombstones(b"")


def request_rows(
    plain: Sequence[str], asked_at: Sequence[datetime], asked_by: str, hasher: Pseudonymizer, stones: Tombstones
) -> pa.Table:
    """Rows of `privacy.erasures` for users who ask to be erased: one for each of their pseudonyms, salt by salt."""
    rows = [
        {"request": stones.mark(USER, user), "asked_at": at, "asked_by": asked_by, "kind": USER, "pseudonym": name}
        for user, at in zip(plain, asked_at, strict=True)
        for name in hasher.candidates(user)
    ]
    return pa.Table.from_pylist(rows, schema=tables.ERASURES)


def requests_among(events: pa.Table, hasher: Pseudonymizer, stones: Tombstones) -> tuple[pa.Table, NDArray[np.int64]]:
    """Events `user.deleted` as rows of `privacy.erasures`, and of which event each is; one of nobody asks nothing."""
    at = np.flatnonzero(np.asarray(events["user_id"].is_valid()))
    asking = events.take(pa.array(at))
    rows = request_rows(
        asking["user_id"].to_pylist(), asking["event_timestamp"].to_pylist(), USER_DELETED, hasher, stones
    )
    return rows, np.repeat(at, len(hasher.salts))
