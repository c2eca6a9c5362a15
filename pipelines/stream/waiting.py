"""Rows that were in bronze when features were built, and not in silver: nobody had described their profile yet.

They come into the stream with the description, as they come into silver with the next clean.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.consent import ConsentHistory
from features.decision import Registries
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from pipelines.clean import INPUTS, JUDGED, OLDEST_WAITING, PROFILES
from pipelines.contract.events import Contract
from pipelines.kafka.offsets import Offsets
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_files, read_snapshot
from pipelines.silver.settling import Settling
from pipelines.silver.sources import BronzeFiles, Part
from pipelines.silver.targets import targets

BRONZE = "bronze.events"
_MILLISECONDS = pa.timestamp("ms", tz="UTC")


def waiting_rows(
    lakehouse: Lakehouse,
    contract: Contract,
    inputs: Mapping[str, int],
    firsts: Mapping[str, Offsets],
    hasher: Pseudonymizer,
    wait_ms: int,
) -> dict[str, pa.Table]:
    """By event, those that waited when the tables of silver among `inputs` were last cleaned, as of these snapshots."""
    bronze = lakehouse.existing(BRONZE)
    found: dict[str, pa.Table] = {}
    if bronze is None or bronze.current_snapshot() is None:
        return found
    files = BronzeFiles(bronze)
    named = {(event.name, event.domain): event.fullname for event in contract.events}
    for target in targets(contract, "month"):
        table = lakehouse.existing(target.name) if target.name in firsts and target.name in inputs else None
        progress = {} if table is None else progress_of(table, inputs[target.name])
        if OLDEST_WAITING not in progress:
            continue
        profiles = read_snapshot(lakehouse.existing(PROFILES), progress[INPUTS].get(PROFILES), tables.PROFILES)
        known = Registries(ConsentHistory.of(tables.CONSENTS.empty_table()), ProfileRegistry.of(profiles))
        settling = Settling(known, hasher, progress[JUDGED], wait_ms)
        for part in files.waiting_for(target, progress[OLDEST_WAITING], []):
            rows = _waiting(TableFiles.of(bronze), part, settling, firsts[target.name])
            if rows.num_rows:
                found[named[part.event.name, target.name.removeprefix("silver.")]] = rows
    return found


def _waiting(bronze: TableFiles, part: Part, settling: Settling, firsts: Offsets) -> pa.Table:
    rows = read_files(bronze, [file.path for file in part.files], part.event.columns)
    if part.event.topic is not None:
        rows = rows.filter(pc.equal(rows["topic"].cast(pa.string()), part.event.topic))
    is_valid = part.event.rules.verdicts(rows).indices.to_numpy() == 0
    wheres = zip(rows["topic"].to_pylist(), rows["partition"].to_pylist(), strict=True)
    ends = np.array([firsts.get(topic, {}).get(partition, 0) for topic, partition in wheres], np.int64)
    is_before = rows["offset"].to_numpy() < ends  # what came after is read in Kafka
    rows = rows.filter(pa.array(is_valid & is_before & settling.waiting(rows)))
    for place, column in enumerate(rows.schema):
        if pa.types.is_timestamp(column.type):
            rows = rows.set_column(place, column.name, rows[column.name].cast(_MILLISECONDS))
    return rows
