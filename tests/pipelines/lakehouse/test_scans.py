"""Reading tables whole, while others write them."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import FileGoneError, live_files, read_all
from pipelines.lakehouse.tables import TableSpec
from pipelines.settings import Settings

SCHEMA = pa.schema([pa.field("who", pa.string())])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    settings = Settings(environment="local", work_dir=tmp_path)
    table = Lakehouse.open(settings).table(TableSpec("test.registry", SCHEMA))
    return commit_files(table, write_files(TableFiles.of(table), pa.table({"who": ["ann", "bob"]}, SCHEMA)), None)


def delete_data(table: Table) -> None:
    for file in live_files(table):
        Path(file.file_path.removeprefix("file://")).unlink()


def test_a_table_written_anew_since_it_was_opened_is_read_as_it_is_now(table: Table) -> None:
    """An erasure deletes at once what it replaces, and whoever opened the table before still knows the old files."""
    now = table.catalog.load_table(table.name())
    now.overwrite(pa.table({"who": ["ann"]}, SCHEMA))
    delete_data(table)
    assert read_all(table, SCHEMA).to_pylist() == [{"who": "ann"}]


def test_a_table_whose_files_are_gone_for_good_says_so(table: Table) -> None:
    delete_data(table)
    with pytest.raises(FileGoneError, match=r"a file of test\.registry is gone"):
        read_all(table, SCHEMA)
