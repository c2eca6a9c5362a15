"""Orphans: files under a table's location that none of its snapshots names.

Crashed runs leave them, and so do compaction, retention and expiry. A batch that is being written is not named yet
either, so only files older than a safe age go.
"""

from collections.abc import Iterator
from contextlib import suppress

import pyarrow.fs as pafs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.history import named_files


def remove_orphans(table: Table, older_than_ms: int) -> tuple[int, int]:
    """Delete what nothing names and was last written before `older_than_ms`; how many files, and bytes.

    The files are listed before the table is asked what it names: what is named later than that was listed younger.
    """
    files = _files_of(table)
    old = {
        info.path: info.size for info in _listed(files, _path(table.location())) if _written_ms(info) < older_than_ms
    }
    if not old:
        return 0, 0
    for path in _named(table.catalog.load_table(table.name())):
        old.pop(_path(path), None)
    for path in old:
        with suppress(FileNotFoundError):  # maintenance beside this was faster
            files.delete_file(path)
    return len(old), sum(old.values())


def all_files(table: Table) -> list[str]:
    """Where every file is that lies in the table's folder."""
    scheme = table.location().removesuffix(_path(table.location()))
    return [f"{scheme}{info.path}" for info in _listed(_files_of(table), _path(table.location()))]


def unnamed_files(table: Table) -> list[str]:
    """Where the files are that nothing names, whatever their age: some may be about to be committed."""
    listed = all_files(table)
    named = {_path(path) for path in _named(table.catalog.load_table(table.name()))}
    return [path for path in listed if _path(path) not in named]


def _named(table: Table) -> Iterator[str]:
    """Every file that the table's metadata names, and the metadata."""
    metadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (statistics.statistics_path for statistics in metadata.statistics)
    yield from named_files(table)


def _files_of(table: Table) -> pafs.FileSystem:
    if not isinstance(table.io, PyArrowFileIO):
        raise LakehouseError(
            f"{'.'.join(table.name())}: files cannot be listed through {type(table.io).__name__}; "
            "set py-io-impl: pyiceberg.io.pyarrow.PyArrowFileIO in lakehouse.properties"
        )
    scheme, netloc, _ = PyArrowFileIO.parse_location(table.location())
    return table.io.fs_by_scheme(scheme, netloc)


def _listed(files: pafs.FileSystem, folder: str) -> Iterator[pafs.FileInfo]:
    found = files.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    yield from (info for info in found if info.type is pafs.FileType.File)


def _path(location: str) -> str:
    path: str = PyArrowFileIO.parse_location(location)[2]
    return path


def _written_ms(info: pafs.FileInfo) -> float:
    return info.mtime_ns / 1_000_000 if info.mtime_ns is not None else float("inf")
