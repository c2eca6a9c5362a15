"""Messages that are no events."""

from collections.abc import Sequence

import numpy as np

from pipelines.contract.events import Contract
from pipelines.event_batch import RubbishMessage

KINDS = ("truncated_body", "unknown_schema_id", "wrong_magic_byte", "empty")
_UNKNOWN_SCHEMA_ID = (0x7FFF_0000).to_bytes(4, "big")
_ID_CHARACTERS = 40


def rubbish(
    contract: Contract, topics: Sequence[str], at_ms: int, count: int, chance: np.random.Generator
) -> list[RubbishMessage]:
    """`count` of them, of every kind in `KINDS`, on any of `topics`."""
    kinds = chance.integers(0, len(KINDS), count).tolist()
    places = chance.integers(0, len(topics), count).tolist()
    return [
        _message(contract, KINDS[kind], topics[place], at_ms, chance) for kind, place in zip(kinds, places, strict=True)
    ]


def _message(contract: Contract, kind: str, topic: str, at_ms: int, chance: np.random.Generator) -> RubbishMessage:
    match kind:
        case "truncated_body":  # after the event's own header: an event id, led by its length (zigzag coded), no more
            event = next(event for event in contract.events if event.topic == topic)
            body = bytes([2 * _ID_CHARACTERS]) + chance.bytes(_ID_CHARACTERS // 2).hex().encode()
            return RubbishMessage(topic, kind, body, at_ms, event.name)
        case "unknown_schema_id":
            value = b"\0" + _UNKNOWN_SCHEMA_ID + chance.bytes(12)
        case "wrong_magic_byte":
            value = b"\1" + chance.bytes(12)
        case _:
            value = b""
    return RubbishMessage(topic, kind, value, at_ms)
