"""The service as its users run it: `python -m serving` in a process of its own."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

PROJECT = Path(__file__).resolve().parents[2]
# Two cores that others use too: minutes are possible, seconds are usual.
STARTS_WITHIN_S = 600


# Set by Feast for the workers of its own server, in whatever process imports it: metrics would lie in files.
_OF_FEAST = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


class ServiceProcess:
    """Runs until `stop`; `address` is where it says that it answers."""

    def __init__(
        self,
        folder: Path,
        configuration: dict[str, Any],
        environment: dict[str, str],
        module: str = "serving",
        before: tuple[str, ...] = (),
    ) -> None:
        config = folder / "serving.json"
        config.write_text(json.dumps(configuration))
        # Ray's sockets lie in it, and their paths are limited to 107 letters.
        self.ray_folder = Path(tempfile.mkdtemp(prefix="reel-", dir="/tmp"))
        self._errors = (folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", module, "--config", str(config)],
            cwd=PROJECT,
            env=_own_environment() | {"RAY_TMPDIR": str(self.ray_folder)} | environment,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._collecting = threading.Thread(target=self._collect, daemon=True)
        self._collecting.start()
        self.announcement = self._first_line()
        self.address = self.announcement.partition("Reel answers on ")[2].partition(";")[0]

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(90)

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def further_lines(self) -> list[str]:
        return [self._lines.get() for _ in range(self._lines.qsize())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._errors.close()
        self._collecting.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def _first_line(self) -> str:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                return self._lines.get(timeout=0.2)
            except queue.Empty:
                ended = self._process.poll()
                assert ended is None, f"the service ended with {ended}: {self.errors()}"
                if time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"no answer in {STARTS_WITHIN_S} s: {self.errors()}") from None


def processes_of(ray_folder: Path) -> list[bytes]:
    """Commands of processes that run with this Ray folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if str(ray_folder).encode() in command:
            commands.append(command)
    return commands


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _OF_FEAST}
