"""One value of the online store: all that is kept of one entity for one group, in one run of bytes.

Layout: 4 bytes `REEL`, 1 byte format version, 8 bytes fingerprint of the group's declaration, then one Arrow IPC
record batch without its schema, which the declaration gives. Event groups keep their tiles (the value slides on
after the last write), hourly and daily groups the row of their last boundary.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from features.columns import as_declared, encode, flat, milliseconds, require_columns
from features.declarations import LAST_EVENT, TILE_LENGTH, TILE_START, FeatureGroup
from features.errors import PackedValueError
from features.runs import bounds, run_ends, run_of_row, run_starts
from features.source import EVENT_TIME
from features.tiles import timeline_of_tiles
from features.timeline import answers
from features.windows import Cadence, Int64s, valued_at_ms

_MAGIC = b"REEL\x01"
_HEADER_BYTES = len(_MAGIC) + 8


def pack(group: FeatureGroup, entity: str, rows: pa.Table) -> Iterator[tuple[str, bytes]]:
    """(entity, bytes) for each entity in the rows: tiles of an event group, boundary rows of any other.

    Of tiles, those that no window can reach any more are left out; of boundary rows, all but the last.
    """
    schema = _stored_schema(group)
    require_columns(rows, [entity], f"the table of {group.name} to pack")
    names, owners = encode(rows[entity])
    rows = as_declared(rows, schema, f"the table of {group.name} to pack")
    is_tiled = group.cadence is Cadence.EVENT
    order = np.lexsort((milliseconds(rows[TILE_START if is_tiled else EVENT_TIME]), owners))
    rows, owners = rows.take(pa.array(order)), owners[order]
    kept = _reachable(group, rows, owners) if is_tiled else run_ends(owners)
    stored = rows.take(pa.array(kept)).combine_chunks()
    edges = bounds(owners[kept], len(names)).tolist()
    for name, start, end in zip(names.to_pylist(), edges, edges[1:], strict=False):
        batch = stored.slice(start, end - start).to_batches()[0]
        yield name, _MAGIC + group.fingerprint + batch.serialize().to_pybytes()


def unpack(group: FeatureGroup, entity: str, packed: Sequence[tuple[str, bytes]]) -> pa.Table:
    """Inverse of `pack`: the tiles, or the last boundary rows, of the entities."""
    schema = group.tile_schema(entity) if group.cadence is Cadence.EVENT else group.row_schema(entity)
    stored, counts = _read(group, [value for _, value in packed])
    names = pa.array([name for name, _ in packed], pa.string())
    owners = pa.array(np.repeat(np.arange(len(packed)), counts))
    return stored.append_column(entity, names.take(owners)).select(schema.names).cast(schema)


def unpack_values(group: FeatureGroup, values: Sequence[bytes | None], asked_at_ms: int) -> pa.Table:
    """The answer at an instant from packed values, one row each (None: unknown entity, nulls).

    Columns as `values_at`. The row of a later boundary than the instant may know is no answer: null.

    Raises:
        PackedValueError: bytes of another group, of another declaration of it, or damaged.
    """
    stored, counts = _read(group, [value for value in values if value is not None])
    present = np.array([place for place, value in enumerate(values) if value is not None], dtype=np.int64)
    owners = np.repeat(present, counts)
    asked_ms = np.full(len(values), asked_at_ms, dtype=np.int64)
    if group.cadence is Cadence.EVENT:
        places = np.arange(len(values))
        return timeline_of_tiles(group, pa.array(places), owners, stored).values_of(places, asked_ms)
    known = np.flatnonzero(milliseconds(stored[EVENT_TIME]) <= valued_at_ms(asked_at_ms, group.cadence, group.delay))
    place = np.full(len(values), -1, dtype=np.int64)
    place[owners[known]] = known
    columns = [flat(stored[feature.name]) for feature in group.features]
    return answers(group, place, asked_ms, milliseconds(stored[LAST_EVENT]), columns)


def _stored_schema(group: FeatureGroup) -> pa.Schema:
    """Columns of a packed value: the entity is the store's key and not said again."""
    entity = group.entities[0]
    schema = group.tile_schema(entity) if group.cadence is Cadence.EVENT else group.row_schema(entity)
    return schema.remove(schema.get_field_index(entity))


def _reachable(group: FeatureGroup, rows: pa.Table, owners: Int64s) -> Int64s:
    """Tiles that lie in some window of an instant at or after their entity's last event."""
    firsts = run_starts(owners)
    newest_ms = np.maximum.reduceat(milliseconds(rows[LAST_EVENT]), firsts) if len(firsts) else firsts
    valued_ms = valued_at_ms(newest_ms, group.cadence, group.delay)[run_of_row(firsts, len(owners))]
    lengths_ms = np.asarray(flat(rows[TILE_LENGTH]), dtype=np.int64)
    reach_ms = np.full(len(owners), np.iinfo(np.int64).max)
    for feature in group.features:
        read = lengths_ms == group.tile_ms(feature)
        reach_ms[read] = np.minimum(reach_ms, feature.reach_ms(valued_ms))[read]
    return np.flatnonzero(milliseconds(rows[TILE_START]) >= reach_ms)


def _read(group: FeatureGroup, values: Sequence[bytes]) -> tuple[pa.Table, list[int]]:
    """All rows of the packed values, and how many each has."""
    schema = _stored_schema(group)
    batches = [_batch(group, schema, value) for value in values]
    return pa.Table.from_batches(batches, schema).combine_chunks(), [batch.num_rows for batch in batches]


def _batch(group: FeatureGroup, schema: pa.Schema, value: bytes) -> pa.RecordBatch:
    if value[: len(_MAGIC)] != _MAGIC or len(value) < _HEADER_BYTES:
        raise PackedValueError(f"{len(value):,} bytes beginning {value[:8]!r} are no packed value of {group.name}")
    fingerprint = value[len(_MAGIC) : _HEADER_BYTES]
    if fingerprint != group.fingerprint:
        raise PackedValueError(
            f"a packed value has declaration {fingerprint.hex()}, and {group.name} is {group.fingerprint.hex()}: "
            "it is of another group or an older declaration; write the group to the online store again"
        )
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(value)[_HEADER_BYTES:], schema)
        batch.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise PackedValueError(f"a packed value of {group.name} is damaged: {error}") from None
    return batch
