"""Feature tables written by hand, without the road before them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.backfill import backfill
from features.declarations import FeatureGroup
from features.tiles import tiles
from features.windows import Cadence
from pipelines.feature_tables import Target
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import live_files
from pipelines.settings import LakehouseSettings, Settings
from tests.features.random_log import DAY_MS, random_log

TIME = pa.timestamp("ms", tz="UTC")
FIRST_DAY = 20_454  # 1 January 2026
BUCKETS = 3


@dataclass
class World:
    """A lakehouse of feature tables."""

    folder: Path
    settings: Settings = field(init=False)
    lakehouse: Lakehouse = field(init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(work_dir=self.folder, lakehouse=LakehouseSettings(buckets=BUCKETS))
        self.lakehouse = Lakehouse.open(self.settings)

    def store(self, group: FeatureGroup, entity: str, rows: pa.Table, fingerprint: str | None = None) -> None:
        """Put rows, or tiles, in the place of what the group's table holds."""
        table = self.lakehouse.table(Target(group, entity).spec(BUCKETS))
        record = {"fingerprint": fingerprint or group.fingerprint.hex()}
        replace_files(table, live_files(table), write_files(TableFiles.of(table), rows), record)

    def store_log(self, group: FeatureGroup, entity: str, log: pa.Table) -> pa.Table:
        """Store what a log gives up to the last midnight of `a_log`; what was stored."""
        if group.cadence is Cadence.EVENT:
            rows = tiles(group, entity, log)
        else:
            rows = backfill(group, entity, log, FIRST_DAY * DAY_MS, (FIRST_DAY + DAYS) * DAY_MS + 1)
        self.store(group, entity, rows)
        return rows


DAYS = 12


def a_log(group: FeatureGroup, rows: int = 400, seed: int = 1) -> pa.Table:
    """Random events of twelve days, and one just after them, so that the last day is over."""
    rng = np.random.default_rng(seed)
    log = random_log(rng, group.source, group.entities, rows)
    times = FIRST_DAY * DAY_MS + rng.integers(0, DAYS * DAY_MS, rows)
    times[0] = (FIRST_DAY + DAYS) * DAY_MS + 5
    place = log.schema.get_field_index("event_timestamp")
    log = log.set_column(place, log.schema.field(place), pa.array(times, pa.int64()).cast(TIME))
    place = log.schema.get_field_index(group.entities[0])
    names = log[group.entities[0]].to_pylist()
    return log.set_column(place, log.schema.field(place), pa.array([names[0] or "somebody", *names[1:]]))


def boundary_rows(group: FeatureGroup, day: int, columns: dict[str, np.ndarray]) -> pa.Table:
    """Rows of a daily group at the end of a day, of as many titles as the columns are long; other features are null."""
    (entity,) = group.entities
    size = len(next(iter(columns.values())))
    end = pa.array([(day + 1) * DAY_MS] * size, pa.int64()).cast(TIME)
    known = {entity: pa.array([f"title-{n}" for n in range(size)])}
    known |= dict.fromkeys(("event_timestamp", "created_timestamp", "last_event_timestamp"), end)
    known |= {name: pa.array(values) for name, values in columns.items()}
    schema = group.row_schema(entity)
    return pa.table([known.get(f.name, pa.nulls(size, f.type)) for f in schema], schema=schema)
