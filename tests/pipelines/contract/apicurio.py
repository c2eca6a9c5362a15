"""A real registry server: Apicurio Registry, whose API is Confluent's, and whose schema checks are apache/avro's."""

import subprocess
import tarfile
import time
from pathlib import Path

import httpx

from pipelines.kafka.jars import fetch_jars, find_java
from pipelines.processes import HOST

POM = Path(__file__).with_name("apicurio.xml")
_START_TIMEOUT_S = 60.0
_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")  # for a quick start, not for load


class Apicurio:
    """One server on one port; what it holds lies in `folder` and outlives it."""

    def __init__(self, packed: Path, folder: Path, port: int) -> None:
        """Fetch the server to `packed`, unless it is there; raises JavaMissing, MavenMissing."""
        self._java = find_java()
        self._port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        fetch_jars(packed, POM)
        (archive,) = packed.glob("apicurio-registry-app-*.tar.gz")
        with tarfile.open(archive) as files:
            files.extractall(folder / "app", filter="data")

    @property
    def url(self) -> str:
        """Where its Confluent-compatible API is."""
        return f"http://{HOST}:{self._port}/apis/ccompat/v7"

    def launch(self) -> None:
        """Start it, and do not wait until it answers."""
        (jar,) = (self._folder / "app").glob("*-runner.jar")
        settings = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self._port,
            "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{self._folder / 'db'}",
        }
        command = [self._java, *_JVM, *(f"-D{key}={value}" for key, value in settings.items()), "-jar", str(jar)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        # It waits for the end of its input, which comes when `stop` closes it, and also if the tests are killed.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read _; kill "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert self._process is not None
            died = self._process.poll() is not None
            if died or time.monotonic() > deadline:
                self.stop()
                log = (self._folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"Apicurio {'died' if died else 'did not answer'}: {log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it, and wait until it is gone."""
        assert self._process is not None
        assert self._guard is not None
        self._guard.communicate()
        self._process.wait(timeout=30)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/subjects").is_success
        except httpx.TransportError:
            return False
