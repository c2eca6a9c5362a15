"""Expiring snapshots: a table's history is cut to what readers need, so that commits stay cheap.

The metadata of a table names every snapshot it has, with what ran, read and counted, and every commit writes it anew.
Expiry only forgets snapshots; the files that nothing names any more are deleted later (`lakehouse.orphans`).
"""

from dataclasses import dataclass
from itertools import pairwise

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import try_until_committed
from pipelines.lakehouse.readers import Readers
from pipelines.lakehouse.transactions import LeanTransaction
from pipelines.settings import LakehouseSettings, Settings

RETENTION = "reel.retention"  # in the summary of a commit that took out rows whose time was up
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class History:
    """How much history a table keeps.

    Snapshots younger than `keep_ms`, but no more than `at_most`, and never fewer than `at_least`. Of those beyond
    `at_most` only appends go early: what an append's snapshot names, later ones name too, so no file loses its name.
    """

    keep_ms: int
    at_least: int
    at_most: int

    @classmethod
    def of(cls, settings: LakehouseSettings) -> "History":
        """As configured."""
        return cls(int(settings.snapshot_keep_hours * HOUR_MS), settings.snapshots_at_least, settings.snapshots_at_most)


def expire(table: Table, history: History, readers: Readers, now_ms: int) -> int:
    """Forget what neither `history` nor a reader keeps; how many snapshots that is."""
    gone = expendable(table, history, readers, now_ms)
    if not gone:
        return 0

    def attempt(current: Table) -> Table:
        left = sorted(gone & {snapshot.snapshot_id for snapshot in current.metadata.snapshots})
        if left:
            ExpireSnapshots(LeanTransaction(current, autocommit=True)).by_ids(left).commit()
        return current

    try_until_committed(table, attempt, lambda current: False)
    return len(gone)


def tidy(lakehouse: Lakehouse, settings: Settings, now_ms: int) -> int:
    """Cut every history that is too long; how many snapshots went. For who commits often: call it every 50 commits."""
    history = History.of(settings.lakehouse)
    tables = [table for name in lakehouse.names() if (table := lakehouse.existing(name)) is not None]
    long = [table for table in tables if len(table.metadata.snapshots) > history.at_most]
    if not long:
        return 0
    readers = Readers.of(lakehouse, settings.work_dir)
    return sum(expire(table, history, readers, now_ms) for table in long)


def expendable(table: Table, history: History, readers: Readers, now_ms: int) -> set[int]:
    """The ids of snapshots that nobody needs."""
    snapshots = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0, reverse=True)
    kept = {ref.snapshot_id for ref in table.metadata.refs.values()}
    kept |= {snapshot.snapshot_id for snapshot in snapshots[: history.at_least]}
    kept |= {s.snapshot_id for s in snapshots[: history.at_most] if now_ms - s.timestamp_ms < history.keep_ms}
    kept |= {
        before.snapshot_id
        for after, before in pairwise(snapshots)
        if not _is_append(after) and now_ms - after.timestamp_ms < history.keep_ms
    }
    kept |= _needed(table, snapshots, history, readers, now_ms)
    return {snapshot.snapshot_id for snapshot in snapshots} - kept


def _needed(table: Table, newest_first: list[Snapshot], history: History, readers: Readers, now_ms: int) -> set[int]:
    """What readers need: pins that retention has not passed, and all that a follower has yet to read."""
    name = ".".join(table.name())
    passed = max(
        (
            s.sequence_number or 0
            for s in newest_first
            if _is_retention(s) and now_ms - s.timestamp_ms >= history.keep_ms
        ),
        default=0,
    )
    pins = readers.pins.get(name, set())
    needed = {s.snapshot_id for s in newest_first if s.snapshot_id in pins and (s.sequence_number or 0) >= passed}
    consumed = readers.consumed(table)
    since = consumed.sequence_number or 0 if consumed is not None else 0
    return needed | {s.snapshot_id for s in newest_first if (s.sequence_number or 0) >= since}


def _is_append(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation is Operation.APPEND


def _is_retention(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and RETENTION in snapshot.summary.additional_properties
