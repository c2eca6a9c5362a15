"""The Iceberg catalog: opening it, and its tables, made on first use."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    ServerError,
    ServiceUnavailableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from pyiceberg.transforms import parse_transform

from pipelines.errors import ReelError
from pipelines.lakehouse.tables import TableSpec
from pipelines.settings import Settings

_TABLE_PROPERTIES = {
    "commit.retry.num-retries": "0",  # see `lakehouse.commits`
    "write.parquet.compression-codec": "zstd",
    # Every commit adds a manifest and a version of the metadata: many manifests are made one, old versions deleted.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "50",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}
_CHANGE_ATTEMPTS = 5


class LakehouseError(ReelError):
    """The catalog or the warehouse cannot be used."""


class LakehouseBusyError(LakehouseError):
    """The catalog does not answer, or the warehouse takes nothing, just now."""

    passes = True

    def __init__(self, table: str, reason: BaseException) -> None:
        said = str(getattr(reason, "orig", None) or reason).partition("\n")[0] or type(reason).__name__
        super().__init__(
            f"{table}: the catalog or the warehouse did not do what was asked of it ({said}); "
            "run it again when it is well, and it goes on from the last commit"
        )


def without_password(uri: str) -> str:
    """An address as it may be shown."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


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
            return cls(_opened(properties))
        except Exception as error:  # noqa: BLE001 - every driver has failures of its own, and each means the same here
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            where = without_password(uri)
            raise LakehouseError(
                f"the Iceberg catalog at {where} cannot be opened: {reason.replace(uri, where)}; "
                "check lakehouse.catalog and lakehouse.uri"
            ) from None

    def table(self, spec: TableSpec) -> Table:
        """The table, made on first use; columns that the declaration has gained are added.

        Raises LakehouseBusyError.
        """
        with _answering(spec.name):
            return self._up_to_date(spec)

    def _up_to_date(self, spec: TableSpec) -> Table:
        try:
            table = self.catalog.load_table(spec.name)
        except NoSuchTableError:
            return self._create(spec)
        for _ in range(_CHANGE_ATTEMPTS):
            missing = [name for name in spec.schema.names if name not in table.schema().column_names]
            unset: dict[str, Any] = {k: value for k, value in _TABLE_PROPERTIES.items() if k not in table.properties}
            if not missing and not unset:
                break
            with suppress(CommitFailedException), table.transaction() as change:  # else a run beside this one was first
                if unset:
                    change.set_properties(unset)
                if missing:
                    with change.update_schema() as update:
                        update.union_by_name(spec.schema)
            table = self.catalog.load_table(spec.name)
        return table

    def existing(self, name: str) -> Table | None:
        """The table if it was ever made. Raises LakehouseBusyError."""
        with _answering(name):
            try:
                return self.catalog.load_table(name)
            except NoSuchTableError:
                return None

    def names(self) -> list[str]:
        """The names of all tables, sorted."""
        return sorted(
            ".".join(name)
            for namespace in self.catalog.list_namespaces()
            for name in self.catalog.list_tables(namespace)
        )

    def _make_namespace(self, namespace: str) -> None:
        try:
            self.catalog.create_namespace(namespace)
        except NamespaceAlreadyExistsError:
            return  # an earlier run made it
        except Exception:
            # Of two runs at once the slower is told so in its database's own way.
            if (namespace,) not in self.catalog.list_namespaces():
                raise

    def _create(self, spec: TableSpec) -> Table:
        self._make_namespace(spec.name.split(".")[0])
        with (
            suppress(TableAlreadyExistsError, CommitFailedException),  # a run beside this one made it first
            self.catalog.create_table_transaction(spec.name, schema=spec.schema, properties=_TABLE_PROPERTIES) as new,
            new.update_spec() as partition,
        ):
            for column, transform in spec.partition:
                suffix = transform.split("[")[0]
                partition.add_field(column, parse_transform(transform), f"{column}_{suffix}")
        return self.catalog.load_table(spec.name)


def _opened(properties: dict[str, str]) -> Catalog:
    try:
        return load_catalog("reel", **properties)
    except Exception as error:
        if "already exists" not in str(error):
            raise
        return load_catalog("reel", **properties)  # another run, which opened it at the same moment, made its tables


@contextmanager
def _answering(table: str) -> Iterator[None]:
    """What goes wrong between here and the catalog or the files of its metadata, by its name."""
    try:
        yield
    except _busy() as error:
        raise LakehouseBusyError(table, error) from None


def _busy() -> tuple[type[Exception], ...]:
    """What is raised where the catalog or the warehouse does not answer; looked up when something was raised."""
    # Half a second to import, which tasks, that only read and write files, have no use for.
    from sqlalchemy.exc import OperationalError

    return OSError, OperationalError, ServerError, ServiceUnavailableError
