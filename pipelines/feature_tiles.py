"""What is kept of the logs to build features from: tiles, made where the log is, before anything is sent on.

A title that everybody watches, or a delivery network that serves a country, has a large share of all events; its
tiles are a few for each hour. So what a task brings together of one entity grows with the time it is known for, not
with how many watch. Tiles merge to the same whatever part of the viewers each was made of (`features.tiles`).

Children count in crowds only, and which of them make a crowd is known where all viewers of an hour have come together:
their rows are sent as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import pyarrow as pa

from features.crowds import CHILD, CHILD_KNOWN, with_crowds, without_children
from features.entities import entity as entity_of
from features.source import Source
from features.tiles import merge_tiles, tiles
from features.timeline import log_schema
from pipelines.feature_logs import cut_by_entity, with_encoded_texts
from pipelines.feature_tables import Target
from pipelines.packed import unpacked

MERGED_AT_ONCE = 4
"""Pieces that are merged with what there is already: each comes to less than it was."""


@dataclass(frozen=True)
class Tiled:
    """Of some viewers: tiles by the target's name, and the rows of a log that are children's (None: there are none)."""

    tiles: Mapping[str, pa.Table]
    children: pa.Table | None


@dataclass(frozen=True)
class KeepTiles:
    """Makes the tiles of those targets that are made of a source's log; what is kept of each entity is a piece."""

    targets: tuple[Target, ...]

    def names(self, source: Source) -> Sequence[str]:
        """The entities that the source's targets are of."""
        return list(dict.fromkeys(one.entity for one in self._of(source)))

    def __call__(self, source: Source, log: pa.Table) -> Sequence[Tiled]:
        """Of a log that may say which rows are a child's."""
        grown_up = without_children(log)
        has_children = CHILD in log.column_names and log[CHILD].null_count < log.num_rows
        childrens = log.filter(log[CHILD].is_valid()) if has_children else None
        kept = []
        for entity in self.names(source):
            ours = [one for one in self._of(source) if one.entity == entity]
            made = {one.name: with_encoded_texts(tiles(one.group, entity, grown_up)) for one in ours}
            columns = [*log_schema([one.group for one in ours], entity).names, CHILD, CHILD_KNOWN]
            kept.append(Tiled(made, None if childrens is None else with_encoded_texts(childrens.select(columns))))
        return kept

    def _of(self, source: Source) -> list[Target]:
        return [one for one in self.targets if one.group.source.name == source.name]


@dataclass(frozen=True)
class JoinTiles:
    """What is kept of an entity in several pieces, as one.

    A viewer's tiles are in one piece. Of what many watch every piece has tiles, which merge to few.
    """

    targets: tuple[Target, ...]

    def __call__(self, pieces: Sequence[bytes]) -> Tiled:
        """All of it. What merges is merged few pieces at a time, so that not all of them are there at once."""
        at_once = len(pieces) if entity_of(self.targets[0].entity).is_personal else MERGED_AT_ONCE
        whole: Tiled = unpacked(pieces[0])
        for first in range(1, len(pieces), at_once):
            whole = self._with([whole, *map(unpacked, pieces[first : first + at_once])])
        return whole

    def _with(self, kept: Sequence[Tiled]) -> Tiled:
        joined = {one.name: self._joined(one, [part.tiles[one.name] for part in kept]) for one in self.targets}
        children = [part.children for part in kept if part.children is not None]
        return Tiled(joined, pa.concat_tables(children).unify_dictionaries() if children else None)

    def _joined(self, target: Target, found: Sequence[pa.Table]) -> pa.Table:
        if entity_of(target.entity).is_personal:
            return pa.concat_tables(found).unify_dictionaries()
        return with_encoded_texts(merge_tiles(target.group, target.entity, found))


@dataclass(frozen=True)
class CutTiles:
    """What is kept of an entity, cut by the bucket of its key."""

    entity: str
    buckets: int

    def __call__(self, tiled: Tiled) -> Iterator[Tiled]:
        """One a bucket."""
        names = tuple(tiled.tiles)
        cut = [cut_by_entity(one, self.entity, self.buckets) for one in tiled.tiles.values()]
        children: Iterator[pa.Table | None] = repeat(None, self.buckets)
        if tiled.children is not None:
            children = cut_by_entity(tiled.children, self.entity, self.buckets)
        for theirs, *tables in zip(children, *cut, strict=True):
            yield Tiled(dict(zip(names, tables, strict=True)), theirs)


@dataclass(frozen=True)
class Whole:
    """All viewers' tiles of one bucket of an entity; `left_out`: rows of children that do not count in them."""

    tiles: pa.Table
    left_out: int


def together(target: Target, parts: Sequence[Tiled], least_viewers: int) -> Whole:
    """One bucket's tiles, from those of some viewers each; children by the crowd, where values end with the hour."""
    found = [part.tiles[target.name] for part in parts]
    children = [part.children for part in parts if part.children is not None]
    if not children:
        return Whole(merge_tiles(target.group, target.entity, found), 0)
    theirs = pa.concat_tables(children)
    if not target.has_boundaries:
        return Whole(merge_tiles(target.group, target.entity, found), theirs.num_rows)
    counted = with_crowds(theirs, target.entity, least_viewers)
    found.append(tiles(target.group, target.entity, counted))
    return Whole(merge_tiles(target.group, target.entity, found), theirs.num_rows - counted.num_rows)
