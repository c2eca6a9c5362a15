"""Messages set aside: encrypted, because bytes that cannot be read may hold plain ids that nobody can find in them."""

import os
from collections.abc import Sequence

import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipelines.errors import ReelError
from pipelines.kafka.message import Messages
from pipelines.messages import SetAside

_NONCE_BYTES = 12


class BrokenSealError(ReelError):
    """Quarantined bytes are not as they were sealed, or were sealed with another key."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"{size} quarantined bytes cannot be opened: they were changed, or sealed with another key; "
            "set REEL_QUARANTINE_KEY to the one they were written with"
        )


def quarantine_rows(key: bytes, messages: Messages, set_aside: Sequence[SetAside]) -> pa.Table:
    """Reason, claimed schema id, and the sealed value and key of each message in `set_aside`, in its order."""
    cipher = AESGCM(key)
    return pa.table(
        {
            "reason": pa.array([one.reason for one in set_aside], pa.string()),
            "schema_id": pa.array([_int32(one.schema_id) for one in set_aside], pa.int32()),
            # A tombstone has no value; sealing its absence as b"" keeps one rule for the column.
            "encrypted_value": pa.array(
                [seal(cipher, messages.values[one.index] or b"") for one in set_aside], pa.binary()
            ),
            "encrypted_key": pa.array([_seal_key(cipher, messages.keys[one.index]) for one in set_aside], pa.binary()),
        }
    )


def seal(cipher: AESGCM, plain: bytes) -> bytes:
    """AES-256-GCM (NIST SP 800-38D): 12 random bytes, then ciphertext and tag."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, None)


def unseal(cipher: AESGCM, sealed: bytes) -> bytes:
    """What `seal` sealed. Raises BrokenSealError if a byte was changed, or the key is another."""
    try:
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise BrokenSealError(len(sealed)) from None


def _seal_key(cipher: AESGCM, key: bytes | None) -> bytes | None:
    return None if key is None else seal(cipher, key)


def _int32(schema_id: int | None) -> int | None:
    """A schema id for its column; rubbish may claim one that no registry could have given."""
    return schema_id if schema_id is not None and schema_id < 2**31 else None
