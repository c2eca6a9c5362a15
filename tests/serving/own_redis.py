"""A Redis server that may be stopped, killed and started again."""

import subprocess
import time
from pathlib import Path

from serving.online_store import StoreUnavailableError, open_online_store
from tests.serving import platform
from tests.serving.conftest import free_port


class OwnRedis:
    """A Redis that may be stopped, killed and started again on its port."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._command = [binary, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([*self._command, "--port", str(self._port)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with open_online_store(self.url) as store:
                    platform.fill(store)
                return
            except StoreUnavailableError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
