"""Which rows are valid (spec 11.1): rules read off the contract, event by event.

    required ids       what the event's schema requires and is called `*_id` is neither null nor empty
    percentages        `*_percent` lies within 0 to 100
    amounts            `*_ms`, `*_kbps`, `*_count` and `*_bytes` are not negative
    receipt            `event_timestamp` lies within 2000 to 2100: an instant in another unit does not

The first rule that a row breaks is its verdict.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.columns import milliseconds
from features.distinct import codes_of, encoded
from pipelines.contract.events import Column, EventSchema

VALID = "valid"
_AMOUNTS = ("_ms", "_kbps", "_count", "_bytes")
_FIRST_MS, _END_MS = 946_684_800_000, 4_102_444_800_000  # 2000-01-01 and 2100-01-01
_CLIENT_CLOCK_TOLERANCE_MS = 5 * 60 * 1000  # spec 11.1, timestamp sanity

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """The columns of one event by the rule they must keep."""

    required: tuple[str, ...]
    percentages: tuple[str, ...]
    amounts: tuple[str, ...]

    @classmethod
    def of(cls, event: EventSchema) -> "Rules":
        """From the columns of the event itself: the envelope is the door's matter."""
        own = [column for column in event.columns if column.path[0] != "envelope"]
        return cls(
            tuple(column.name for column in own if _is_required_id(column)),
            tuple(column.name for column in own if _is_number(column) and column.name.endswith("_percent")),
            tuple(column.name for column in own if _is_number(column) and column.name.endswith(_AMOUNTS)),
        )

    def verdicts(self, rows: pa.Table) -> pa.DictionaryArray:
        """`VALID`, or what is wrong, for each row."""
        reasons = [VALID]
        codes = np.zeros(rows.num_rows, np.int32)
        for reason, broken in self._broken(rows):
            if broken.any():
                codes[broken & (codes == 0)] = len(reasons)
                reasons.append(reason)
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(reasons))

    def _broken(self, rows: pa.Table) -> Iterator[tuple[str, Flags]]:
        for name in self.required:
            yield f"invalid: no {name}", _is_blank(rows[name])
        for name in self.percentages:
            values = _numbers(rows[name])
            yield f"invalid: {name} outside 0 to 100", ~((values >= 0) & (values <= 100))
        for name in self.amounts:
            yield f"invalid: negative {name}", _numbers(rows[name]) < 0
        received_ms = milliseconds(rows["event_timestamp"])
        yield "invalid: event_timestamp outside 2000 to 2100", (received_ms < _FIRST_MS) | (received_ms >= _END_MS)


def clock_reliable(rows: pa.Table) -> pa.Array:
    """Whether the client's clock was within five minutes of the server's; null where the client told no time."""
    told = rows["client_timestamp"]
    if told.null_count == rows.num_rows:
        return pa.nulls(rows.num_rows, pa.bool_())
    skew_ms = np.abs(milliseconds(told.fill_null(0)) - milliseconds(rows["event_timestamp"]))
    return pa.array(skew_ms <= _CLIENT_CLOCK_TOLERANCE_MS, mask=np.asarray(pc.is_null(told)))


def _is_required_id(column: Column) -> bool:
    return not column.nullable and column.name.endswith("_id") and pa.types.is_string(column.arrow)


def _is_number(column: Column) -> bool:
    return bool(pa.types.is_integer(column.arrow) or pa.types.is_floating(column.arrow))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64] | NDArray[np.int64]:
    return np.asarray(column.fill_null(0) if column.null_count else column)


def _is_blank(column: pa.ChunkedArray) -> Flags:
    texts = encoded(column)
    blank = np.append(np.asarray(pc.equal(texts.dictionary, "").fill_null(True)), True)
    return np.asarray(blank[codes_of(texts)], dtype=bool)
