"""What of silver must be read to bring features up to date, and what of the logs is made from it.

parts    days whose log is made anew, of everybody; before them lies the context of who was active on them
people   whose rows are read whole: what they did in a part began long before it, or their consent changed
keys     entities that are made anew whole: those of people whose consent changed
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyiceberg.table import FileScanTask

from features.columns import milliseconds
from features.revision import Flags, Part, is_in
from features.source import EVENT_TIME
from features.units import Hashes, hashes, is_among
from features.windows import DAY_MS
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_files

NOBODY = np.empty(0, dtype=np.uint64)
NO_KEYS = pa.array([], pa.string())


@dataclass(frozen=True)
class DayPart:
    """Whole days `[start, end)`; rows since `since_ms` of those who were `active` on them belong to their context."""

    start_ms: int
    end_ms: int
    since_ms: int
    active: Hashes

    @property
    def days(self) -> int:
        """How many."""
        return (self.end_ms - self.start_ms) // DAY_MS


@dataclass(frozen=True)
class Spans:
    """By path of a table's files: first and last instant in each."""

    of: Mapping[str, tuple[int, int]]

    def overlap(self, path: str, start_ms: int, end_ms: int) -> bool:
        """Whether the file may hold rows in `[start, end)`."""
        first_ms, last_ms = self.of[path]
        return first_ms < end_ms and last_ms >= start_ms


@dataclass(frozen=True)
class Scope:
    """A part of all rows, and of all logs. Hashes are ascending."""

    parts: tuple[DayPart, ...]
    people: Hashes
    keys: Mapping[str, pa.Array]
    spans: Mapping[str, Spans]

    def part_for(self, entity: str) -> Part:
        """What of an entity's tables is made anew."""
        return Part(tuple((one.start_ms, one.end_ms) for one in self.parts), self.keys.get(entity, NO_KEYS))

    def files_of(self, name: str, files: Sequence[FileScanTask]) -> tuple[FileScanTask, ...]:
        """The files of a table that may hold something."""
        if len(self.people):
            return tuple(files)
        return tuple(one for one in files if self._has_days(name, one))

    def with_rows(
        self, table: TableFiles, name: str, files: Sequence[FileScanTask], together: str
    ) -> list[FileScanTask]:
        """The files that hold something: of those without a day of it, one column is looked through for its people."""
        return [one for one in files if self._has_days(name, one) or self._has_people(table, one, together)]

    def is_read(self, rows: pa.Table, together: str) -> Flags:
        """Which rows of silver logs are made from."""
        whose, times_ms = hashes(rows[together]), milliseconds(rows[EVENT_TIME])
        read = is_among(whose, self.people)
        for part in self.parts:
            read |= (times_ms >= part.start_ms) & (times_ms < part.end_ms)
            read |= (times_ms >= part.since_ms) & (times_ms < part.start_ms) & is_among(whose, part.active)
        return read

    def is_made(self, log: pa.Table) -> Flags:
        """Which rows of a log are whole, so that tables are made from them."""
        times_ms, made = milliseconds(log[EVENT_TIME]), np.zeros(log.num_rows, dtype=np.bool_)
        for part in self.parts:
            made |= (times_ms >= part.start_ms) & (times_ms < part.end_ms)
        for entity, keys in self.keys.items():
            if entity in log.column_names:
                made |= is_in(log[entity], keys)
        return made

    def _has_days(self, name: str, file: FileScanTask) -> bool:
        path = file.file.file_path
        return any(self.spans[name].overlap(path, part.since_ms, part.end_ms) for part in self.parts)

    def _has_people(self, table: TableFiles, file: FileScanTask, together: str) -> bool:
        found = read_files(table, [file.file.file_path], [together])[together]
        return bool(is_among(hashes(found), self.people).any())
