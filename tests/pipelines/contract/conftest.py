"""A real registry server for the tests of this folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import JavaMissing, MavenMissing
from pipelines.processes import find_free_port
from tests.pipelines.contract.apicurio import Apicurio


@pytest.fixture(scope="session")
def apicurio(project_root: Path) -> Iterator[Apicurio]:
    """A running Apicurio Registry, fetched once for the project; without Java or Maven its tests are skipped."""
    with tempfile.TemporaryDirectory(prefix="apicurio-") as folder:  # hundreds of megabytes, which pytest would keep
        try:
            server = Apicurio(project_root / ".reel" / "apicurio" / "packed", Path(folder), find_free_port())
        except (JavaMissing, MavenMissing) as missing:
            pytest.skip(str(missing))
        server.start()
        yield server
        server.stop()
