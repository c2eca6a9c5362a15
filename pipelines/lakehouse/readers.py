"""Who still needs which snapshot of which table: what maintenance must leave alone.

Two kinds of readers outlive a run:

    followers  read what was appended since the snapshot they have consumed, so that and everything after it stays
    pins       were made from one snapshot: features, training sets; it stays so that they can be made again

A snapshot that rows have since left because their time was up is kept for no pin: retention goes before rebuilding.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of

BRONZE = "bronze.events"


@dataclass
class Readers:
    """By table: the followers with what each has consumed (None: nothing yet), and the pinned snapshots."""

    followers: dict[str, dict[str, int | None]] = field(default_factory=dict)
    pins: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, lakehouse: Lakehouse, work_dir: Path) -> "Readers":
        """As recorded by every table and by the training sets under `work_dir`."""
        readers = cls()
        for name in lakehouse.names():
            table = lakehouse.existing(name)
            if table is not None:
                readers._add_table(name, progress_of(table))
        for manifest in sorted(work_dir.glob("training_sets/*/manifest.json")):
            readers._pin(json.loads(manifest.read_text()).get("snapshots", {}))
        return readers

    def consumed(self, table: Table) -> Snapshot | None:
        """The newest snapshot that every follower has consumed; None when one of them has consumed nothing.

        Bronze without a follower has not been cleaned at all; any other table without one is nobody's input.
        """
        name = ".".join(table.name())
        followers = self.followers.get(name, {BRONZE: None} if name == BRONZE else {})
        if not followers:
            return table.current_snapshot()
        found = [table.snapshot_by_id(at) if at is not None else None for at in followers.values()]
        known = [snapshot for snapshot in found if snapshot is not None]
        if len(known) < len(found):
            return None
        return min(known, key=lambda snapshot: snapshot.sequence_number or 0)

    def _add_table(self, name: str, progress: Mapping[str, Any]) -> None:
        if name.startswith("silver.") and not progress:
            self.followers.setdefault(BRONZE, {})[name] = None
        for source, snapshot_id in _followed(progress):
            self.followers.setdefault(source, {})[name] = snapshot_id
        self._pin(progress.get("inputs", {}))

    def _pin(self, snapshots: Mapping[str, int]) -> None:
        for table, snapshot_id in snapshots.items():
            self.pins.setdefault(table, set()).add(snapshot_id)


def _followed(progress: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    if isinstance(snapshot := progress.get("bronze_snapshot"), int):
        yield BRONZE, snapshot
    for source, snapshot in progress.get("sources", {}).items():
        if isinstance(snapshot, int):
            yield source, snapshot
