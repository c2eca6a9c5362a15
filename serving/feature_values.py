"""From what the online store holds of a feature group to the values an answer shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from features.declarations import FeatureGroup
from features.errors import FeatureError
from features.packing import Values, read_values
from serving.errors import StoreUnavailableError


@dataclass(frozen=True)
class Valued:
    """The features of one key at an instant; age_ms is None if nothing is known of the key."""

    values: dict[str, Any]
    age_ms: int | None


def columns(group: FeatureGroup, packed: Sequence[bytes | None], at_ms: int, *, as_newest: bool = False) -> Values:
    """The features of the packed values at `at_ms`, by column; None where there is none.

    `as_newest`: with all that a value holds, also what the instant does not know yet (`features.packing.read_values`).

    Raises StoreUnavailableError for bytes that this version of the group cannot read.
    """
    try:
        return read_values(group, packed, at_ms, as_newest=as_newest)
    except FeatureError as error:
        raise StoreUnavailableError(f"the online store's {group.name} cannot be read: {error}") from None


def value(group: FeatureGroup, packed: Sequence[bytes | None], at_ms: int) -> list[Valued]:
    """The features of each packed value at `at_ms`; nulls for None.

    Raises StoreUnavailableError for bytes that this version of the group cannot read.
    """
    found = columns(group, packed, at_ms)
    rows = zip(*found.columns.values(), strict=True)
    return [
        Valued(dict(zip(found.columns, row, strict=True)), age_ms)
        for row, age_ms in zip(rows, found.ages_ms, strict=True)
    ]


def iso_instant(at_ms: int | None) -> datetime | None:
    """An instant as answers show it."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
