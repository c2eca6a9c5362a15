"""What is looked for in silver, by a few columns of some files, to tell what changed: each look is a task of Ray's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from features.columns import milliseconds
from features.revision import is_in
from features.source import EVENT_TIME
from features.units import Hashes, hashes, is_among, new_by_day, seen, spans, units
from features.windows import DAY_MS
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_files

FOREVER_MS = 1 << 60

Paths = Sequence[str]
Look = Callable[[str, Paths], pl.DataFrame]
"""From a table's name and some of its files to what is seen in them."""


def looked(look: Look, item: tuple[str, Paths]) -> pl.DataFrame:
    """What one task sees."""
    return look(*item)


@dataclass(frozen=True)
class Eyes:
    """What is needed to read a few columns of any table."""

    tables: Mapping[str, TableFiles]
    together: str
    bindings: Mapping[str, tuple[tuple[str, ...], ...]]

    def seen(self, name: str, paths: Paths) -> pl.DataFrame:
        """Person, unit and time of every row."""
        bound = {column for columns in self.bindings[name] for column in columns}
        rows = self.read(name, paths, {self.together, EVENT_TIME, *bound})
        return seen(rows, self.together, self.bindings[name])

    def read(self, name: str, paths: Paths, columns: set[str]) -> pa.Table:
        """Some columns, as far as the table has them."""
        known = self.tables[name].arrow_schema.names
        return read_files(self.tables[name], paths, [one for one in sorted(columns) if one in known])


@dataclass(frozen=True)
class NewRows:
    """Rows by person, unit and day."""

    eyes: Eyes

    def __call__(self, name: str, paths: Paths) -> pl.DataFrame:
        """Columns of `features.units.new_by_day`."""
        return new_by_day(self.eyes.seen(name, paths))


@dataclass(frozen=True)
class SpansOf:
    """Spans of units, of some people only where these are given."""

    eyes: Eyes
    people: Hashes | None = None
    before_ms: int = FOREVER_MS

    def __call__(self, name: str, paths: Paths) -> pl.DataFrame:
        """Columns of `features.units.spans`."""
        rows = self.eyes.seen(name, paths).filter(pl.col("at_ms") < self.before_ms)
        if self.people is not None:
            rows = rows.filter(pl.Series(is_among(rows["person"].to_numpy(), self.people)))
        return spans(rows)


@dataclass(frozen=True)
class PeopleOf:
    """Who has a row of one of the units."""

    eyes: Eyes
    units: Hashes

    def __call__(self, name: str, paths: Paths) -> pl.DataFrame:
        """One column: `person`."""
        bound = {column for columns in self.eyes.bindings[name] for column in columns}
        rows = self.eyes.read(name, paths, {self.eyes.together, *bound})
        person = hashes(rows[self.eyes.together])
        has_some = np.zeros(len(person), dtype=np.bool_)
        for columns in self.eyes.bindings[name]:
            has_some |= is_among(units(rows, person, columns), self.units)
        return pl.DataFrame({"person": np.unique(person[has_some])})


@dataclass(frozen=True)
class DaysWatched:
    """Days on which titles were watched since each of them is another."""

    eyes: Eyes
    titles: pl.DataFrame

    def __call__(self, name: str, paths: Paths) -> pl.DataFrame:
        """One column: `day`, a whole number since 1970."""
        rows = self.eyes.read(name, paths, {"content_id", EVENT_TIME})
        wanted = np.sort(hashes(self.titles["content_id"].to_arrow().cast(pa.string())))
        rows = rows.filter(pa.array(is_among(hashes(rows["content_id"]), wanted)))
        ids = rows["content_id"].cast(pa.string()).to_pylist()
        found = pl.DataFrame({"content_id": pl.Series(ids, dtype=pl.String), "at_ms": milliseconds(rows[EVENT_TIME])})
        watched = found.join(self.titles, on="content_id").filter(pl.col("at_ms") >= pl.col("since_ms"))
        return watched.select(day=pl.col("at_ms") // DAY_MS).unique()


@dataclass(frozen=True)
class KeysOf:
    """Keys of entities in rows of some users, or of some profiles; one column an entity, a list each."""

    eyes: Eyes
    entities: tuple[str, ...]
    users: pa.Array
    profiles: pa.Array

    def __call__(self, name: str, paths: Paths) -> pl.DataFrame:
        """A column of texts for each entity."""
        rows = self.eyes.read(name, paths, {"user_id", "profile_id", *self.entities})
        is_theirs = is_in(rows["user_id"].cast(pa.string()), self.users)
        is_theirs |= is_in(rows["profile_id"].cast(pa.string()), self.profiles)
        rows = rows.filter(pa.array(is_theirs))
        keys = {
            one: rows[one].cast(pa.string()).drop_null().unique().to_pylist() if one in rows.column_names else []
            for one in self.entities
        }
        return pl.concat([pl.DataFrame({one: pl.Series(some, dtype=pl.String)}) for one, some in keys.items()],
                         how="diagonal")  # fmt: skip


@dataclass(frozen=True)
class PeopleSharing:
    """Who has a row of one of the keys."""

    eyes: Eyes
    keys: Mapping[str, pa.Array]

    def __call__(self, name: str, paths: Paths) -> pl.DataFrame:
        """One column: `person`."""
        rows = self.eyes.read(name, paths, {self.eyes.together, *self.keys})
        is_theirs = np.zeros(rows.num_rows, dtype=np.bool_)
        for one, keys in self.keys.items():
            if one in rows.column_names:
                is_theirs |= is_in(rows[one].cast(pa.string()), keys)
        people = hashes(rows[self.eyes.together].filter(pa.array(is_theirs)))
        return pl.DataFrame({"person": np.unique(people)})
