"""Messages set aside: encrypted, because bytes that cannot be read may hold plain ids that nobody can find in them."""

import json
import os
from collections.abc import Sequence

import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipelines.errors import ReelError
from pipelines.kafka.message import Headers, Messages
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
    """Reason, claimed schema id, and the sealed value, key and headers of each message in `set_aside`, in its order."""
    cipher = AESGCM(key)
    return pa.table(
        {
            "reason": pa.array([one.reason for one in set_aside], pa.string()),
            "schema_id": pa.array([_int32(one.schema_id) for one in set_aside], pa.int32()),
            # A tombstone has no value; sealing its absence as b"" keeps one rule for the column.
            "encrypted_value": pa.array(
                [seal(cipher, messages.values[one.index] or b"") for one in set_aside], pa.binary()
            ),
            "encrypted_key": pa.array(
                [_seal_present(cipher, messages.keys[one.index]) for one in set_aside], pa.binary()
            ),
            "encrypted_headers": pa.array(
                [_seal_present(cipher, _as_bytes(messages.headers[one.index])) for one in set_aside], pa.binary()
            ),
        }
    )


def opened(key: bytes, topic: str, rows: pa.Table) -> Messages:
    """The messages of `topic` that `rows` of quarantine were made of. Raises BrokenSealError.

    A message without a value comes back with an empty one: neither can be read. A table from before headers were kept
    has no column of them.
    """
    cipher = AESGCM(key)

    def column(name: str) -> list[bytes | None]:
        if name not in rows.column_names:
            return [None] * rows.num_rows
        return [None if sealed is None else unseal(cipher, sealed) for sealed in rows[name].to_pylist()]

    return Messages(
        topic,
        rows["partition"].to_numpy(),
        rows["offset"].to_numpy(),
        column("encrypted_key"),
        column("encrypted_value"),
        [_as_headers(text) for text in column("encrypted_headers")],
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


def _seal_present(cipher: AESGCM, plain: bytes | None) -> bytes | None:
    return None if plain is None else seal(cipher, plain)


def _as_bytes(headers: Headers | None) -> bytes | None:
    if headers is None:
        return None
    return json.dumps([(name, None if value is None else value.hex()) for name, value in headers]).encode()


def _as_headers(text: bytes | None) -> Headers | None:
    if text is None:
        return None
    return [(name, None if value is None else bytes.fromhex(value)) for name, value in json.loads(text)]


def _int32(schema_id: int | None) -> int | None:
    """A schema id for its column; rubbish may claim one that no registry could have given."""
    return schema_id if schema_id is not None and schema_id < 2**31 else None
