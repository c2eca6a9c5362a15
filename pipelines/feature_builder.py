"""Building one bucket of a source's entities: every table of theirs, in a Ray task.

Tiles of a part are there: some days of all entities, and all days of a few. They take the place of those that are
stored. Where they differ, values at boundaries are made anew from then on; boundaries that are new are made for
everybody, from the stored tiles. What did not change is not written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile

from features.backfill import backfill_from_tiles, reach_back_ms
from features.columns import codes_in, milliseconds
from features.declarations import TILE_LENGTH, TILE_START
from features.revision import Part, Revised, is_in, revise_rows, revise_tiles
from features.source import EVENT_TIME
from features.windows import floor_ms
from pipelines.feature_tables import WEEK_MS, Stored, StoredFile, Target, overlapping
from pipelines.feature_tiles import Tiled, together
from pipelines.lakehouse.scans import bucket_of
from pipelines.online import OnlineTarget

_FOREVER_MS = 1 << 60
ALWAYS = ((-_FOREVER_MS, _FOREVER_MS),)
NOBODY = pa.array([], pa.string())


@dataclass
class Files:
    """What becomes of a table's files."""

    stale: list[DataFile] = field(default_factory=list)
    fresh: list[DataFile] = field(default_factory=list)

    def add(self, other: "Files") -> None:
        """The other's, too."""
        self.stale += other.stale
        self.fresh += other.fresh


@dataclass(frozen=True)
class TargetBuilt:
    """Of one target in one bucket: files, how many entities were put online, whether some are in no table now, and how
    many rows of children were left out because they are of no crowd.
    """

    tiles: Files
    rows: Files
    online: int
    has_lost: bool = False
    uncrowded: int = 0


@dataclass(frozen=True)
class Place:
    """Where a target is stored.

    `is_new`: nothing that is stored counts. `published_ms`: the last boundary that was published, `until_ms`: the last
    that is now.
    """

    target: Target
    tiles: Stored
    rows: Stored | None
    is_new: bool
    published_ms: int | None
    until_ms: int


@dataclass(frozen=True)
class Builder:
    """All that a task needs to build one bucket of an entity, from one source.

    `part`: what was made; None: all there is, and every file is replaced. Only then may the tiles be cut (`cut`)
    finer than the tables, into a multiple of their `buckets`. `now_ms`: the wall clock, which corrections carry.
    `least_viewers`: how many children make a crowd.
    """

    places: tuple[Place, ...]
    part: Part | None
    buckets: int
    cut: int
    online: OnlineTarget
    now_ms: int
    least_viewers: int

    def __call__(self, bucket: int, parts: Sequence[Tiled]) -> dict[Target, TargetBuilt]:
        """Build every target of the bucket."""
        build = self._building(bucket)
        built = {}
        for place in self.places:
            whole = together(place.target, parts, self.least_viewers)
            built[place.target] = replace(build(place, whole.tiles), uncrowded=whole.left_out)
        return built

    def _building(self, bucket: int) -> "Callable[[Place, pa.Table], TargetBuilt]":
        if self.part is None:
            return lambda place, tiled: self._build_whole(place, bucket, tiled)
        part = Part(self.part.ranges_ms, self._ours(self.part.keys, self.part.keys, bucket))
        return lambda place, tiled: _Update(place, part, bucket, self.online, self.now_ms)(tiled)

    def _build_whole(self, place: Place, bucket: int, tiled: pa.Table) -> TargetBuilt:
        target = place.target
        tile_files = Files(fresh=place.tiles.write(tiled))
        if place.rows is None:
            return TargetBuilt(tile_files, Files(), self.online.put(target.group, target.entity, tiled))
        made = _boundaries(target, tiled, -_FOREVER_MS, place.until_ms)
        if not place.is_new:
            stored = place.rows.read(place.rows.files(bucket % self.buckets))
            stored = self._ours(stored, stored[target.entity], bucket)
            is_remade = np.ones(stored.num_rows, dtype=np.bool_)
            made = revise_rows(
                target.group, target.entity, stored, made, is_remade,
                published_ms=place.published_ms, now_ms=self.now_ms, forget=NOBODY,
            ).rows  # fmt: skip
        row_files = Files(fresh=place.rows.write(made))
        return TargetBuilt(tile_files, row_files, self.online.put(target.group, target.entity, made))

    def _ours(self, rows: pa.Table | pa.Array, keys: pa.Array | pa.ChunkedArray, bucket: int) -> pa.Table | pa.Array:
        return rows.filter(pa.array(bucket_of(keys, self.cut) == bucket))


@dataclass(frozen=True)
class _Update:
    """One bucket of one target, of which a part of the tiles was made anew."""

    place: Place
    part: Part
    bucket: int
    online: OnlineTarget
    now_ms: int

    def __call__(self, made: pa.Table) -> TargetBuilt:
        target, entity = self.place.target, self.place.target.entity
        # No tile crosses a midnight, so each is of the part as a whole or not at all.
        made = made.filter(pa.array(self.part.covers(made[entity], milliseconds(made[TILE_START]))))
        stored = self.place.tiles
        files = stored.files(self.bucket)
        stale = self._touched(files)
        revised = revise_tiles(entity, stored.read(stale), made, self.part)
        others = [one for one in files if one not in stale]
        near = list(overlapping(others, self._reach_ms(), _FOREVER_MS))
        tiled = pa.concat_tables([revised.tiles, stored.read(near)])
        if not is_in(revised.entities, self._lately(tiled)).all():  # of some, nothing is left there: look further back
            tiled = pa.concat_tables([revised.tiles, stored.read(others)])
        tile_files = self._written(stored, stale, revised.tiles, has_changed=len(revised.entities) > 0)
        if self.place.rows is not None:
            return self._with_rows(self.place.rows, tile_files, tiled, revised)
        whose = tiled.filter(pa.array(is_in(tiled[entity], revised.entities)))
        online = self.online.put(target.group, entity, whose)
        return TargetBuilt(tile_files, Files(), online, has_lost=online < len(revised.entities))

    def _with_rows(self, stored: Stored, tile_files: Files, tiled: pa.Table, revised: Revised) -> TargetBuilt:
        target, entity = self.place.target, self.place.target.entity
        made = self._made_anew(tiled, revised)
        files = stored.files(self.bucket)
        stale = list(files)
        if not len(self.part.keys):
            first_ms = min([self._published_ms + 1, *(revised.since_ms + 1).tolist()])
            stale = list(overlapping(files, floor_ms(first_ms, WEEK_MS), _FOREVER_MS))
        before = stored.read(stale)
        since_ms = np.append(revised.since_ms, _FOREVER_MS)[codes_in(before[entity], revised.entities)]
        rows = revise_rows(
            target.group, entity, before, made, milliseconds(before[EVENT_TIME]) > since_ms,
            published_ms=self._published_ms, now_ms=self.now_ms, forget=self.part.keys,
        )  # fmt: skip
        row_files = self._written(stored, stale, rows.rows, has_changed=rows.has_changed)
        without = revised.entities.filter(pa.array(~is_in(revised.entities, made[entity].unique())))
        older = pa.concat_tables([rows.rows, stored.read([one for one in files if one not in stale and len(without)])])
        older = older.filter(pa.array(is_in(older[entity], without)))
        online = self.online.put(target.group, entity, pa.concat_tables([made, older]))
        had_some = without.filter(pa.array(is_in(without, before[entity].unique())))
        has_lost = not is_in(had_some, older[entity].unique()).all()
        return TargetBuilt(tile_files, row_files, online, has_lost)

    def _made_anew(self, tiled: pa.Table, revised: Revised) -> pa.Table:
        """New boundaries of everybody, published ones after the first tile that differs, all of the part's keys."""
        target, entity = self.place.target, self.place.target.entity
        is_key = is_in(tiled[entity], self.part.keys)
        of_keys = _boundaries(target, tiled.filter(pa.array(is_key)), -_FOREVER_MS, self.place.until_ms)
        others = tiled.filter(pa.array(~is_key))
        new = _boundaries(target, others, self._published_ms + 1, self.place.until_ms)
        is_late = (revised.since_ms < self._published_ms) & ~is_in(revised.entities, self.part.keys)
        late, since_ms = revised.entities.filter(pa.array(is_late)), revised.since_ms[is_late]
        again = others.filter(pa.array(is_in(others[entity], late)))
        first_ms = int(since_ms.min()) + 1 if len(since_ms) else self._published_ms + 1
        redone = _boundaries(target, again, first_ms, self._published_ms)
        is_after = milliseconds(redone[EVENT_TIME]) > np.append(since_ms, _FOREVER_MS)[codes_in(redone[entity], late)]
        return pa.concat_tables([of_keys, new, redone.filter(pa.array(is_after))])

    @property
    def _published_ms(self) -> int:
        published_ms = self.place.published_ms
        assert published_ms is not None, "a table of rows that was built has published some boundary"
        return published_ms

    def _touched(self, files: Sequence[StoredFile]) -> list[StoredFile]:
        """The files that may hold something of the part."""
        if len(self.part.keys):
            return list(files)
        return [one for one in files if any(list(overlapping([one], *span)) for span in self.part.ranges_ms)]

    @property
    def _first_ms(self) -> int:
        return min((start_ms for start_ms, _ in self.part.ranges_ms), default=_FOREVER_MS)

    def _reach_ms(self) -> int:
        """Since when tiles count for what is made anew."""
        is_valued_since = [self._first_ms] if self.place.rows is None else [self._first_ms, self._published_ms]
        return min(is_valued_since) - reach_back_ms(self.place.target.group)

    def _lately(self, tiled: pa.Table) -> pa.Array:
        """Entities with a tile since the part begins."""
        is_late = milliseconds(tiled[TILE_START]) >= self._first_ms
        return tiled.filter(pa.array(is_late))[self.place.target.entity].unique()

    def _written(self, table: Stored, stale: Sequence[StoredFile], rows: pa.Table, *, has_changed: bool) -> Files:
        if not has_changed:
            return Files()
        entity = self.place.target.entity
        if TILE_START in rows.column_names:
            rows = rows.sort_by([(entity, "ascending"), (TILE_LENGTH, "ascending"), (TILE_START, "ascending")])
        return Files([one.file for one in stale], table.write(rows))


def _boundaries(target: Target, tiled: pa.Table, first_ms: int, last_ms: int) -> pa.Table:
    """The values at every boundary in `[first_ms, last_ms]`, which may begin before anything is known."""
    if tiled.num_rows:
        first_ms = max(first_ms, int(milliseconds(tiled[TILE_START]).min()))
    if not tiled.num_rows or last_ms < first_ms:
        return target.group.row_schema(target.entity).empty_table()
    return backfill_from_tiles(target.group, target.entity, tiled, first_ms, last_ms + 1)
