"""Ways of doing the same thing that take turns, so that each has the machine to itself and none has better minutes.

A machine's speed drifts: of two runs of one program, minutes apart, one took 40 % longer. Ways that are compared one
after the other compare the minutes too. Here every way is a tree of processes of which all but one's are stopped
(SIGSTOP), and a turn lasts until the running one has marked another end in its file of ends, a line each. What it took
is counted in the time that it ran. Between two turns nobody runs, and it is seen how much memory the tree holds.
"""

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

from tests.benchmarks.memory import held_bytes

LOOK_S = 0.01


class Turns:
    """One way: a command that marks ends, in a file of a folder in `folder`, whenever it has the turn."""

    def __init__(self, command: Sequence[str], folder: Path, ends_file: str) -> None:
        self.ends_s: list[float] = []
        """When each end was marked, in seconds that the way has run."""
        self.peak_bytes = 0
        self.stopped_s = 0.0
        """How long it was stopped after its first end."""
        self._folder, self._ends_file = folder, ends_file
        self._ends: Path | None = None
        self._ran_s = 0.0
        with (folder / "said").open("w") as said, (folder / "errors").open("w") as errors:
            self._since_s = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=said, stderr=errors)
        self._pause()

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def take(self, ends: int) -> None:
        """Run until `ends` are marked.

        Raises RuntimeError if the way is over before.
        """
        self._go_on()
        while len(self.ends_s) < ends:
            if self._process.poll() is not None:
                raise RuntimeError(f"{len(self.ends_s)} of {ends} ends; {self._errors()}")
            time.sleep(LOOK_S)
            self._look()
        self._pause()

    def finish(self) -> str:
        """Run to the end; what the way said.

        Raises RuntimeError if it failed.
        """
        self._go_on()
        if self._process.wait():
            raise RuntimeError(self._errors())
        return (self._folder / "said").read_text()

    def _errors(self) -> str:
        return (self._folder / "errors").read_text()[-2000:]

    def _look(self) -> None:
        now_s = self._ran_s + time.perf_counter() - self._since_s
        self._ends = self._ends or next(self._folder.glob(f"*/{self._ends_file}"), None)
        marked = 0 if self._ends is None else self._ends.read_bytes().count(b"\n")
        self.ends_s += [now_s] * (marked - len(self.ends_s))

    def _go_on(self) -> None:
        if self.ends_s:
            self.stopped_s += time.perf_counter() - self._since_s
        self._since_s = time.perf_counter()
        self._signal(signal.SIGCONT)

    def _pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self._ran_s += time.perf_counter() - self._since_s
        self._since_s = time.perf_counter()
        if self._process.poll() is None:
            self.peak_bytes = max(self.peak_bytes, held_bytes(psutil.Process(self._process.pid)))

    def _signal(self, number: signal.Signals) -> None:
        """To the whole tree, and to whatever was begun meanwhile."""
        told: set[psutil.Process] = set()
        while new := self._tree() - told:
            for process in new:
                try:
                    process.send_signal(number)
                except psutil.NoSuchProcess:
                    continue
            told |= new

    def _tree(self) -> set[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return {root, *root.children(recursive=True)}
        except psutil.NoSuchProcess:
            return set()
