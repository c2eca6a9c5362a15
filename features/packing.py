"""One value of the online store: all that is kept of one entity for one group, in one run of bytes.

    head      which declaration, how many bytes, the last event, and from when to when each of the rows holds
    rows      up to 4 lists of the features' values, in MessagePack, one after the other in time
    body      of an event group its tiles (`features/packed_tiles.py`); of an hourly or daily group when its last row
              was published

What is read of tiles changes only where an edge of a window passes one of them (`features/stretches.py`), so a row
holds for minutes to days. The answer at an instant within that time is the row: one copy, and all rows of a batch are
decoded in one call. For any other instant the tiles are read, which give the same to the bit and take far longer. The
row of an hourly or daily group holds from its boundary on. Age and TTL are worked out when it is read; of an entity
whose TTL had passed before anybody could ask there is no row, only the tiles that events still to come are added to.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa

from features.columns import as_declared, encode, flat, milliseconds, require_columns, rows_at, timestamps
from features.declarations import CREATED, LAST_EVENT, TILE_LENGTH, TILE_START, FeatureGroup
from features.errors import PackedValueError
from features.packed_heads import HEAD_BYTES, ROWS, find, head_of, read_heads
from features.packed_tiles import tiles_from_bytes, tiles_to_bytes
from features.plain import arrow_column, python_values
from features.runs import bounds, run_ends, run_of_row, run_starts
from features.source import EVENT_TIME
from features.stretches import NEVER_MS, stretches
from features.tiles import timeline_of_tiles
from features.windows import Cadence, Int64s, valued_at_ms


@dataclass(frozen=True)
class Values:
    """The answers of a group: by feature a list of one value for each key, and the age of each; None for none.

    Past the TTL only the age is left.
    """

    columns: dict[str, list[Any]]
    ages_ms: list[int | None]


def pack(
    group: FeatureGroup, entity: str, rows: pa.Table, valued_from_ms: int | None = None
) -> Iterator[tuple[str, bytes]]:
    """(entity, bytes) for each entity in the rows: tiles of an event group, boundary rows of any other.

    Of tiles, those that no window can reach any more are left out; of boundary rows, all but the last. Rows that
    answer quickly are worked out from just after an entity's last event on, and, where it is later, from what a service
    asked at `valued_from_ms` is given on: say it when much of what is written is old.
    """
    schema = _stored_schema(group)
    require_columns(rows, [entity], f"the table of {group.name} to pack")
    names, owners = encode(rows[entity])
    rows = as_declared(rows, schema, f"the table of {group.name} to pack")
    is_tiled = group.cadence is Cadence.EVENT
    order = np.lexsort((milliseconds(rows[TILE_START if is_tiled else EVENT_TIME]), owners))
    rows, owners = rows_at(rows, order), owners[order]
    kept = reachable(group, rows, owners) if is_tiled else run_ends(owners)
    stored, owners = rows_at(rows, kept).combine_chunks(), owners[kept]
    if is_tiled:
        values = _pack_tiles(group, len(names), owners, stored, valued_from_ms)
    else:
        values = _pack_boundaries(group, stored)
    yield from zip(names.to_pylist(), values, strict=True)


def unpack(group: FeatureGroup, entity: str, packed: Sequence[tuple[str, bytes]]) -> pa.Table:
    """Inverse of `pack`: the tiles, or the last boundary rows, of the entities."""
    schema = group.tile_schema(entity) if group.cadence is Cadence.EVENT else group.row_schema(entity)
    names, values = [name for name, _ in packed], [value for _, value in packed]
    heads = read_heads(group, values)
    if group.cadence is Cadence.EVENT:
        stored, counts = _tiles(group, values, heads)
        owners = pa.array(np.repeat(np.arange(len(packed)), counts))
        stored = stored.append_column(entity, pa.array(names, pa.string()).take(owners))
        return stored.select(schema.names).cast(schema)
    keys = {
        entity: pa.array(names, pa.string()),
        EVENT_TIME: timestamps(heads["bounds_ms"][:, 0]),
        CREATED: timestamps(np.frombuffer(b"".join(_bodies(values, heads)), np.int64)),
        LAST_EVENT: timestamps(heads["last_event_ms"]),
    }
    starts = heads["edges"][:, -1].tolist()
    rows = _decoded(group, [value[HEAD_BYTES:start] for value, start in zip(values, starts, strict=True)])
    return pa.table(keys | _arrow_columns(group, _columns(group, rows)), schema)


def read_values(
    group: FeatureGroup, values: Sequence[bytes | None], asked_at_ms: int, *, as_newest: bool = False
) -> Values:
    """The answers at an instant from packed values (None: unknown entity).

    The row of a later boundary than the instant may know is no answer: None. Of an event group a value may hold events
    that the instant does not know yet (`instant - delay`): where these are in a tile with others, they cannot be told
    from them. So whoever wants what is known by now asks for it `as_newest`: such a value is answered as of the first
    instant that knows all that it holds, which is `newest_asked_ms`. Ages are from the instant that was asked for.

    Raises:
        PackedValueError: bytes of another group, of another declaration of it, or damaged.
    """
    places = [place for place, value in enumerate(values) if value is not None]
    packed = [value for value in values if value is not None]
    found = find(group, packed, asked_at_ms, as_newest=as_newest)
    rows: list[Sequence[Any]] = [(None,) * len(group.features)] * len(values)
    ages_ms: list[int | None] = [None] * len(values)
    for place, age_ms, asked_ms in zip(places, found.ages_ms, found.asked_ms, strict=True):
        ages_ms[place] = None if age_ms is None else age_ms - (asked_ms - asked_at_ms)
    decoded = _decoded(group, [packed[one][start:end] for one, start, end in found.rows])
    for (one, _, _), row in zip(found.rows, decoded, strict=True):
        rows[places[one]] = row
    if found.missed:
        missed_ms = [found.asked_ms[one] for one in found.missed]
        table = _valued_tiles(group, [packed[one] for one in found.missed], missed_ms)
        answers = zip(*(python_values(flat(column)) for column in table.columns), strict=True)
        for one, asked_ms, (*row, age_ms) in zip(found.missed, missed_ms, answers, strict=True):
            rows[places[one]] = row
            ages_ms[places[one]] = None if age_ms is None else age_ms - (asked_ms - asked_at_ms)
    return Values(_columns(group, rows), ages_ms)


def newest_asked_ms(group: FeatureGroup, asked_at_ms: int, age_ms: int | None) -> int:
    """Of which instant an answer `as_newest` is, that was asked for at one and has an age."""
    if age_ms is None or group.cadence is not Cadence.EVENT:
        return asked_at_ms
    return max(asked_at_ms, asked_at_ms - age_ms + group.delay + 1)


def boundary_ms(group: FeatureGroup, value: bytes) -> int:
    """The boundary of the row that an hourly or daily group's packed value holds. Raises PackedValueError."""
    return int(read_heads(group, [value])["bounds_ms"][0, 0])


