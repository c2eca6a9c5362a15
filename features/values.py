"""Exact values at any instant, straight from the log."""

import numpy.typing as npt
import pyarrow as pa

from features.declarations import FeatureGroup
from features.timeline import Timeline


def values_at(
    group: FeatureGroup,
    entity: str,
    log: pa.Table,
    entities: pa.Array | pa.ChunkedArray,
    instants_ms: npt.ArrayLike,
) -> pa.Table:
    """What a service asked for `entities[i]` at `instants_ms[i]` would have answered; one row out per row in.

    Columns: the group's features and `{group}__age_ms`. The log is what the group's source says, in any order;
    events at or after a row's instant do not touch it. Null keys, unknown entities and values past the TTL
    give nulls. To ask the same log several times, keep `Timeline.of_events(group, entity, log)`.

    Raises:
        LogError: a column of the log is missing or has null times; entities and instants differ in number.
        DeclarationError: the group has no such entity.
    """
    return Timeline.of_events(group, entity, log).values_at(entities, instants_ms)
