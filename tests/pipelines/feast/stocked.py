"""An online store full of random values of every group, and what each of them is, straight from the log."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from feast import FeatureStore

from features.backfill import backfill
from features.entities import entity as entity_of
from features.groups import GROUPS
from features.packing import pack
from features.services import View, views_of
from features.tiles import tiles
from features.values import values_at
from features.windows import DAY_MS, HOUR_MS, Cadence
from pipelines.feast.repository import feast_objects, write_repository
from serving.online_store import open_online_store
from tests.features.random_log import FIRST_MS, random_log

ASKED_MS = FIRST_MS + 48 * DAY_MS + 20 * HOUR_MS  # on the last of the busy days
VIEWS = views_of(GROUPS)


def log_of(view: View, rows: int, keys: int) -> pa.Table:
    """Random events; networks and countries have two parts, as theirs have."""
    log = random_log(np.random.default_rng(20), view.group.source, view.group.entities, rows, keys)
    if view.entity == "cdn_region":
        named = pc.replace_substring(log["cdn_region"], "cdn_region-", "cdn/R")
        log = log.set_column(log.schema.get_field_index("cdn_region"), "cdn_region", named)
    return log


@dataclass(frozen=True)
class Stock:
    """By view: what is stored of it, and the key, features and age of everybody in its log, straight from the log."""

    packed: dict[str, list[tuple[str, bytes]]]
    known: dict[str, pa.Table]

    @classmethod
    def of(cls, views: Sequence[View], rows: int = 1500, keys: int = 8) -> "Stock":
        """Random values as of `ASKED_MS`."""
        packed, known = {}, {}
        for view in views:
            group, log = view.group, log_of(view, rows, keys)
            if group.cadence is Cadence.EVENT:
                is_known = pc.less(log["event_timestamp"].cast(pa.int64()), ASKED_MS - group.delay)
                stored = tiles(group, view.entity, log.filter(is_known))
            else:
                stored = backfill(group, view.entity, log, ASKED_MS - 2 * DAY_MS, ASKED_MS)
            packed[view.name] = list(pack(group, view.entity, stored, ASKED_MS))
            names = log[view.entity].drop_null().unique().sort()
            values = values_at(group, view.entity, log, names, np.full(len(names), ASKED_MS))
            known[view.name] = values.append_column(view.entity, names)
        return cls(packed, known)

    def put(self, url: str) -> None:
        """Fill the store at `url`."""
        with open_online_store(url) as store:
            for view, rows in self.packed.items():
                store.put_many(view, rows)
            store.put_many("meta", [("watermark_ms", json.dumps(ASKED_MS).encode())])


def reels(folder: Path, url: str) -> FeatureStore:
    """Feast on Reel's online store: the repository that `reel features feast` writes, applied."""
    settings = folder / "reel.yaml"
    chosen = {"work_dir": str(folder), "online_store": {"url": url}, "serving": {"as_of": "watermark"}}
    settings.write_text(yaml.safe_dump(chosen))
    write_repository(folder, settings)
    return _applied(folder)


def feasts(folder: Path, known: dict[str, pa.Table], online_store: dict[str, str]) -> FeatureStore:
    """Feast on a store of its own, with the same views and values; what is past its TTL is not there at all."""
    (folder / "feature_store.yaml").write_text(
        yaml.safe_dump(
            {
                "project": "reference",
                "provider": "local",
                "registry": str(folder / "registry.db"),
                "online_store": online_store,
                "entity_key_serialization_version": 3,
            }
        )
    )
    store = _applied(folder)
    for view in VIEWS:
        if view.name in known:
            frame = _frame(view, known[view.name])
            if len(frame):
                store.write_to_online_store(view.name, frame)
    return store


def _applied(folder: Path) -> FeatureStore:
    store = FeatureStore(str(folder))
    store.apply(feast_objects())
    return store


def _frame(view: View, values: pa.Table) -> pd.DataFrame:
    age = values[view.group.age_column]
    fresh = values.filter(pc.less_equal(pc.fill_null(age, view.group.ttl_ms + 1), view.group.ttl_ms))
    rows = fresh.to_pylist(maps_as_pydicts="strict")
    at = [pd.Timestamp(ASKED_MS - row.pop(view.group.age_column), unit="ms", tz="UTC") for row in rows]
    columns = entity_of(view.entity).columns
    parts = [row.pop(view.entity).split("/") if len(columns) > 1 else [row.pop(view.entity)] for row in rows]
    for row in rows:  # a column of dictionaries would become one of structs, with every key in each
        row.update((name, json.dumps(value)) for name, value in row.items() if isinstance(value, dict))
    frame = pd.DataFrame(rows, columns=view.group.feature_schema().names, dtype=object)
    keys = {column: [part[place] for part in parts] for place, column in enumerate(columns)}
    made = [one + timedelta(seconds=1) for one in at]
    return frame.assign(**keys, event_timestamp=at, created_timestamp=made)
