"""Files of rows in a checkpoint: Arrow's own format, durable before anybody names them."""

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa


@dataclass(frozen=True)
class RowFile:
    """A file of rows of a table, and on which of the shelves they lie."""

    name: str
    shelf: int
    table: str


def write_rows(path: Path, rows: pa.Table) -> None:
    """Write a file whole, and see to it that it is on the disk."""
    with path.open("wb") as file:
        with pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> pa.Table:
    """All rows of a file."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def replace_text(path: Path, text: str) -> None:
    """Put a file in the place of what was there, in one step, durably."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
