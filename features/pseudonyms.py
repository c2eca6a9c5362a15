"""Salted hashes that stand for people's ids outside Kafka (spec 8.3): `SHA-256(id + salt)`, as 64 hex digits.

Salts are versioned: the newest hashes what is written, and a look-up tries every live one. The salt never
appears in a message, a representation or a log line of this module.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import FeatureError


class NoSaltError(FeatureError):
    """No salt was given, so no id may be hashed."""

    def __init__(self) -> None:
        super().__init__(
            "no salt for people's ids: received an empty one; set REEL_SALT, or salt_file to a file of mode 0600"
        )


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

    def hash_column(self, plain: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Pseudonyms of a string column; null stays null. Each distinct id is hashed once."""
        encoded = pc.dictionary_encode(plain)
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        hashes = pa.array([self.hash(value) for value in encoded.dictionary.to_pylist()], pa.string())
        return hashes.take(encoded.indices)

    def daily_token(self, plain: str, day: int) -> str:
        """A keyed token for `plain` that changes with `day` (days since the epoch, UTC).

        It lets aggregates count a kids' profile once a day and links nothing from one day to the next.
        HMAC (RFC 2104) keyed by the salt, so that it cannot be recomputed from the profile's hash.
        """
        name = f"kids:{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}:{plain}"
        return hmac.new(self.salts[-1].encode(), name.encode(), hashlib.sha256).hexdigest()


def _digest(plain: str, salt: str) -> str:
    return hashlib.sha256((plain + salt).encode()).hexdigest()
