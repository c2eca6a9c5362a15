"""Logs of events as they are, for spines and labels whose events no feature counts.

CANCELLATIONS = events_of("cancellations", "silver.user", ("subscription.cancelled",))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from features.columns import TIMESTAMP
from features.errors import DeclarationError
from features.frames import frame_of, log_of
from features.source import EVENT_ID, EVENT_NAME, EVENT_TIME, Source, Tables
from features.sources import SOURCES


@dataclass(frozen=True)
class Events:
    """How such a log is made: the chosen events of one table, with some of its columns by type."""

    table: str
    names: tuple[str, ...]
    texts: tuple[str, ...]
    whole: tuple[str, ...]
    flags: tuple[str, ...]
    lists: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The log's columns."""
        kinds = (
            (self.texts, pa.string()),
            (self.whole, pa.int64()),
            (self.flags, pa.bool_()),
            (self.lists, pa.list_(pa.string())),
        )
        fixed = {EVENT_ID: pa.string(), EVENT_NAME: pa.string(), EVENT_TIME: TIMESTAMP}
        return pa.schema(list((fixed | {name: kind for names, kind in kinds for name in names}).items()))

    def __call__(self, tables: Tables) -> pa.Table:
        """The log, by (time, id)."""
        rows = frame_of(tables[self.table], self.schema.names, self.table)
        return log_of([rows.filter(pl.col(EVENT_NAME).is_in(self.names))], self.schema)


def events_of(
    name: str,
    table: str,
    events: Sequence[str],
    texts: Sequence[str] = ("user_id",),
    whole: Sequence[str] = (),
    flags: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> Source:
    """The source `name` of some events of a table of silver; `texts`, `whole`, `flags` and `lists` (of texts) are
    columns by type.

    The events and columns are checked against the contract when a training set is built.

    Raises:
        DeclarationError: the name is taken, or there is no event or no text column.
    """
    if name in {source.name for source in SOURCES}:
        raise DeclarationError(f"events_of: a source is called {name} already; choose another name")
    if not events or not texts:
        raise DeclarationError(f"events_of: {name} needs at least one event, and one text column to be cut by")
    make = Events(table, tuple(events), tuple(texts), tuple(whole), tuple(flags), tuple(lists))
    return Source(
        name,
        make.schema,
        events=make.names,
        reads={table: tuple(make.schema.names)},
        together=make.texts[0],
        make=make,
    )
