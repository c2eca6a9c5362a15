"""Taking rows out of a table's files: the part of an erasure that runs in Ray tasks, a file at a go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.manifest import DataFile

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import FileGoneError, read_files
from pipelines.privacy.whereabouts import Found

Whose = Callable[[pa.Table], NDArray[np.int64]]
"""Of which request each row is, shape (n,); -1 for rows that stay."""


@dataclass(frozen=True)
class TakenOut:
    """A file that had rows to be taken out, the one in its place (None: no row is left), and whose rows they were."""

    stale: DataFile
    fresh: DataFile | None
    requests: tuple[int, ...]  # of each row that is gone

    @property
    def rows(self) -> int:
        """How many rows are gone."""
        return len(self.requests)


@dataclass(frozen=True)
class TakingOut:
    """The work on one table."""

    table: TableFiles
    whose: Whose
    columns: Sequence[str]  # what `whose` looks at

    def __call__(self, found: Found) -> TakenOut | None:
        """Write a file anew without the rows that go; None where it has none.

        Raises LakehouseError if other rows would be lost: what is read is counted against what the table says it has,
        and what is written against what is to stay.
        """
        path = found.file.file_path
        try:
            ids = read_files(self.table, [path], [name for name in self.columns if name in found.columns])
            of_rows = self.whose(ids)
            stays = of_rows < 0
            if stays.all():
                return None
            rows = read_files(self.table, [path], found.columns)
        except FileGoneError:
            return None  # another erasure was faster: what is in its place is looked at in the next pass
        files = write_files(self.table, rows.filter(pa.array(stays)))
        written = sum(file.record_count for file in files)
        if rows.num_rows != found.file.record_count or written != int(stays.sum()) or len(files) > 1:
            raise LakehouseError(
                f"{self.table.metadata.location}: {found.file.record_count} rows on record, {rows.num_rows} read, "
                f"{int(stays.sum())} to be kept, {written} written in {len(files)} files; nothing was replaced. "
                f"Look at {path}, which may be damaged"
            )
        return TakenOut(found.file, files[0] if files else None, tuple(of_rows[~stays].tolist()))
