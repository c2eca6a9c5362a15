"""A source's table: found by its name, and its files read a portion at a time."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan, _read_all_delete_files
from pyiceberg.table import FileScanTask, Table

from pipelines.errors import UsageError
from pipelines.lakehouse.catalog import LakehouseError, without_password
from pipelines.lakehouse.files import TableFiles
from pipelines.settings import Settings, SourceSettings, TableMapping
from pipelines.sources.history import UnreadableSourceError


class UnknownSourceError(UsageError):
    """A source that was asked for is not configured, or not there."""


@dataclass(frozen=True)
class SourceName:
    """CATALOG.NAMESPACE.TABLE; a namespace may have several parts."""

    catalog: str
    table: str

    @classmethod
    def parse(cls, text: str) -> "SourceName":
        """Raises UnknownSourceError for what is no such name."""
        catalog, _, table = text.partition(".")
        if not all(text.split(".")) or "." not in table:
            raise UnknownSourceError(f"a source is named CATALOG.NAMESPACE.TABLE; received {text!r}")
        return cls(catalog, table)

    def __str__(self) -> str:
        return f"{self.catalog}.{self.table}"


def open_source(settings: Settings, name: SourceName) -> tuple[Table, TableMapping]:
    """The table and how its columns are to be read.

    Raises UnknownSourceError for a catalog that is not configured or a table that is not there, with the nearest that
    is; LakehouseError when the catalog cannot be reached.
    """
    chosen = settings.sources.get(name.catalog)
    if chosen is None:
        nearest = _nearest(name.catalog, settings.sources)
        raise UnknownSourceError(
            f"no catalog {name.catalog!r} under `sources`{nearest}; add it to the configuration with its type and uri"
        )
    try:
        return _load(chosen, name), chosen.tables.get(name.table, TableMapping())
    except UnknownSourceError:
        raise
    except Exception as error:  # noqa: BLE001 - every driver has failures of its own, and each means the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LakehouseError(
            f"{name}: the Iceberg catalog at {without_password(chosen.uri)} cannot be read: "
            f"{reason.replace(chosen.uri, without_password(chosen.uri))}; check sources.{name.catalog}"
        ) from None


def stream(
    table: TableFiles, task: FileScanTask, columns: Sequence[str], row_filter: BooleanExpression | None = None
) -> Iterator[pa.Table]:
    """Rows of one file without those that are marked as deleted, some ten thousands at a time. Safe from any Ray task.

    Raises UnreadableSourceError when the file is gone or is none.
    """
    schema = table.metadata.schema().select(*columns)
    scan = ArrowScan(table.metadata, table.io, schema, row_filter or AlwaysTrue())
    try:
        # ArrowScan's public reader holds all rows of a file at once, which may be more than fits.
        deletes = _read_all_delete_files(table.io, [task])
        for batch in scan._record_batches_from_scan_tasks_and_deletes([task], deletes):
            yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableSourceError(f"the source's file {task.file.file_path} cannot be read: {reason}") from None


def _load(chosen: SourceSettings, name: SourceName) -> Table:
    warehouse = {"warehouse": chosen.warehouse} if chosen.warehouse is not None else {}
    properties = {"type": chosen.catalog, "uri": chosen.uri, **warehouse, **chosen.properties}
    if chosen.catalog == "sql":
        properties.setdefault("init_catalog_tables", "false")  # it is somebody else's database
    catalog = load_catalog(chosen.name or name.catalog, **properties)
    try:
        return catalog.load_table(name.table)
    except (NoSuchTableError, NoSuchNamespaceError):
        known = [".".join(one) for namespace in catalog.list_namespaces() for one in catalog.list_tables(namespace)]
        has = ", ".join(sorted(known)) or "none"
        raise UnknownSourceError(
            f"the catalog {name.catalog!r} has no table {name.table!r}{_nearest(name.table, known)}; it has: {has}"
        ) from None


def _nearest(name: str, known: Sequence[str] | dict[str, SourceSettings]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}" if close else ""
