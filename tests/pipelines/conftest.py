"""Servers that tests of catalogs, warehouses and sources share, each started once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import JavaMissing, MavenMissing
from tests.pipelines.lakehouse.servers.iceberg_rest import RestCatalogs, rest_catalogs
from tests.pipelines.lakehouse.servers.postgres import PostgresMissing, postgres
from tests.pipelines.lakehouse.servers.s3 import S3, s3
from tests.platform import SALT, Platform


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """A real S3 server with one bucket."""
    with s3("lake") as running:
        yield running


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """A real PostgreSQL."""
    try:
        with postgres() as uri:
            yield uri
    except PostgresMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def rest_servers(project_root: Path, tmp_path_factory: pytest.TempPathFactory, s3_server: S3) -> Iterator[RestCatalogs]:
    """Real REST catalogs, with files on disk and with files on S3."""
    folder, libs = tmp_path_factory.mktemp("rest"), project_root / ".reel" / "iceberg-rest" / "libs"
    try:
        with rest_catalogs(libs, folder, s3_server.endpoint, f"s3://{s3_server.bucket}/rest") as addresses:
            yield addresses
    except (JavaMissing, MavenMissing) as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def watched_platform(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose features are built (`tests.pipelines.watched`); not to be changed."""
    from tests.pipelines.watched import built  # the stations take seconds to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        yield built(tmp_path_factory.mktemp("watched"))
