"""Sources: the logs that feature groups read, each a pure function of tables that are already clean.

A source says which events it is made of, which tables hold them, whose rows must come together for the log of a
viewer or a title to be right, and how the log is made. A row of a log is what became known with one event.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from features.columns import TIMESTAMP
from features.errors import DeclarationError

EVENT_NAME, EVENT_TIME, EVENT_ID = "event_name", "event_timestamp", "event_id"
FROM = ":from"
"""After an event's id: another row of the log that became known with it, of what was left for something else."""
_EVENT_COLUMNS = {EVENT_ID: pa.string(), EVENT_TIME: TIMESTAMP}

Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Source:
    """A log that groups read: its name, its columns with their types, and where it comes from.

    `events`: names of the events it is made of; where the log keeps `event_name`, its values. `reads`: the columns of
    each table of people's events. `shared`: the columns of tables that say the same to everybody (titles). `together`:
    the column by whose values the rows must be brought together before `make` is called; rows without one come
    together too. `make`: the log of these tables, by table name; of equal rows in any order the same.

    What a row of the log is made of, so that a part of the log can be made from a part of the rows: of earlier rows
    only, of those of the same *unit* however old (a playback, a session: what has the same first known value of the
    columns `bound_by`), and of those of the same `together` within `reach_ms` before them. Rows of a table without
    these columns, and those of a source that names none, stand for themselves.
    """

    name: str
    schema: pa.Schema
    events: tuple[str, ...] = ()
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    shared: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    together: str = "user_id"
    make: Callable[[Tables], pa.Table] | None = None
    bound_by: tuple[str, ...] = ()
    reach_ms: int = 0

    def __post_init__(self) -> None:
        for column, arrow_type in _EVENT_COLUMNS.items():
            if column not in self.schema.names or self.schema.field(column).type != arrow_type:
                raise DeclarationError(f"source {self.name}: a log needs the column {column} of type {arrow_type}")
        for table, columns in self.reads.items():
            if self.together not in columns:
                raise DeclarationError(
                    f"source {self.name}: it brings rows together by {self.together}, which is not read of {table}"
                )

    def log(self, tables: Tables) -> pa.Table:
        """The log of some tables, which hold all rows of the values of `together` that they hold any of.

        Raises:
            LogError: a column is missing, or holds what it cannot hold.
            DeclarationError: nobody said how the log is made.
        """
        if self.make is None:
            raise DeclarationError(f"source {self.name} does not say how its log is made; give it `make`")
        return self.make(tables)
