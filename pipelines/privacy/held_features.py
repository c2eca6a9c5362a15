"""Features of a person, readable: values as a service would get them beside the tiles that they are made of."""

import json
from base64 import b64encode
from collections.abc import Iterator

import pyarrow as pa
from pyiceberg.table import Table

from features.columns import milliseconds
from features.declarations import LAST_EVENT, FeatureGroup
from features.entities import entity
from features.errors import PackedValueError
from features.groups import GROUPS
from features.packing import unpack_values
from features.tiles import timeline_of_table
from features.windows import Cadence
from pipelines.feature_tables import Built, declared
from pipelines.point_in_time.stored import as_type
from pipelines.privacy.person import Person
from pipelines.privacy.readable import Row, plain, rows_of_json
from serving.online_store import OnlineStore

_PEOPLE = {"profiles": "profile_id", "consents": "user_id", "playback_sessions": "profile_id"}
"""What is online besides features, by whose it is."""


def values_of_tiles(name: str, table: Table, rows: pa.Table, person: Person) -> Iterator[Row]:
    """The values just after the last event of each entity, from its tiles.

    None of a table that holds no tiles of an event group, or that was built by an older declaration of the group,
    which nobody can read as values any more.
    """
    of_tiles = {f"features.{group.stored_as(one)}": (group, one) for group, one in _personal() if _is_tiled(group)}
    if name not in of_tiles:
        return
    group, key = of_tiles[name]
    built = Built.of(table)
    if built is None or built.declared != declared(group):
        return
    schema = group.tile_schema(key)
    tiles = pa.table([_column(rows, one) for one in schema], schema=schema)
    timeline = timeline_of_table(group, key, tiles)
    last = tiles.group_by(key).aggregate([(LAST_EVENT, "max")])
    instants_ms = milliseconds(last[f"{LAST_EVENT}_max"]) + group.delay + 1
    values = timeline.values_at(last[key], instants_ms)
    as_of = pa.array(instants_ms * 1000).cast(pa.timestamp("us", tz="UTC"))
    yield from rows_of_json(pa.table({key: last[key], "as_of": as_of, **_columns(values)}), person)


def online_values(store: OnlineStore, person: Person) -> Iterator[tuple[str, Row]]:
    """What the online store holds of the person: the group, and each key's value as of the store's newest event."""
    (watermark,) = store.get_many("meta", ["watermark_ms"])
    as_of_ms = json.loads(watermark) if watermark is not None else 0
    for group, key in _personal():
        for id_, packed in _held(store, group.stored_as(key), person.ids.get(key, ())):
            yield group.stored_as(key), {key: id_, **_unpacked(group, packed, as_of_ms)}
    for records, key in _PEOPLE.items():
        for id_, text in _held(store, records, person.ids.get(key, ())):
            (row,) = rows_of_json(pa.Table.from_pylist([{key: id_, **json.loads(text)}]), person)
            yield records, row


def _personal() -> Iterator[tuple[FeatureGroup, str]]:
    """Groups by each of their entities that is a person or leads to one."""
    return ((group, key) for group in GROUPS for key in group.entities if entity(key).is_personal)


def _is_tiled(group: FeatureGroup) -> bool:
    return group.cadence is Cadence.EVENT


def _held(store: OnlineStore, group: str, ids: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    return ((id_, value) for id_, value in zip(ids, store.get_many(group, ids), strict=True) if value is not None)


def _unpacked(group: FeatureGroup, packed: bytes, as_of_ms: int) -> Row:
    try:
        (values,) = unpack_values(group, [packed], as_of_ms).to_pylist()
    except PackedValueError:  # of an older declaration, or damaged: held all the same
        return {"packed": {"base64": b64encode(packed).decode()}}
    return {name: plain(value) for name, value in values.items() if value is not None}


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in rows.column_names:
        return pa.chunked_array([pa.nulls(len(rows), field.type)])
    column = rows[field.name]
    return as_type(column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column, field.type)


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))
