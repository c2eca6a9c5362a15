"""Salted hashes that stand for people's ids outside Kafka (spec 8.3): `SHA-256(id + salt)`, as 64 hex digits.

Salts are versioned: the newest hashes what is written, and a look-up tries every live one. The salt never
appears in a message, a representation or a log line of this module.
"""

import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.distinct import Codes, codes_of, encoded, spread
from features.errors import FeatureError

_DIGEST_BYTES = hashlib.sha256().digest_size
# Ids come back in batch after batch. About 30 MB of a process at most, per salt.
_MOST_REMEMBERED = 131_072
_remembered: dict[str, dict[str, bytes]] = {}


class NoSaltError(FeatureError):
    """No salt was given, so no id may be hashed."""

    def __init__(self) -> None:
        super().__init__(
            "no salt for people's ids: received an empty one; set REEL_SALT, or salt_file to a file of mode 0600"
        )


@dataclass(frozen=True, eq=False)
class Pseudonyms:
    """A column of people: whose each row is, and every pseudonym that person may have in a table."""

    codes: Codes  # which person, shape (n,); -1 for nobody
    names: tuple[pa.Array, ...]  # of each person, one array a salt, newest salt first

    @classmethod
    def of(cls, hashed: pa.Array | pa.ChunkedArray) -> "Pseudonyms":
        """From a column of pseudonyms, the plain ids of which nobody knows any more."""
        column = encoded(hashed)
        return cls(codes_of(column), (column.dictionary,))

    def filter(self, kept: NDArray[np.bool_]) -> "Pseudonyms":
        """Only some of the rows."""
        return Pseudonyms(self.codes[kept], self.names)

    @property
    def column(self) -> pa.DictionaryArray:
        """What is written: the newest pseudonyms, and in the dictionary only people who have a row."""
        return spread(self.names[0], self.codes, are_distinct=True)


@dataclass(frozen=True)
class Pseudonymizer:
    """Hashes ids with the newest of `salts` (oldest first), and can name every hash an id may have."""

    salts: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.salts or not all(self.salts):
            raise NoSaltError

    def hash(self, plain: str) -> str:
        """The pseudonym of `plain` under the newest salt: 64 hex digits."""
        return _digest(plain, self.salts[-1])

    def candidates(self, plain: str) -> tuple[str, ...]:
        """Every pseudonym `plain` may be stored under, newest salt first."""
        return tuple(_digest(plain, salt) for salt in reversed(self.salts))

    def pseudonyms(self, plain: pa.Array | pa.ChunkedArray) -> Pseudonyms:
        """Who is in a column of plain ids, under every salt. Each distinct id is hashed once a salt."""
        column = encoded(plain)
        people: list[str] = column.dictionary.to_pylist()
        return Pseudonyms(codes_of(column), tuple(_hashes(people, salt) for salt in reversed(self.salts)))

    def hash_encoded(self, plain: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
        """Pseudonyms of a text column under the newest salt, as a dictionary array; null stays null."""
        column = encoded(plain)
        return spread(_hashes(column.dictionary.to_pylist(), self.salts[-1]), codes_of(column), are_distinct=True)

    def hash_column(self, plain: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The same as plain text."""
        return self.hash_encoded(plain).cast(pa.string())

    def daily_token(self, plain: str, day: int) -> str:
        """A keyed token for `plain` that changes with `day` (days since the epoch, UTC).

        It lets aggregates count a kids' profile once a day and links nothing from one day to the next.
        HMAC (RFC 2104) keyed by the salt, so that it cannot be recomputed from the profile's hash.
        """
        name = f"kids:{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}:{plain}"
        return hmac.digest(self.salts[-1].encode(), name.encode(), "sha256").hex()


def _digest(plain: str, salt: str) -> str:
    return hashlib.sha256((plain + salt).encode()).hexdigest()


def _hashes(people: Sequence[str], salt: str) -> pa.Array:
    """The pseudonym of each, as text."""
    known = _remembered.setdefault(salt, {})
    digests = [known.get(plain) or hashlib.sha256((plain + salt).encode()).digest() for plain in people]
    if len(known) + len(people) > _MOST_REMEMBERED:
        known.clear()
    known.update(zip(people[:_MOST_REMEMBERED], digests, strict=False))
    text = pa.py_buffer(binascii.hexlify(b"".join(digests)))
    ends = pa.py_buffer(np.arange(len(people) + 1, dtype=np.int32) * (2 * _DIGEST_BYTES))
    return pa.StringArray.from_buffers(len(people), ends, text)
