"""Processes that something started, for tests that kill some of them."""

from contextlib import suppress

import psutil


def processes_below(pid: int, name: str) -> list[psutil.Process]:
    """Those that a process, or its children, started, and whose command says so."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found
