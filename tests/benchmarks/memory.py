"""How much memory a process and everything below it use: proportional set sizes, so that shared pages count once.

What counts is memory that has no other place to be: pages of the processes' own, and Ray's shared ones. Pages of files
that they have mapped (programs, the embedded online store) are the system's cache, which it drops when it needs room.
"""

import re
import threading
import time
from pathlib import Path

import psutil

SAMPLE_S = 0.5
# Walking the pages of a dozen processes takes time that what is watched would otherwise have.
WATCHED_PER_WATCHING = 20


class PeakMemory:
    """Samples the tree of a process until it is asked for the most it was, in bytes.

    Ray's driver, its daemons and its workers are all below the `reel` command that started them. A page of Ray's
    object store, which several map, counts for each in proportion (PSS), so the sum counts it once.
    """

    def __init__(self, process_id: int) -> None:
        self._peak_bytes = 0
        self._root = psutil.Process(process_id)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def take(self) -> int:
        """The most so far; nothing is sampled any more."""
        self._over.set()
        self._thread.join()
        return self._peak_bytes

    def _watch(self) -> None:
        while not self._over.is_set():
            started = time.monotonic()
            self._peak_bytes = max(self._peak_bytes, held_bytes(self._root))
            self._over.wait(max(SAMPLE_S, WATCHED_PER_WATCHING * (time.monotonic() - started)))


def held_bytes(root: psutil.Process) -> int:
    """What the tree of `root` holds now; 0 if it is gone."""
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_pss, processes))


def _pss(process: psutil.Process) -> int:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:  # it ended between being listed and being asked
        return 0
    kib = {name: int(size) for name, size in re.findall(r"^(Pss_\w+): +(\d+) kB$", rollup, re.MULTILINE)}
    return (kib.get("Pss_Anon", 0) + kib.get("Pss_Shmem", 0)) * 1024
