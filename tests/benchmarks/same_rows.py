"""Is a row of bronze what fastavro reads from the same message? Compared for a sample, column by column."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl

from pipelines.contract.events import EventSchema, load_contract
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import scan_tasks
from pipelines.settings import Settings

ORIGIN = ("topic", "partition", "offset")
# What the door changes by rule has tests of its own: who may be known, what was allowed, where and on what.
_CHANGED = {"user_agent", "ip", "is_kids", "consent_analytics", "consent_personalization", "consent_ad_targeting"}
_PERSON = ("user_id", "profile_id", "session_id", "device_id")


def check_same_rows(settings: Settings, per_message: Path) -> int:
    """Compare bronze with the rows that the per-message consumer wrote; how many were. Raises AssertionError."""
    contract = load_contract(settings.schemas)
    bronze = Lakehouse.open(settings).existing("bronze.events")
    assert bronze is not None
    files = [task.file.file_path.removeprefix("file://") for task in scan_tasks(bronze)]
    compared = 0
    for folder in sorted(per_message.iterdir()):
        event = contract.by_fullname(folder.name)
        theirs = _read("SELECT * FROM read_parquet(?, union_by_name = true)", [str(folder / "*.parquet")])
        ours = _read(
            'SELECT * FROM read_parquet(?, union_by_name = true) WHERE event_name = ? AND topic = ? AND "offset" <= ?',
            [files, event.name, event.topic, theirs["offset"].max()],
        )
        theirs = theirs.rename({name: f"{name}_theirs" for name in theirs.columns if name not in ORIGIN})
        both = ours.join(theirs, on=ORIGIN)
        assert both.height, f"no row of {event.name} that fastavro read is in bronze"
        for column in _differing(event, both):
            raise AssertionError(f"{event.name}.{column} is not what fastavro reads")
        compared += both.height
    return compared


def _differing(event: EventSchema, both: pl.DataFrame) -> Iterator[str]:
    """Columns in which a row differs. Ids of persons may be gone: those of children's profiles are."""
    for column in event.columns:
        if column.name in _CHANGED:
            continue
        # A column without any value has no type in what the consumer wrote, and is in none of bronze's files.
        if column.name not in both.columns:
            is_same = pl.col(f"{column.name}_theirs").is_null()
        else:
            is_same = pl.col(column.name).eq_missing(pl.col(f"{column.name}_theirs").cast(both.schema[column.name]))
        if column.name in _PERSON and column.name in both.columns:
            is_same |= pl.col(column.name).is_null()
        if not both.select(is_same.all()).item():
            yield column.name


def _read(query: str, values: list[object]) -> pl.DataFrame:
    with duckdb.connect(config={"threads": 2}) as engine:
        frame = pl.from_arrow(engine.sql(query, params=values).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame
