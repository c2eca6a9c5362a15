"""People online: whose profile is a child's and who allows what, which answers ask before anything personal is read.

Ingest publishes what it has heard at once, so that consent withdrawn in Kafka is obeyed by the service with the next
batch (spec 8.4), long before features are built again. A store that was never filled is left to `reel features`.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from features.consent import ANSWERED
from pipelines.console import complain
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import ExpiredSnapshotError, appended_files, read_all, read_files
from serving.errors import StoreUnavailableError
from serving.online_store import OnlineStore, open_online_store

_FILLED, PEOPLE_AS_OF = "built_from", "people_as_of"  # among the store's `meta`
STREAM = "stream"
"""Among the store's `meta`: how far `reel stream` has come."""
STREAM_SILENT_MS = 30_000
"""A stream that has said nothing for so long does not run any more."""
Records = Iterator[tuple[str, object]]


def profile_records(profiles: pa.Table) -> Records:
    """Whose each profile is, and whether a child's; of two descriptions of one instant the child's counts."""
    return records(latest(profiles.sort_by("is_kids"), ["profile_id"]), "profile_id", ["is_kids", "user_id"])


def consent_records(consents: pa.Table) -> Records:
    """What each user allows; of two statements of one instant the refusals count."""
    answers = [f"allows_{purpose}" for purpose in ANSWERED]
    strictest = pl.DataFrame(consents).group_by("user_id", "event_timestamp").agg(pl.col(answers).min())
    return records(latest(strictest.to_arrow(), ["user_id"]), "user_id", answers)


def publish_people(lakehouse: Lakehouse, url: str) -> int:
    """Bring them up to date with the registries, if the store was ever filled; how many records were written.

    What was published before is not written again: the store says as of which snapshots that was. Raises
    StoreUnavailableError.
    """
    if not is_made(url):
        return 0
    found = {one.table: lakehouse.existing(one.table) for one in _REGISTRIES}
    now = as_of(found.values())
    with open_online_store(url) as store:
        filled, said = store.get_many("meta", [_FILLED, PEOPLE_AS_OF])
        before: dict[str, int | None] = {} if said is None else json.loads(said)
        if filled is None or before == now or a_stream_is_running(store):
            return 0
        written = sum(
            _publish(store, one, table, before.get(one.table))
            for one in _REGISTRIES
            if (table := found[one.table]) is not None and before.get(one.table) != now[one.table]
        )
        store.put_many("meta", [(PEOPLE_AS_OF, json.dumps(now).encode())])
    return written


def tell_service(lakehouse: Lakehouse, url: str) -> int:
    """`publish_people`, for ingest: a store that does not answer is told with the next batch, and one line says so."""
    try:
        return publish_people(lakehouse, url)
    except StoreUnavailableError as error:
        complain(f"what people allow is not online yet, and will be with the next ingest: {error}")
        return 0


def a_stream_is_running(store: OnlineStore) -> bool:
    """Whether `reel stream` keeps them up to date: what ingest has heard is older than what they say by then."""
    (said,) = store.get_many("meta", [STREAM])
    state = {} if said is None else json.loads(said)
    return bool(state.get("is_running")) and time.time() * 1000 - state["at_ms"] < STREAM_SILENT_MS


def stream_knows_erasures(store: OnlineStore, mark: str) -> bool:
    """Whether no stream is running that goes by what was before this mark (`lakehouse.erasures`)."""
    (said,) = store.get_many("meta", [STREAM])
    return not a_stream_is_running(store) or (said is not None and json.loads(said).get("erasures") == mark)


def is_made(url: str) -> bool:
    """Whether there is a store to open: an embedded one that is not there would be made by that."""
    return not url.startswith("lmdb://") or Path(url.removeprefix("lmdb://")).exists()


def as_of(registries: Iterable[Table | None]) -> dict[str, int | None]:
    """The snapshot of each that there is, as the store keeps it."""
    return {".".join(one.name()): one.metadata.current_snapshot_id for one in registries if one is not None}


def latest(rows: pa.Table, key: list[str]) -> pl.DataFrame:
    """The newest row of each key."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame.sort("event_timestamp", maintain_order=True).unique(key, keep="last", maintain_order=True)


def records(frame: pl.DataFrame, key: str, columns: list[str]) -> Records:
    """(key, some columns) of each row."""
    for row in frame.select(key, *columns).iter_rows(named=True):
        name = row.pop(key)
        yield name, row


@dataclass(frozen=True)
class _Registry:
    """A table of what is known of people, and how it is stored online."""

    table: str
    schema: pa.Schema
    key: str
    group: str
    records: Callable[[pa.Table], Records]


_REGISTRIES = (
    _Registry("privacy.profiles", tables.PROFILES, "profile_id", "profiles", profile_records),
    _Registry("privacy.consents", tables.CONSENTS, "user_id", "consents", consent_records),
)


def put_spoken_of(store: OnlineStore, table: str, rows: pa.Table, spoken_of: pa.Table) -> int:
    """Write the records of whom `spoken_of` is about, from all `rows` of the registry of that name; how many."""
    (registry,) = (one for one in _REGISTRIES if one.table == table)
    return _put(store, registry, _of(rows, registry.key, spoken_of[registry.key]))


def _publish(store: OnlineStore, registry: _Registry, table: Table, since: int | None) -> int:
    rows = read_all(table, registry.schema)
    try:
        paths = [file.file_path for file in appended_files(table, since)]
        if paths:
            rows = _of(rows, registry.key, read_files(TableFiles.of(table), paths, [registry.key])[registry.key])
        else:
            rows = rows.slice(0, 0)
    except ExpiredSnapshotError:
        pass  # of everybody, then
    return _put(store, registry, rows)


def _of(rows: pa.Table, key: str, people: pa.ChunkedArray) -> pa.Table:
    return rows.filter(pc.is_in(rows[key], value_set=people.cast(pa.string()).unique()))


def _put(store: OnlineStore, registry: _Registry, rows: pa.Table) -> int:
    values = ((key, json.dumps(value).encode()) for key, value in registry.records(rows))
    return store.put_many(registry.group, values)
