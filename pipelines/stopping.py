"""Work that goes on until somebody stops it: by a signal, gracefully; and pauses after failures that pass."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.console import complain

LONGEST_PAUSE_S = 30.0


class Stopping:
    """Whether work that goes on is to end. `when` says when it will, once asked: "after this batch"."""

    def __init__(self, when: str, longest_pause_s: float = LONGEST_PAUSE_S) -> None:
        self._when, self._longest_pause_s = when, longest_pause_s
        self._told = threading.Event()
        self._failures = 0

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked for it."""
        return self._told.is_set()

    def ask(self) -> None:
        """End soon."""
        self._told.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until somebody asks; whether somebody did."""
        return self._told.wait(seconds)

    def succeeded(self) -> None:
        """After this, a failure is the first again."""
        self._failures = 0

    def pause_after(self, error: Exception) -> None:
        """Tell of a failure that passes, and wait: twice as long as after the failure before it."""
        self._failures += 1
        pause_s = min(2.0 ** (self._failures - 1), self._longest_pause_s)
        complain(f"{error}; trying again in {pause_s:.0f} s")
        self._told.wait(pause_s)

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask for it; a second one does what it always did."""
        before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: object) -> None:
            self.ask()
            complain(f"stopping {self._when}; once more stops at once, and it is done again later")
            for kind, handler in before.items():
                signal.signal(kind, handler)

        for kind in before:
            signal.signal(kind, ask)
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
