"""What the catalogue and the subscriptions tell of an event, as of its `event_timestamp` (spec 3.2, 4.4).

content        of the title's latest announcement at or before the event; null before its first: the row is then
               an orphan (`is_orphan`), also when the title is announced later, so that what a row says does not
               depend on when somebody asks. An announcement that is received after a row was cleaned, although it
               is dated before it, does not change the row.
content type   the event's own, else the catalogue's
channel        the title of a live content, which is how the catalogue names a channel
subscription   the event's own statement, else the account's latest change at or before it, unless it had run out
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import milliseconds
from features.distinct import codes_of, encoded, spread
from pipelines.lakehouse import tables
from pipelines.silver.histories import History
from pipelines.silver.rules import clock_reliable

ASKED = (
    "event_timestamp", "client_timestamp", "content_id", "content_type", "channel_id", "user_id", "subscription_tier"
)  # fmt: skip
"""What `Knowledge` asks of rows, where they have it."""
_LIVE = "live"


@dataclass(frozen=True)
class Knowledge:
    """The slowly changing tables."""

    titles: History
    subscriptions: History

    def enrich(self, rows: pa.Table, columns: Collection[str]) -> pa.Table:
        """`rows` with those of the added columns that are among `columns`, the target table's."""
        at_ms = milliseconds(rows["event_timestamp"])
        added: dict[str, pa.Array] = {"client_timestamp_reliable": clock_reliable(rows)}
        if "subscription_tier" in columns:
            added["subscription_tier"] = self._tier(rows, at_ms)
        if "content_title" in columns:
            added |= self._content(rows, at_ms)
        elif "channel_name" in columns:
            found = self.titles.at(_texts(rows, "channel_id"), at_ms)
            added["channel_name"] = self._channel_name(found)
        for name, values in added.items():
            if name in columns:
                rows = _with(rows, name, values)
        return rows

    def _content(self, rows: pa.Table, at_ms: np.ndarray) -> dict[str, pa.Array]:
        ids = encoded(_texts(rows, "content_id"))
        found = self.titles.at(ids, at_ms)
        refers = codes_of(ids) >= 0
        names = [(field.name, field.name.removeprefix("content_")) for field in tables.CONTENT]
        told = {target: self.titles.take(source, found) for target, source in names}
        told["content_type"] = _first(rows, "content_type", self.titles.take("content_type", found))
        told["channel_name"] = self._channel_name(found)
        told["is_orphan"] = pa.array(found < 0, mask=~refers)
        return told

    def _channel_name(self, found: np.ndarray) -> pa.Array:
        kinds = self.titles.facts["content_type"].combine_chunks()
        is_live = np.append(np.asarray(pc.equal(kinds, _LIVE).fill_null(False)), False)
        return self.titles.take("title", np.where(is_live[found], found, -1))

    def _tier(self, rows: pa.Table, at_ms: np.ndarray) -> pa.Array:
        found = self.subscriptions.at(rows["user_id"], at_ms)
        until = self.subscriptions.facts["valid_until"]
        ends_ms = milliseconds(until.fill_null(0))
        ends_ms = np.append(np.where(np.asarray(pc.is_null(until)), np.iinfo(np.int64).max, ends_ms), 0)
        in_force = np.where(ends_ms[found] > at_ms, found, -1)
        return _first(rows, "subscription_tier", self.subscriptions.take("subscription_tier", in_force))


def _first(rows: pa.Table, name: str, otherwise: pa.Array) -> pa.Array:
    """The column of `rows`, and `otherwise` where it has no value."""
    if name not in rows.column_names or rows[name].null_count == rows.num_rows:
        return otherwise
    own = encoded(rows[name])
    if not own.null_count:
        return own
    other = encoded(otherwise)
    codes, others = codes_of(own), codes_of(other)
    chosen = np.where(codes >= 0, codes, np.where(others >= 0, others + len(own.dictionary), -1))
    return spread(pa.concat_arrays([own.dictionary, other.dictionary]), chosen.astype(np.int32))


def _texts(rows: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    """The column; nulls where none of the events at hand has such a property."""
    return rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, pa.string())


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, values)
    return rows.append_column(name, values)
