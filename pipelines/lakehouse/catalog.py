"""The Iceberg catalog: opening it, and its tables, made on first use."""

from contextlib import suppress

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from pyiceberg.transforms import parse_transform

from pipelines.errors import ReelError
from pipelines.lakehouse.tables import TableSpec
from pipelines.settings import Settings

_TABLE_PROPERTIES = {"commit.retry.num-retries": "0", "write.parquet.compression-codec": "zstd"}


class LakehouseError(ReelError):
    """The catalog or the warehouse cannot be used."""


class Lakehouse:
    """The tables of one Iceberg catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @classmethod
    def open(cls, settings: Settings) -> "Lakehouse":
        """Connect to the configured catalog. Raises LakehouseError when it cannot be reached."""
        chosen = settings.lakehouse
        work_dir = settings.work_dir
        warehouse = chosen.warehouse or f"file://{work_dir / 'warehouse'}"
        if chosen.catalog == "sql" and chosen.uri is None:
            work_dir.mkdir(parents=True, exist_ok=True)
        uri = chosen.uri or f"sqlite:///{work_dir / 'catalog.db'}"
        properties = {"type": chosen.catalog, "uri": uri, "warehouse": warehouse, **chosen.properties}
        try:
            return cls(load_catalog("reel", **properties))
        except Exception as error:  # noqa: BLE001 - every driver has failures of its own, and each means the same here
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LakehouseError(
                f"the Iceberg catalog at {uri} cannot be opened: {reason}; check lakehouse.catalog and lakehouse.uri"
            ) from None

    def table(self, spec: TableSpec) -> Table:
        """The table, made on first use; columns that the declaration has gained are added."""
        try:
            table = self.catalog.load_table(spec.name)
        except NoSuchTableError:
            return self._create(spec)
        missing = [name for name in spec.schema.names if name not in table.schema().column_names]
        if missing:
            with table.update_schema() as update:
                update.union_by_name(spec.schema)
            table = self.catalog.load_table(spec.name)
        return table

    def existing(self, name: str) -> Table | None:
        """The table if it was ever made."""
        try:
            return self.catalog.load_table(name)
        except NoSuchTableError:
            return None

    def _create(self, spec: TableSpec) -> Table:
        namespace = spec.name.split(".")[0]
        with suppress(NamespaceAlreadyExistsError):  # an earlier run made it, or one beside this
            self.catalog.create_namespace(namespace)
        with (
            suppress(TableAlreadyExistsError, CommitFailedException),  # a run beside this one made it first
            self.catalog.create_table_transaction(spec.name, schema=spec.schema, properties=_TABLE_PROPERTIES) as new,
            new.update_spec() as partition,
        ):
            for column, transform in spec.partition:
                suffix = transform.split("[")[0]
                partition.add_field(column, parse_transform(transform), f"{column}_{suffix}")
        return self.catalog.load_table(spec.name)
