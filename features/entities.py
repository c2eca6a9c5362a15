"""What features are of, and its key.

A key is one text column, named after the entity, wherever keys are stored, joined, cut into buckets or looked up. An
entity of several columns has a key too: its columns' values with a `/` between them (`akamai/GB`), in which a `/` or a
`%` of a value is written `%2F` or `%25`, so that no two entities share a key. Only who makes the key, a source or the
reader of a left table, knows of the columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat, require_columns
from features.errors import UnknownEntityError
from features.names import nearest


@dataclass(frozen=True)
class Entity:
    """`key` names the key's column, `columns` what it is made of; `is_personal`: it is a person, or leads to one."""

    key: str
    columns: tuple[str, ...]
    is_personal: bool
    description: str


ENTITIES: tuple[Entity, ...] = (
    Entity("user_id", ("user_id",), True, "Account of a household."),
    Entity("profile_id", ("profile_id",), True, "Profile of an account."),
    Entity("session_id", ("session_id",), True, "One run of the app."),
    Entity("content_id", ("content_id",), False, "Title, episode or channel of the catalogue."),
    Entity("channel_id", ("channel_id",), False, "Live channel."),
    Entity("platform", ("platform",), False, "Software platform of the client, such as android_tv."),
    Entity("cdn_region", ("cdn", "region"), False, "Delivery network in a country."),
)


def entity(key: str) -> Entity:
    """The entity of this key; `UnknownEntityError` names the nearest if there is none."""
    known = {one.key: one for one in ENTITIES}
    if key not in known:
        raise UnknownEntityError(
            f"no entity has the key {key!r}; the nearest is {nearest(key, known)}, of {', '.join(known)}"
        )
    return known[key]


def key_of(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """The keys of an entity's columns, [n]; null where one of them is. One column is its own key."""
    parts = [flat(column).cast(pa.string()) for column in columns]
    if len(parts) == 1:
        return parts[0]
    written = [pc.replace_substring(pc.replace_substring(part, "%", "%25"), "/", "%2F") for part in parts]
    return pc.binary_join_element_wise(*written, "/")


def first_of(keys: pa.Array) -> pa.Array:
    """The first column's values in keys that `key_of` made of several, [n]."""
    first = pc.list_element(pc.split_pattern(keys, "/", max_splits=1), 0)
    return pc.replace_substring(pc.replace_substring(first, "%2F", "/"), "%25", "%")


def with_key(table: pa.Table, key: str) -> pa.Table:
    """The table with the key's column, made of the entity's columns where it is not there yet.

    Raises:
        LogError: one of the columns is missing.
        UnknownEntityError: no entity has this key.
    """
    if key in table.column_names:
        return table
    columns = entity(key).columns
    require_columns(table, columns, f"the table of {key}")
    return table.append_column(key, key_of([table[name] for name in columns]))
