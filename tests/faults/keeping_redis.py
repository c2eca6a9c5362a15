"""A Redis that is killed and started again, and then has what it had."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from serving.online_store import StoreUnavailableError, open_online_store
from tests.faults.road import PATIENCE_S
from tests.serving.conftest import free_port


def redis_binary() -> str:
    """The server's program; skips the test where there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    return binary


class KeepingRedis:
    """A Redis that has on disk what it has acknowledged, as a store must that is not to be filled again."""

    def __init__(self, binary: str, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [
            *(binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "always"),
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with open_online_store(self.url, readonly=True) as store:
                    store.get_many("meta", ["watermark_ms"])
                return
            except StoreUnavailableError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.send_signal(signal.SIGCONT)
        self.kill()
