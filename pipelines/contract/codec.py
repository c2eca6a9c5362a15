"""Messages as they lie in Kafka: Confluent's wire format around Avro bodies.

A message is a byte 0, the id of the writer's schema (4 bytes, big-endian) and the Avro body. The bodies themselves
are made and read in bulk by `avro_encode` and `avro_decode`, which this module offers under one name.
"""

import struct
from collections.abc import Sequence

import numpy as np

from pipelines.contract.avro_cursor import Array, BadReason
from pipelines.contract.avro_decode import Decoded, decode
from pipelines.contract.avro_encode import encode, encode_in_chunks

__all__ = [
    "HEADER_BYTES",
    "BadReason",
    "Decoded",
    "decode",
    "encode",
    "encode_in_chunks",
    "split_wire_format",
    "wire_format",
]

HEADER_BYTES = 5
_HEADER = np.dtype([("magic", "u1"), ("schema_id", ">u4")])


def wire_format(schema_id: int, bodies: Sequence[bytes]) -> list[bytes]:
    """Put the header of `schema_id` before each body."""
    header = struct.pack(">BI", 0, schema_id)
    return [header + body for body in bodies]


def split_wire_format(values: Sequence[bytes | None]) -> tuple[Array, list[bytes], list[tuple[int, BadReason]]]:
    """Split messages into schema ids (int64) and bodies, each as long as `values`, and the bad ones.

    A bad message (no value, shorter than a header, or without the leading 0) has the id -1 and an empty body.
    """
    heads = [value[:HEADER_BYTES] if value else b"" for value in values]
    sizes = np.fromiter(map(len, heads), np.int64, len(heads))
    headers = np.frombuffer(b"".join(head.ljust(HEADER_BYTES, b"\xff") for head in heads), _HEADER)
    good = (sizes == HEADER_BYTES) & (headers["magic"] == 0)
    ids = np.where(good, headers["schema_id"].astype(np.int64), -1)
    bodies = [value[HEADER_BYTES:] if value else b"" for value in values]
    bad = [(int(index), BadReason.NOT_WIRE_FORMAT) for index in np.flatnonzero(~good)]
    for index, _ in bad:
        bodies[index] = b""
    return ids, bodies, bad
