"""The tiles of entities as they are now, and their values in the online store.

Tiles before `since_ms` are what the batch, or this stream when it was their time, has put into the online store: they
are read from there once for every entity that an event touches. Later ones are made here from the logs, and added up:
tiles of different events merge in any order. Where rows of a log are gone the entity's tiles are made anew from what is
left of it. What is written is always an entity's whole value, so that writing it twice is writing it once.

Of entities that are no people (a platform, a network in a region) there is an event at nearly every instant, and
partitions are never read equally far. So their newest rows wait until what is older has had time to come: the value is
then that of an instant, not of some partitions' instants. They wait for less than the delay at which they count.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from features.columns import flat, milliseconds
from features.declarations import LAST_EVENT, TILE_LENGTH, TILE_START
from features.packing import pack, reachable, unpack
from features.revision import Flags, is_in
from features.source import EVENT_TIME
from features.tiles import merge_tiles, tiles
from features.units import Hashes, hashes, is_among
from features.windows import floor_ms
from pipelines.feature_tables import Target
from pipelines.stream.segments import Places, Segments
from serving.online_store import OnlineStore


@dataclass(frozen=True)
class LogPart:
    """What came of one source's log, for some entities of one kind.

    `changed`: keys that rows were taken from, none before `changed_since_ms`. `forgotten`: keys of people of whom
    nothing older may stay either. `left`: all rows there now are of the one from that day on, and of the other. Rows
    from `until_ms` on are to wait.
    """

    added: pa.Table
    changed: pa.Array
    changed_since_ms: int
    left: pa.Table
    forgotten: pa.Array
    until_ms: int


@dataclass
class TileBook:
    """The tiles of one group for its entities of one kind."""

    target: Target
    since_ms: int
    tiled: Segments = field(init=False)
    _waiting: pa.Table = field(init=False)  # rows of the log
    _loaded: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tiled = Segments(self.target.group.tile_schema(self.target.entity), self._merged)
        self._waiting = self.target.group.source.schema.empty_table()

    @property
    def waits_since_ms(self) -> int | None:
        """Of when the first row is that is in no value yet."""
        return int(milliseconds(self._waiting[EVENT_TIME]).min()) if self._waiting.num_rows else None

    def fill(self, log: pa.Table) -> None:
        """The tiles of a whole log."""
        self._append(self._tiles(log))

    def apply(self, part: LogPart, store: OnlineStore) -> list[tuple[str, bytes]]:
        """Take the changes in; the values of whom they are about, to be written. Who has none left is deleted."""
        group, entity = self.target.group, self.target.entity
        anew_ms = floor_ms(part.changed_since_ms, max(group.states_of_tile))
        is_lost = bool(len(part.changed) or len(part.forgotten))

        def is_anew(log: pa.Table) -> Flags:
            if not is_lost:
                return np.zeros(log.num_rows, dtype=np.bool_)
            is_later = milliseconds(log[EVENT_TIME]) >= anew_ms
            return (is_later & is_in(log[entity], part.changed)) | is_in(log[entity], part.forgotten)

        known = pa.concat_tables([self._waiting, part.added])
        rest, anew = _rows(known, ~is_anew(known)), _rows(part.left, is_anew(part.left))
        (rest, later), (anew, anew_later) = (_cut_at(rows, part.until_ms) for rows in (rest, anew))
        self._waiting = pa.concat_tables([later, anew_later])
        made = self._tiles(rest)
        touched = pa.concat_arrays([part.changed, part.forgotten, *made[entity].chunks]).unique()
        if not len(touched):
            return []
        self._load(touched, part.forgotten, store)
        if is_lost:
            self._begin_anew(part.changed, anew_ms, part.forgotten)
            self._append(self._tiles(anew))
        self._append(made)
        _, read = self.tiled.take(np.unique(hashes(touched)), self._reachable)
        whole = merge_tiles(group, entity, [read])
        if is_lost:
            gone = touched.filter(pa.array(~is_in(touched, flat(whole[entity]).unique())))
            store.delete_many(group.stored_as(entity), gone.to_pylist())
        return list(pack(group, entity, whole))

    def advance(self, since_ms: int) -> None:
        """From now on, what is before `since_ms` is as the store has it; whoever is not active is let go."""
        self.since_ms = since_ms
        self.tiled.keep(lambda _, rows: milliseconds(rows[TILE_START]) >= since_ms)
        self._loaded.clear()

    def _begin_anew(self, changed: pa.Array, anew_ms: int, forgotten: pa.Array) -> None:
        some, all_of = np.unique(hashes(changed)), np.unique(hashes(forgotten))

        def stays(keys: Hashes, rows: pa.Table) -> Flags:
            is_later = milliseconds(rows[TILE_START]) >= anew_ms
            return ~((is_among(keys, some) & is_later) | is_among(keys, all_of))

        self.tiled.keep(stays)

    def _load(self, touched: pa.Array, forgotten: pa.Array, store: OnlineStore) -> None:
        """Read what is older of entities that are touched for the first time."""
        self._loaded.update(hashes(forgotten).tolist())
        keys = hashes(touched).tolist()
        fresh = [name for name, key in zip(touched.to_pylist(), keys, strict=True) if key not in self._loaded]
        if not fresh:
            return
        group, entity = self.target.group, self.target.entity
        stored = store.get_many(group.stored_as(entity), fresh)
        packed = [(name, value) for name, value in zip(fresh, stored, strict=True) if value is not None]
        if packed:
            older = unpack(group, entity, packed)
            self._append(older.filter(pa.array(milliseconds(older[TILE_START]) < self.since_ms)))
        self._loaded.update(keys)

    def _reachable(self, rows: pa.Table, places: Places, owners: Places) -> Places:
        """Tiles that no window can reach any more are not even read: of short windows that is nearly all of a day."""
        told = rows.select([TILE_LENGTH, TILE_START, LAST_EVENT]).take(pa.array(places))
        return places[reachable(self.target.group, told, owners)]

    def _tiles(self, log: pa.Table) -> pa.Table:
        log = _rows(log, milliseconds(log[EVENT_TIME]) >= self.since_ms)
        return tiles(self.target.group, self.target.entity, log)

    def _append(self, tiled: pa.Table) -> None:
        self.tiled.append(hashes(tiled[self.target.entity]), tiled)

    def _merged(self, rows: pa.Table) -> tuple[Hashes, pa.Table]:
        merged = merge_tiles(self.target.group, self.target.entity, [rows])
        return hashes(merged[self.target.entity]), merged


def _cut_at(log: pa.Table, until_ms: int) -> tuple[pa.Table, pa.Table]:
    """The rows before an instant, and the others."""
    is_before = milliseconds(log[EVENT_TIME]) < until_ms
    return _rows(log, is_before), _rows(log, ~is_before)


def _rows(log: pa.Table, wanted: Flags) -> pa.Table:
    """The rows that are wanted; of a small table nearly always all or none, which costs nothing."""
    if wanted.all():
        return log
    return log.filter(pa.array(wanted)) if wanted.any() else log.schema.empty_table()
