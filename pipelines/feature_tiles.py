"""What is kept of the logs to build features from: tiles, made where the log is, before anything is sent on.

A title that everybody watches, or a delivery network that serves a country, has a large share of all events; its
tiles are a few for each hour. So what a task brings together of one entity grows with the time it is known for, not
with how many watch. Tiles merge to the same whatever part of the viewers each was made of (`features.tiles`).

Children count in crowds only, and which of them make a crowd is known where all viewers of an hour have come together:
their rows are sent as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from features.crowds import CHILD, CHILD_KNOWN, with_crowds, without_children
from features.source import Source
from features.tiles import merge_tiles, tiles
from features.timeline import log_schema
from pipelines.feature_logs import Gathered, cut_by_entity, with_encoded_texts
from pipelines.feature_tables import Target


@dataclass(frozen=True)
class Tiled:
    """Of some viewers: tiles by the target's name, and the rows of a log that are children's (None: there are none)."""

    tiles: Mapping[str, pa.Table]
    children: pa.Table | None


@dataclass(frozen=True)
class KeepTiles:
    """Makes the tiles of those targets that are made of a source's log."""

    targets: tuple[Target, ...]

    def __call__(self, source: Source, log: pa.Table) -> Tiled:
        """Of a log that may say which rows are a child's."""
        grown_up = without_children(log)
        made = {
            one.name: with_encoded_texts(tiles(one.group, one.entity, grown_up))
            for one in self.targets
            if one.group.source.name == source.name
        }
        has_children = CHILD in log.column_names and log[CHILD].null_count < log.num_rows
        return Tiled(made, with_encoded_texts(log.filter(log[CHILD].is_valid())) if has_children else None)


@dataclass(frozen=True)
class CutTiles:
    """What is kept of one source, cut by the bucket of an entity, for targets of both."""

    targets: tuple[Target, ...]
    buckets: int

    def __call__(self, gathered: Gathered[Tiled]) -> list[Tiled]:
        """One a bucket."""
        group, entity = self.targets[0].group, self.targets[0].entity
        kept = gathered.of(group.source.name)
        cut = {one.name: cut_by_entity(kept.tiles[one.name], entity, self.buckets) for one in self.targets}
        children: Sequence[pa.Table | None] = [None] * self.buckets
        if kept.children is not None:
            columns = [*log_schema([one.group for one in self.targets], entity).names, CHILD, CHILD_KNOWN]
            children = cut_by_entity(kept.children.select(columns), entity, self.buckets)
        return [
            Tiled({name: parts[bucket] for name, parts in cut.items()}, children[bucket])
            for bucket in range(self.buckets)
        ]


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
