"""What a run of clean need not find out again, when it is run again and again: all of it is in the tables too."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import live_files, read_all
from pipelines.silver.sources import id_range
from pipelines.silver.work import KnownFile


@dataclass
class Memory:
    """By table, each with the snapshot as of which it holds."""

    tables: dict[str, Table] = field(default_factory=dict)  # of silver, as they were last seen
    looked_at: dict[str, int] = field(default_factory=dict)  # the snapshot of bronze up to which there was no news
    _known: dict[str, tuple[int | None, list[KnownFile]]] = field(default_factory=dict)
    _rows: dict[str, tuple[int | None, pa.Table]] = field(default_factory=dict)

    def rows_of(self, lakehouse: Lakehouse, name: str, schema: pa.Schema) -> tuple[int | None, pa.Table]:
        """The snapshot of a small table as it is now, and all its rows."""
        table = lakehouse.existing(name)
        snapshot_id = table.metadata.current_snapshot_id if table is not None else None
        if name not in self._rows or self._rows[name][0] != snapshot_id:
            self._rows[name] = (snapshot_id, read_all(table, schema))
        return self._rows[name]

    def seen_at(self, name: str) -> int | None:
        """The snapshot as of which `rows_of` last read a table."""
        return self._rows[name][0] if name in self._rows else None

    def known_files(self, table: Table) -> list[KnownFile]:
        """The files of a table, whose events are not to be written again."""
        name, snapshot_id = ".".join(table.name()), table.metadata.current_snapshot_id
        if name not in self._known or self._known[name][0] != snapshot_id:
            self._known[name] = (snapshot_id, _known(table, live_files(table)))
        return self._known[name][1]

    def appended(self, files: Sequence[DataFile], after: Table) -> None:
        """`files` were appended to a table, which is `after` since."""
        name, snapshot = ".".join(after.name()), after.current_snapshot()
        known = self._known.get(name)
        self.tables[name] = after
        # If somebody else came between, the files are listed anew when they are next asked for.
        if known is None or snapshot is None or snapshot.parent_snapshot_id != known[0]:
            return
        self._known[name] = (snapshot.snapshot_id, [*known[1], *_known(after, files)])

    def rewritten(self, after: Table) -> None:
        """All files of a table were replaced, which is `after` since: they are listed anew when next asked for."""
        self.tables[".".join(after.name())] = after


def _known(table: Table, files: Sequence[DataFile]) -> list[KnownFile]:
    return [KnownFile(file.file_path, file.record_count, id_range(table, file)) for file in files]
