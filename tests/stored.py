"""What an online store holds of a feature group, in full: to compare what two ways of filling it came to."""

from typing import Any

from features.packing import unpack, unpack_values
from pipelines.feature_tables import Target
from pipelines.settings import Settings
from serving.online_store import open_online_store


def stored(settings: Settings, target: Target) -> tuple[dict[str, bytes | None], int]:
    """The packed values of a target by key, and the store's watermark."""
    group = target.group.stored_as(target.entity)
    with open_online_store(settings.online_store_url, readonly=True) as store:
        keys = sorted(store.keys(group))
        (watermark,) = store.get_many("meta", ["watermark_ms"])
        assert watermark is not None, "the store has been filled"
        return dict(zip(keys, store.get_many(group, keys), strict=True)), int(watermark)


def served(settings: Settings, target: Target, at_ms: int) -> dict[str, dict[str, Any]]:
    """What is answered for each key, as of an instant."""
    packed, _ = stored(settings, target)
    table = unpack_values(target.group, list(packed.values()), at_ms)
    return dict(zip(packed, table.to_pylist(), strict=True))


def tiles_of(settings: Settings, target: Target) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Every tile that the values are made of, by key and time."""
    packed, _ = stored(settings, target)
    rows = unpack(target.group, target.entity, list(packed.items())).to_pylist()
    return {(row[target.entity], row["tile_ms"], row["tile_start"]): row for row in rows}
