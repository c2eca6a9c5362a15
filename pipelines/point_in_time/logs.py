"""Sorted logs.

input   silver, and a purpose
does    makes a source's log of events that the purpose allows, in (entity, time, id) order, once for all joins
output  Iceberg `features.{source}_by_{entity}`, cut by the bucket of the entity

Sorting is what an exact value costs most of; kept sorted, a bucket is read and searched by one task and nothing is
shuffled. A log is made anew whenever silver, titles, consent or profiles have changed since.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.declarations import Source
from features.playbacks import VIEWING_LOG, viewing_log
from features.profiles import PERSON_IDS
from features.sorted_log import sort_log
from pipelines.cluster import buckets_for, shuffle
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import live_files, read_all
from pipelines.viewing import Viewing

# Events that decide on each other (those of one playback) are of one user, whichever of the user's ids is the entity.
SHUFFLE_KEY = dict.fromkeys(PERSON_IDS, "user_id")


class NoLogError(ReelError):
    """Exact values need events that are not kept, or not there."""


def sorted_log(
    lakehouse: Lakehouse, made: lineage.Run, source: Source, entity: str, viewing: Viewing | None, buckets: int
) -> Table:
    """The table of a source's sorted log for one entity, up to date with silver as `viewing` has it.

    Raises:
        NoLogError: the source's events are not in silver, or silver is empty.
    """
    if source.name != VIEWING_LOG.name:
        raise NoLogError(
            f"no sorted log is kept of {source.name}: ask for its groups' values from tiles instead of exact ones"
        )
    if viewing is None:
        raise NoLogError("silver.playback is empty, so there is no log to value from; run `reel ingest`, `reel clean`")
    cut = buckets_for(viewing.rows, buckets)
    table = lakehouse.table(spec_of(source, entity, cut))
    record = {"inputs": viewing.snapshots, "columns": str(source.schema), "purpose": str(viewing.purpose)}
    if progress_of(table) == record:
        return table
    builder = _Builder(TableFiles.of(table), read_all(lakehouse.existing("silver.titles"), tables.TITLES), entity)
    split = viewing.splitter(SHUFFLE_KEY.get(entity, entity), cut)
    files = [file for found in shuffle(viewing.file_groups(), split, builder, cut) for file in found]
    facts = made.facts(lineage.Inputs(tables=viewing.snapshots))
    return made.wrote(replace_files(table, live_files(table), files, record, facts))


def spec_of(source: Source, entity: str, buckets: int) -> tables.TableSpec:
    """The table of a sorted log."""
    stored = pa.schema([pa.field(field.name, tables.stored_type(field.type)) for field in source.schema])
    return tables.TableSpec(f"features.{source.name}_by_{entity}", stored, ((entity, f"bucket[{buckets}]"),))


@dataclass(frozen=True)
class _Builder:
    table: TableFiles
    titles: pa.Table
    entity: str

    def __call__(self, _: int, parts: Sequence[pa.Table]) -> list[DataFile]:
        log = viewing_log(pa.concat_tables(parts).replace_schema_metadata(None), self.titles)
        return write_files(self.table, sort_log(VIEWING_LOG, self.entity, log))