def unpack_values(group: FeatureGroup, values: Sequence[bytes | None], asked_at_ms: int) -> pa.Table:
    """`read_values` as a table, with the columns of `values_at`."""
    found = read_values(group, values, asked_at_ms)
    return pa.table(_arrow_columns(group, found.columns) | {group.age_column: pa.array(found.ages_ms, pa.int64())})


def _stored_schema(group: FeatureGroup) -> pa.Schema:
    """Columns of what is packed: the entity is the store's key and not said again."""
    entity = group.entities[0]
    schema = group.tile_schema(entity) if group.cadence is Cadence.EVENT else group.row_schema(entity)
    return schema.remove(schema.get_field_index(entity))


def reachable(group: FeatureGroup, rows: pa.Table, owners: Int64s) -> Int64s:
    """Places of the tiles that lie in some window of an instant at or after the last event of whom they are of.

    `rows` needs `tile_ms`, `tile_start` and `last_event_timestamp`; `owners` [n] are ascending.
    """
    firsts = run_starts(owners)
    newest_ms = np.maximum.reduceat(milliseconds(rows[LAST_EVENT]), firsts) if len(firsts) else firsts
    valued_ms = valued_at_ms(newest_ms, group.cadence, group.delay)[run_of_row(firsts, len(owners))]
    lengths_ms = np.asarray(flat(rows[TILE_LENGTH]), dtype=np.int64)
    reach_ms = np.full(len(owners), np.iinfo(np.int64).max)
    for feature in group.features:
        read = lengths_ms == group.tile_ms(feature)
        reach_ms[read] = np.minimum(reach_ms, feature.reach_ms(valued_ms))[read]
    return np.flatnonzero(milliseconds(rows[TILE_START]) >= reach_ms)


def _pack_tiles(
    group: FeatureGroup, size: int, owners: Int64s, tiles: pa.Table, valued_from_ms: int | None
) -> Iterator[bytes]:
    """A value for each of `size` entities from their tiles, of whom the owners say whose they are."""
    if size == 0:
        return
    firsts = bounds(owners, size)
    last_events_ms = np.maximum.reduceat(milliseconds(tiles[LAST_EVENT]), firsts[:-1])
    from_ms, is_fresh = last_events_ms + 1, np.ones(size, dtype=bool)
    if valued_from_ms is not None:
        from_ms = np.maximum(from_ms, valued_at_ms(valued_from_ms, group.cadence, group.delay))
        is_fresh = valued_from_ms - last_events_ms <= group.ttl_ms
    # Of whom the TTL has passed nothing is shown any more: of them there is no row.
    fresh, theirs = np.flatnonzero(is_fresh), np.flatnonzero(is_fresh[owners])
    places = np.arange(len(fresh))
    owners_of_theirs = (np.cumsum(is_fresh) - 1)[owners[theirs]]
    timeline = timeline_of_tiles(group, pa.array(places), owners_of_theirs, rows_at(tiles, theirs))
    bounds_ms = np.full((size, ROWS + 1), NEVER_MS)
    bounds_ms[:, 0] = from_ms
    bounds_ms[fresh] = stretches(timeline, places, from_ms[fresh], ROWS)
    is_valued = (bounds_ms[:, :ROWS] < NEVER_MS) & is_fresh[:, None]
    of_fresh = is_valued[fresh]
    _, _, columns = timeline.read(np.repeat(places, ROWS)[of_fresh.ravel()], bounds_ms[fresh, :ROWS][of_fresh])
    rows = iter(_encoded(columns))
    per_entity = zip(
        is_valued.sum(axis=1).tolist(), bounds_ms.tolist(), last_events_ms.tolist(), tiles_to_bytes(tiles, firsts),
        strict=True,
    )  # fmt: skip
    for count, edges_ms, last_event_ms, body in per_entity:
        held = _distinct(edges_ms, [next(rows) for _ in range(count)])
        yield _value(group, last_event_ms, held, body)


def _distinct(bounds_ms: Sequence[int], rows: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """(from when on, row) of the rows, without those that only repeat the one before, and when the last one ends.

    Without any row it holds nothing from the first bound on.
    """
    held: list[tuple[int, bytes]] = []
    for from_ms, row in zip(bounds_ms, rows, strict=False):
        if not held or held[-1][1] != row:
            held.append((from_ms, row))
    return [*held, (bounds_ms[len(rows)], b"")]


def _pack_boundaries(group: FeatureGroup, stored: pa.Table) -> Iterator[bytes]:
    """A value for each boundary row."""
    rows = _encoded([flat(stored[feature.name]) for feature in group.features])
    instants = (milliseconds(stored[name]).tolist() for name in (EVENT_TIME, CREATED, LAST_EVENT))
    for row, boundary_ms, created_ms, last_event_ms in zip(rows, *instants, strict=True):
        yield _value(group, last_event_ms, [(boundary_ms, row), (NEVER_MS, b"")], np.int64(created_ms).tobytes())


def _value(group: FeatureGroup, last_event_ms: int, held: Sequence[tuple[int, bytes]], body: bytes) -> bytes:
    return b"".join((head_of(group, last_event_ms, held, body), *(row for _, row in held), body))


def _encoded(columns: Sequence[pa.Array]) -> list[bytes]:
    """Each row of the features' columns in MessagePack."""
    pack_one = msgpack.Packer().pack
    return [pack_one(row) for row in zip(*(python_values(column) for column in columns), strict=True)]


def _decoded(group: FeatureGroup, rows: Sequence[bytes]) -> list[list[Any]]:
    """Inverse, in one call for all: they are put together to one array."""
    many = b"".join([b"\xdd", len(rows).to_bytes(4, "big"), *rows])
    try:
        found: list[list[Any]] = msgpack.unpackb(many)
    except (ValueError, msgpack.UnpackException) as error:
        raise PackedValueError(f"a packed value of {group.name} is damaged: {error}") from None
    if any(len(row) != len(group.features) for row in found):
        raise PackedValueError(f"a packed value of {group.name} is damaged: a row has not {len(group.features)} values")
    return found


def _columns(group: FeatureGroup, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """By feature, from rows of all features."""
    columns = map(list, zip(*rows, strict=True)) if rows else ([] for _ in group.features)
    return {feature.name: column for feature, column in zip(group.features, columns, strict=True)}


def _arrow_columns(group: FeatureGroup, columns: Mapping[str, Sequence[Any]]) -> dict[str, pa.Array]:
    return {feature.name: arrow_column(columns[feature.name], feature.arrow_type) for feature in group.features}


def _bodies(values: Sequence[bytes], heads: Any) -> list[bytes]:
    return [value[start:] for value, start in zip(values, heads["edges"][:, -1].tolist(), strict=True)]


def _tiles(group: FeatureGroup, values: Sequence[bytes], heads: Any) -> tuple[pa.Table, list[int]]:
    """All tiles of packed values, and how many each has."""
    try:
        return tiles_from_bytes(_stored_schema(group), _bodies(values, heads))
    except ValueError as error:
        raise PackedValueError(f"a packed value of {group.name} is damaged: {error}") from None


def _valued_tiles(group: FeatureGroup, values: Sequence[bytes], asked_ms: Sequence[int]) -> pa.Table:
    """`values_at` from the tiles of packed values."""
    tiles, counts = _tiles(group, values, read_heads(group, values))
    places = np.arange(len(values))
    timeline = timeline_of_tiles(group, pa.array(places), np.repeat(places, counts), tiles)
    return timeline.values_of(places, np.array(asked_ms, dtype=np.int64))
