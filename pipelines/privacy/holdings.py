"""What is held of a person, place by place: every table, and what is kept beside the tables.

Layers, in this order: quarantine, registry (`privacy.*`), bronze, silver, features, then whatever other tables there
are, each by its namespace, training sets, the online store, the stream's checkpoint, and the logs of what models
and look-ups answered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.table import Table

from pipelines.admission import QUARANTINE
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.privacy import predictions, streamed
from pipelines.privacy.held_features import online_values, values_of_tiles
from pipelines.privacy.person import Person
from pipelines.privacy.quarantined import Unsealing
from pipelines.privacy.readable import Row, rows_of_json
from pipelines.privacy.whereabouts import rows_of, tables_of_people, whereabouts
from pipelines.settings import Settings
from serving.online_store import open_online_store

REGISTRY, FEATURES, TRAINING_SETS, ONLINE, STREAM, PREDICTIONS, SERVED_FEATURES = (
    "registry", "features", "training_sets", "online_store", "stream", "predictions", "served_features",
)  # fmt: skip
_ORDER = ("privacy", "bronze", "silver", FEATURES)  # of namespaces; others follow


@dataclass(frozen=True)
class Holding:
    """Rows of the person in one place, to be read once; how many of its files were opened, and of how many.

    What has no files, such as the online store, has 0 of 0.
    """

    layer: str
    place: str
    rows: Iterator[Row]
    files_touched: int = 0
    files_total: int = 0


def holdings(settings: Settings, lakehouse: Lakehouse, person: Person) -> Iterator[Holding]:
    """Every place that is looked into."""
    yield from _quarantine(settings, lakehouse, person)
    tables = tables_of_people(lakehouse)
    for name in sorted(tables, key=lambda one: (_place(one), one)):
        yield from _table(name, tables[name], person)
    yield from _training_sets(settings.work_dir / TRAINING_SETS, person)
    yield from _online_store(settings.online_store_url, person)
    yield from _stream(settings.stream_folder, person)
    yield from _logged(PREDICTIONS, settings.predictions_folder, person)
    yield from _logged(SERVED_FEATURES, settings.served_features_folder, person)


def _place(table: str) -> int:
    namespace = table.partition(".")[0]
    return _ORDER.index(namespace) if namespace in _ORDER else len(_ORDER)


def _table(name: str, table: Table, person: Person) -> Iterator[Holding]:
    found, namespace = whereabouts(table, person), name.partition(".")[0]
    layer = REGISTRY if namespace == "privacy" else namespace
    if namespace != FEATURES:
        rows = (row for part in rows_of(found, person) for row in rows_of_json(part, person))
        yield Holding(layer, name, rows, len(found.files), found.total)
        return
    parts = list(rows_of(found, person))  # of one person, and needed twice
    rows = (row for part in parts for row in rows_of_json(part, person))
    yield Holding(layer, name, rows, len(found.files), found.total)
    if parts:
        tiles = pa.concat_tables(parts, promote_options="permissive")
        yield Holding(layer, f"{name}, values", values_of_tiles(name, table, tiles, person))


def _quarantine(settings: Settings, lakehouse: Lakehouse, person: Person) -> Iterator[Holding]:
    table = lakehouse.existing(QUARANTINE)
    if table is not None:
        unsealing = Unsealing.of(settings, table)
        # Nobody can tell whose a sealed message is, so each is opened.
        files = len(unsealing.paths)
        yield Holding("quarantine", QUARANTINE, unsealing.rows_about(person), files, files)


def _training_sets(folder: Path, person: Person) -> Iterator[Holding]:
    """Every set under the folder, unfinished ones too: whose a row is, any of its texts may say."""
    ids = pa.array(sorted({id_ for ids in person.ids.values() for id_ in ids}), pa.string())
    for built in sorted(one for one in folder.glob("*") if one.is_dir()):
        paths = sorted(built.rglob("*.parquet"))
        likely = [path for path in paths if _may_hold(path, ids)]
        rows = (row for path in likely for row in rows_of_json(_rows_with(path, ids), person))
        yield Holding(TRAINING_SETS, built.name, rows, len(likely), len(paths))


def _may_hold(path: Path, ids: pa.Array) -> bool:
    """Whether one of the ids is within the bounds of a text column, or of one without bounds."""
    metadata, texts = pq.read_metadata(path), set(_texts(pq.read_schema(path)))
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema not in texts:
                continue
            bounds = chunk.statistics
            if bounds is None or not bounds.has_min_max:
                if bounds is None or bounds.null_count != chunk.num_values:
                    return True
            elif pc.any(pc.and_(pc.greater_equal(ids, bounds.min), pc.less_equal(ids, bounds.max))).as_py():
                return True
    return False


def _rows_with(path: Path, ids: pa.Array) -> pa.Table:
    rows = pq.read_table(path, partitioning=None)
    theirs = np.zeros(len(rows), dtype=bool)
    for name in _texts(rows.schema):
        theirs |= np.asarray(pc.is_in(rows[name].cast(pa.string()), value_set=ids))
    return rows.filter(pa.array(theirs))


def _texts(schema: pa.Schema) -> list[str]:
    """The text columns, dictionary-encoded ones too."""
    kinds = {one.name: one.type.value_type if pa.types.is_dictionary(one.type) else one.type for one in schema}
    return [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]


def _online_store(url: str, person: Person) -> Iterator[Holding]:
    folder = url.removeprefix("lmdb://")
    if folder != url and not Path(folder).exists():
        return  # an embedded store that was never made; any other that does not answer is an error
    with open_online_store(url, readonly=True) as store:
        for group, held in groupby(online_values(store, person), key=lambda one: one[0]):
            yield Holding(ONLINE, group, (row for _, row in held))


def _stream(folder: Path, person: Person) -> Iterator[Holding]:
    paths = streamed.files_of(folder)
    rows = (row for part in streamed.rows_of(paths, person) for row in rows_of_json(part, person))
    if paths:
        yield Holding(STREAM, "the stream's checkpoint", rows, len(paths), len(paths))


def _logged(layer: str, folder: Path, person: Person) -> Iterator[Holding]:
    paths = predictions.files_of(folder)
    ids = pa.array(sorted({id_ for ids in person.ids.values() for id_ in ids}), pa.string())
    likely = [path for path in paths if _may_hold(path, ids)]
    rows = (row for part in predictions.rows_of(likely, person) for row in rows_of_json(part, person))
    if paths:
        yield Holding(layer, layer, rows, len(likely), len(paths))
