"""A part of what is stored, made anew: what of it has really changed, and what becomes of rows that were published.

tiles            those of a part (some days, some entities) are replaced; they are never added up, so that doing it
                 twice, or once more after a failure, gives the same
boundary rows    published as they were while their values are the same. Where late events changed them, the row
                 that was published stays, and a correction created now stands beside it: whoever asks about an
                 instant before that still gets what a service had then (design, section 3)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat, milliseconds, timestamps
from features.declarations import CREATED, TILE_LENGTH, TILE_START, FeatureGroup
from features.runs import run_of_row
from features.source import EVENT_TIME
from features.windows import Int64s

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """What is made anew: `[start, end)` of all entities, and all of the entities of some `keys`."""

    ranges_ms: tuple[tuple[int, int], ...]
    keys: pa.Array

    def covers(self, entities: pa.Array | pa.ChunkedArray, times_ms: Int64s) -> Flags:
        """Which rows it holds, by their entity and time; [n]."""
        covered = is_in(entities, self.keys)
        for start_ms, end_ms in self.ranges_ms:
            covered |= (times_ms >= start_ms) & (times_ms < end_ms)
        return covered


@dataclass(frozen=True)
class Revised:
    """Tiles after a part was made anew; which `entities` have others than before, and since when (`since_ms`), [k]."""

    tiles: pa.Table
    entities: pa.Array
    since_ms: Int64s


def revise_tiles(entity: str, stored: pa.Table, made: pa.Table, part: Part) -> Revised:
    """`stored` with `made` in the place of all tiles of the part; both have the tile schema of one group."""
    covered = part.covers(stored[entity], milliseconds(stored[TILE_START]))
    before = stored.filter(pa.array(covered))
    old, new = _paired(before, made, [entity, TILE_LENGTH, TILE_START])
    is_same = np.zeros(len(old), dtype=np.bool_)
    both = np.flatnonzero((old >= 0) & (new >= 0))
    is_same[both] = _same(before, old[both], made, new[both])
    gone, come = old[~is_same & (old >= 0)], new[~is_same & (new >= 0)]
    keys = [entity, TILE_START]
    changed = pa.concat_tables([before.select(keys).take(pa.array(gone)), made.select(keys).take(pa.array(come))])
    since = changed.group_by(entity).aggregate([(TILE_START, "min")])
    tiles = pa.concat_tables([stored.filter(pa.array(~covered)), made])
    return Revised(tiles, flat(since[entity]), milliseconds(since[f"{TILE_START}_min"]))


@dataclass(frozen=True)
class RevisedRows:
    """Boundary rows after some were made anew, in (entity, boundary, created) order; whether any is another now."""

    rows: pa.Table
    has_changed: bool


def revise_rows(
    group: FeatureGroup,
    entity: str,
    stored: pa.Table,
    made: pa.Table,
    is_remade: Flags,
    *,
    published_ms: int | None,
    now_ms: int,
    forget: pa.Array,
) -> RevisedRows:
    """`stored` with the rows that were `made` anew, all of the row schema of one group.

    `is_remade` [rows of stored]: of which boundaries of which entities `made` holds all rows there now are, one each.
    Boundaries up to `published_ms` were published. Entities in `forget` are as if nothing of them ever had been.
    """
    forgotten = is_in(stored[entity], forget)
    kept, before = stored.filter(pa.array(~is_remade & ~forgotten)), stored.filter(pa.array(is_remade & ~forgotten))
    before = _in_order(before, entity)
    firsts = _first_of_key(before, entity)
    latest = np.append(firsts[1:], before.num_rows) - 1 if len(firsts) else firsts
    old, new = _paired(before.take(pa.array(latest)), made, [entity, EVENT_TIME])
    both = (old >= 0) & (new >= 0)
    is_same = np.zeros(len(old), dtype=np.bool_)
    values = made.schema.remove(made.schema.get_field_index(CREATED)).names
    is_same[both] = _same(before.select(values), latest[old[both]], made.select(values), new[both])
    versions_kept = np.zeros(len(firsts), dtype=np.bool_)
    versions_kept[old[both]] = True
    was_there = before.filter(pa.array(versions_kept[run_of_row(firsts, before.num_rows)]))
    come = np.sort(new[~is_same & (new >= 0)])
    rows = made.take(pa.array(come))
    is_corrected = np.zeros(made.num_rows, dtype=np.bool_)
    is_corrected[new[both]] = True
    is_corrected = is_corrected[come]
    if published_ms is not None:
        is_corrected |= milliseconds(rows[EVENT_TIME]) <= published_ms
    is_corrected &= ~is_in(rows[entity], forget)
    created_ms = np.where(is_corrected, now_ms, milliseconds(rows[CREATED]))
    rows = rows.set_column(rows.schema.get_field_index(CREATED), made.schema.field(CREATED), timestamps(created_ms))
    has_changed = rows.num_rows > 0 or kept.num_rows + was_there.num_rows < stored.num_rows
    return RevisedRows(_in_order(pa.concat_tables([kept, was_there, rows]), entity), has_changed)


def differences(key: str, old: pa.Table, new: pa.Table) -> tuple[Int64s, Int64s]:
    """(places in `old` of rows that are gone, places in `new` of rows that have come); one that changed is in both.

    No `key` is twice in one of the tables, which have the same columns.
    """
    was, now = _paired(old, new, [key])
    both = np.flatnonzero((was >= 0) & (now >= 0))
    is_same = np.zeros(len(was), dtype=np.bool_)
    is_same[both] = _same(old, was[both], new, now[both])
    return was[~is_same & (was >= 0)], now[~is_same & (now >= 0)]


def is_in(values: pa.Array | pa.ChunkedArray, wanted: pa.Array) -> Flags:
    """Which texts are among the wanted; null is not."""
    return np.asarray(pc.is_in(flat(values), value_set=wanted, skip_nulls=True), dtype=np.bool_)


def _in_order(rows: pa.Table, entity: str) -> pa.Table:
    return rows.sort_by([(entity, "ascending"), (EVENT_TIME, "ascending"), (CREATED, "ascending")])


def _first_of_key(rows: pa.Table, entity: str) -> Int64s:
    """The first of the rows of each entity and boundary, of sorted rows."""
    if rows.num_rows == 0:
        return np.empty(0, dtype=np.int64)
    names, times_ms = flat(rows[entity]), milliseconds(rows[EVENT_TIME])
    is_other = np.asarray(pc.not_equal(names[1:], names[:-1]), dtype=np.bool_) | (times_ms[1:] != times_ms[:-1])
    return np.flatnonzero(np.append(True, is_other))


def _paired(old: pa.Table, new: pa.Table, keys: Sequence[str]) -> tuple[Int64s, Int64s]:
    """(place in `old`, place in `new`) of every key in either, -1 where it is not; no key is twice in one of them."""
    left, right = (
        pl.DataFrame(table.select(list(keys))).with_columns(pl.Series(name, np.arange(table.num_rows)))
        for table, name in ((old, "_old"), (new, "_new"))
    )
    pairs = left.join(right, on=list(keys), how="full").select(pl.col("_old", "_new").fill_null(-1))
    return pairs["_old"].to_numpy().astype(np.int64), pairs["_new"].to_numpy().astype(np.int64)


def _same(old: pa.Table, old_places: Int64s, new: pa.Table, new_places: Int64s) -> Flags:
    """Which rows are equal in all columns, bit for bit; [pairs]."""
    same = np.ones(len(old_places), dtype=np.bool_)
    for name in new.column_names:
        left, right = flat(old[name].take(pa.array(old_places))), flat(new[name].take(pa.array(new_places)))
        same &= _equal(left, right)
    return same


def _equal(left: pa.Array, right: pa.Array) -> Flags:
    """Which values are equal, null to null; lists and maps by their elements."""
    is_left, is_right = (np.asarray(one.is_valid(), dtype=np.bool_) for one in (left, right))
    if pa.types.is_struct(left.type):
        parts = [_equal(one, other) for one, other in zip(left.flatten(), right.flatten(), strict=True)]
        return _all([is_left == is_right, *parts])
    if not (pa.types.is_list(left.type) or pa.types.is_map(left.type)):
        return np.asarray(pc.fill_null(pc.equal(left, right), False), dtype=np.bool_) | ~(is_left | is_right)
    sizes, others = (_lengths(one) for one in (left, right))
    same: Flags = (is_left == is_right) & (sizes == others)
    alike = np.flatnonzero(same & is_left)
    elements = [_elements(one.take(pa.array(alike))) for one in (left, right)]
    differs = ~_all([_equal(*pair) for pair in zip(*elements, strict=True)])
    row = np.repeat(alike, sizes[alike])
    same[row[differs]] = False
    return same


def _all(parts: Sequence[Flags]) -> Flags:
    """Which rows are true in all parts."""
    every: Flags = np.logical_and.reduce(parts)
    return every


def _lengths(lists: pa.Array) -> Int64s:
    """Of each list or map; 0 for null."""
    offsets = np.asarray(lists.offsets, dtype=np.int64)
    return np.where(np.asarray(lists.is_valid()), np.diff(offsets), 0)


def _elements(lists: pa.Array) -> list[pa.Array]:
    """What is in the lists or maps, one after the other: one array of a list's, two of a map's."""
    start, end = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    if pa.types.is_map(lists.type):
        return [lists.keys[start:end], lists.items[start:end]]
    return [lists.values[start:end]]
