"""Iceberg's REST catalog, run by Java from source: two of them, with files on disk and with files on S3."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.kafka.jars import fetch_jars, find_java
from pipelines.processes import find_free_port

_HERE = Path(__file__).parent
_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class RestCatalogs:
    """The addresses of the two."""

    on_disk: str
    on_s3: str


@contextmanager
def rest_catalogs(libs: Path, folder: Path, s3_endpoint: str, s3_warehouse: str) -> Iterator[RestCatalogs]:
    """Both catalogs for the length of the block. Raises JavaMissing, MavenMissing."""
    java = find_java()
    fetch_jars(libs, _HERE / "iceberg_rest.xml")
    ports = (first := find_free_port(), find_free_port(besides=first))
    log = folder / "rest.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [
                java, "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*", str(_HERE / "IcebergRest.java"), str(folder),
                *map(str, ports), s3_endpoint, s3_warehouse,
            ],
            stdin=subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            addresses = [f"http://127.0.0.1:{port}" for port in ports]
            for address in addresses:
                _wait_for(f"{address}/v1/config", server, log)
            yield RestCatalogs(*addresses)
        finally:
            server.communicate()  # it ends when its input does


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.URLError:
            assert server.poll() is None, f"the REST catalog died: {log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"no REST catalog at {url} within {_START_TIMEOUT_S} s"
            time.sleep(0.1)
