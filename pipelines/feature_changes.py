"""What changed since features were built: new rows of silver, titles that are another now, consent given or withdrawn.

Three decisions:

- The unit of rebuilding is a UTC day, because no tile crosses a midnight: the tiles of the days that new rows change
  are made again from all rows of these days, and replaced. Work follows the days touched, whatever the history is;
  a row that comes late costs its day. Tiles are never subtracted from, so that sketches and lists can be tiles too.
- Who was active on these days brings a context (`features.units`). Old rows of a playback or a session that is still
  open are looked for by two columns of older files; who has some is read whole.
- If more than half of all rows would be read again, everything is; so it is where nobody can tell what changed
  (another declaration, another online store, snapshots that are gone, rows taken out of silver by hand).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import polars as pl
import pyarrow as pa
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation

from features.decision import decided_otherwise
from features.purposes import Purpose
from features.source import EVENT_TIME, Source
from features.titles import titles_changed
from features.units import (
    Hashes,
    context_ms,
    joined,
    long_people,
    open_units,
    touched_days,
)
from features.windows import DAY_MS, HOUR_MS
from pipelines.cluster import run_tasks
from pipelines.feature_logs import Reading
from pipelines.feature_look import (
    FOREVER_MS,
    DaysOf,
    DaysWatched,
    Eyes,
    KeysOf,
    Look,
    NewRows,
    PeopleOf,
    PeopleSharing,
    SpansOf,
    looked,
)
from pipelines.feature_scope import NOBODY, DayPart, Scope, Spans
from pipelines.feature_tables import Built
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.lineage import Commit
from pipelines.lakehouse.scans import (
    ExpiredSnapshotError,
    appended_files,
    file_groups,
    lower_instant_ms,
    read_snapshot,
    snapshots_after,
    upper_instant_ms,
)
from pipelines.viewing import PEOPLE, KnownPeople, registries_as_of

# Playbacks and sessions seldom last longer; those that do are right too, and cost more.
SHORTEST_REACH_MS = 6 * HOUR_MS
MOST_READ_AGAIN = 0.5
ROWS_PER_LOOK = 2_000_000  # of a few columns
_TITLES = "silver.titles"


class CannotTellError(Exception):
    """What changed cannot be told; the text says why. All is to be built anew."""


@dataclass(frozen=True)
class Changes:
    """Compares what a reading finds with what features were built from. `decided_ms`: as of when consent is asked."""

    lakehouse: Lakehouse
    reading: Reading
    titles: pa.Table
    purpose: Purpose
    entities: tuple[str, ...]
    decided_ms: int

    def scope(self, since: Sequence[tuple[Source, Built]]) -> Scope:
        """What to make anew, of tables that were built so of these sources. Raises CannotTellError."""
        new: dict[str, dict[str, FileScanTask]] = {}
        try:
            for source, built in since:
                for name, files in self._new_files(source, built).items():
                    new.setdefault(name, {}).update({one.file.file_path: one for one in files})
        except ExpiredSnapshotError as error:
            raise CannotTellError(str(error)) from None
        days = self._days_of_rows({name: list(files.values()) for name, files in new.items()})
        days = days.union(*(self._days_of_titles(source, built) for source, built in since))
        users, profiles = self._decided_otherwise([built for _, built in since])
        if not self.entities and (users or profiles):
            days |= self._days_of_people(users, profiles)
        self._check_worth(sorted(days))
        parts, long = self._parts(sorted(days))
        keys, people = self._people_to_remake(users, profiles)
        return Scope(tuple(parts), np.union1d(long, people), keys, self._spans)

    @property
    def _reach_ms(self) -> int:
        return max(SHORTEST_REACH_MS, *(source.reach_ms for source in self.reading.sources))

    @cached_property
    def _spans(self) -> dict[str, Spans]:
        found = {}
        for name, viewing in self.reading.viewings.items():
            table = self._table(name)
            found[name] = Spans({one.file.file_path: _span(table, one) for one in viewing.files})
        return found

    def _table(self, name: str) -> Table:
        table = self.lakehouse.existing(name)
        assert table is not None, "it was read a moment ago"
        return table

    def _new_files(self, source: Source, since: Built) -> dict[str, list[FileScanTask]]:
        """The files of each of a source's tables that were appended since."""
        found = {}
        for name, viewing in self.reading.viewings.items():
            if name not in source.reads:
                continue
            table, before = self._table(name), since.inputs.get(name)
            if before is not None:
                _check_only_appended(name, table, before)
            appended = {one.file_path for one in appended_files(table, before)}
            here = [one for one in viewing.files if one.file.file_path in appended]
            is_as_read = table.metadata.current_snapshot_id == self.reading.snapshots[name]
            if is_as_read and len(here) < len(appended):
                raise CannotTellError(f"files that {name} had gained were put together with others")
            found[name] = here
        return found

    def _days_of_rows(self, new: Mapping[str, Sequence[FileScanTask]]) -> set[int]:
        rows = list(self._look(new, NewRows))
        if not rows:
            return set()
        by_day = pl.concat(rows)
        first_ms = by_day["first_ms"].min()
        later = self._files_between(int(first_ms), FOREVER_MS)  # type: ignore[arg-type]  # there are rows
        people = by_day["person"].unique().sort().to_numpy()
        known = joined(list(self._look(later, partial(SpansOf, people=people))))
        return touched_days(by_day, known, self._reach_ms)

    def _days_of_titles(self, source: Source, since: Built) -> set[int]:
        """Days on which titles were watched of which something else is known now."""
        if _TITLES not in source.shared or since.inputs.get(_TITLES) == self.reading.snapshots.get(_TITLES):
            return set()
        before = read_snapshot(self.lakehouse.existing(_TITLES), since.inputs.get(_TITLES), tables.TITLES)
        changed = titles_changed(before, self.titles)
        if not changed.height:
            return set()
        first_ms = int(changed["since_ms"].min())  # type: ignore[arg-type]  # there is one
        names = {name for name, columns in source.reads.items() if "content_id" in columns}
        files = {name: some for name, some in self._files_between(first_ms, FOREVER_MS).items() if name in names}
        days: set[int] = set()
        for found in self._look(files, partial(DaysWatched, titles=changed)):
            days.update(found["day"].to_list())
        return days

    def _parts(self, days: Sequence[int]) -> tuple[list[DayPart], Hashes]:
        """Runs of days with their contexts, and who is read whole for them."""
        parts, long = [], NOBODY
        for start_ms, end_ms in _runs(days):
            since_ms = start_ms - context_ms(self._reach_ms)
            near = self._files_between(since_ms, end_ms)
            paths = {one.file.file_path for some in near.values() for one in some}
            known = joined(list(self._look(near, partial(SpansOf, before_ms=end_ms))))
            older = {
                name: [one for one in some if one.file.file_path not in paths]
                for name, some in self._files_between(-FOREVER_MS, since_ms).items()
            }
            open_ones = open_units(known, start_ms, self._reach_ms)
            behind = [found["person"].to_numpy() for found in self._look(older, partial(PeopleOf, units=open_ones))]
            long = np.unique(np.concatenate([long, long_people(known, start_ms, self._reach_ms), *behind]))
            active = known.filter(pl.col("last_ms") >= start_ms)["person"].unique().sort().to_numpy()
            parts.append(DayPart(start_ms, end_ms, since_ms, active))
        return parts, long

    def _check_worth(self, days: Sequence[int]) -> None:
        """Raise if more than half of all rows would be read again for some days."""
        before = math.ceil(context_ms(self._reach_ms) / DAY_MS)
        read = sorted({day - back for day in days for back in range(before + 1)})
        rows = sum(
            self._share_read(name, one, start_ms, end_ms)
            for start_ms, end_ms in _runs(read)
            for name, some in self._files_between(start_ms, end_ms).items()
            for one in some
        )
        if rows > MOST_READ_AGAIN * sum(self.reading.rows.values()):
            raise CannotTellError("more than half of all rows would be read again")

    def _share_read(self, name: str, file: FileScanTask, start_ms: int, end_ms: int) -> int:
        """About how many of a file's rows lie in `[start, end)`."""
        first_ms, last_ms = self._spans[name].of[file.file.file_path]
        inside_ms = min(last_ms, end_ms - 1) - max(first_ms, start_ms) + 1
        return math.ceil(file.file.record_count * inside_ms / (last_ms - first_ms + 1))

    def _files_between(self, start_ms: int, end_ms: int) -> dict[str, list[FileScanTask]]:
        all_spans = self._spans
        return {
            name: [one for one in viewing.files if all_spans[name].overlap(one.file.file_path, start_ms, end_ms)]
            for name, viewing in self.reading.viewings.items()
        }

    def _decided_otherwise(self, since: Sequence[Built]) -> tuple[set[str], set[str]]:
        """Users and profiles whose rows are decided otherwise since.

        Consent was given or withdrawn, or a profile turned out to be a child's, or to have been one.
        """
        now = KnownPeople.now(self.lakehouse).known
        users: set[str] = set()
        profiles: set[str] = set()
        # Most tables were built in one run, which asked once.
        for decided_ms, asked in {(one.decided_ms, tuple(map(one.inputs.get, PEOPLE))) for one in since}:
            snapshots = {name: at for name, at in zip(PEOPLE, asked, strict=True) if at is not None}
            before = registries_as_of(self.lakehouse, snapshots)
            other = decided_otherwise(before, decided_ms, now, self.decided_ms, self.purpose)
            users, profiles = users | other[0], profiles | other[1]
        return users, profiles

    def _days_of_people(self, users: set[str], profiles: set[str]) -> set[int]:
        """Days on which they have rows: aggregates of these are made anew, without them or with them again."""
        days: set[int] = set()
        everywhere = self._files_between(-FOREVER_MS, FOREVER_MS)
        for found in self._look(everywhere, partial(DaysOf, users=_texts(users), profiles=_texts(profiles))):
            days.update(found["day"].to_list())
        return days

    def _people_to_remake(self, users: set[str], profiles: set[str]) -> tuple[dict[str, pa.Array], Hashes]:
        """The keys of entities of people whose rows are decided otherwise, and whose rows make them."""
        if not self.entities or not (users or profiles):
            return {}, NOBODY
        everywhere = self._files_between(-FOREVER_MS, FOREVER_MS)
        whose = partial(KeysOf, entities=self.entities, users=_texts(users), profiles=_texts(profiles))
        theirs = list(self._look(everywhere, whose))
        keys = {
            name: pa.array(sorted({key for one in theirs for key in one[name].drop_nulls()}), pa.string())
            for name in self.entities
        }
        # Whoever else has a row of such an entity (a profile, a session) makes it too.
        sharing = self._look(everywhere, partial(PeopleSharing, keys=keys))
        people = [found["person"].to_numpy() for found in sharing]
        return keys, np.unique(np.concatenate([NOBODY, *people]))

    def _look(
        self, files: Mapping[str, Sequence[FileScanTask]], look: "Callable[[Eyes], Look]"
    ) -> Iterator[pl.DataFrame]:
        """What is seen in some files of each table, by groups of them, in Ray tasks."""
        eyes = Eyes(
            {name: viewing.table for name, viewing in self.reading.viewings.items()},
            self.reading.together,
            {name: self._bindings(name) for name in self.reading.viewings},
        )
        items = [
            (name, [one.file.file_path for one in group])
            for name, some in files.items()
            for group in file_groups(some, ROWS_PER_LOOK)
        ]
        yield from run_tasks(partial(looked, look(eyes)), items)

    def _bindings(self, name: str) -> tuple[tuple[str, ...], ...]:
        """By what the rows of a table are bound together, for one source or another."""
        found: dict[tuple[str, ...], None] = {}
        for source in self.reading.sources:
            columns = tuple(column for column in source.bound_by if column in source.reads.get(name, ()))
            if columns:
                found[columns] = None
        return tuple(found)


def _texts(values: set[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())


def _check_only_appended(name: str, table: Table, before: int) -> None:
    for snapshot in snapshots_after(table, before):
        is_append = snapshot.summary is not None and snapshot.summary.operation is Operation.APPEND
        if not is_append and not Commit.of(snapshot).is_upkeep(name):
            raise CannotTellError(f"rows of {name} were changed by snapshot {snapshot.snapshot_id}")


def _span(table: Table, file: FileScanTask) -> tuple[int, int]:
    first_ms, last_ms = (bound(table, file.file, EVENT_TIME) for bound in (lower_instant_ms, upper_instant_ms))
    return (-FOREVER_MS if first_ms is None else first_ms, FOREVER_MS if last_ms is None else last_ms)


def _runs(days: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring days as `[start, end)` in ms."""
    found: list[tuple[int, int]] = []
    for day in days:
        start_ms, end_ms = day * DAY_MS, (day + 1) * DAY_MS
        if found and found[-1][1] == start_ms:
            found[-1] = (found[-1][0], end_ms)
        else:
            found.append((start_ms, end_ms))
    return found
