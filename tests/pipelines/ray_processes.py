"""Processes of Ray's, for tests that kill them or wait for their end."""

import os
import time
from contextlib import suppress

import psutil


def kill_a_train_worker() -> bool:
    """`kill -9` of one process that trains in the Ray of the task that calls this; whether there was one.

    Of this Ray alone, whose raylet is the parent of all its workers: the tests of another process may train as well.
    """
    for process in psutil.Process(os.getppid()).children():
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::RayTrainWorker"):
                process.kill()
                return True
    return False


def wait_for_the_end_of_session(leader: int, timeout_s: float = 240) -> None:
    """Until no process is left of those that a process, which was the leader of a session, and its children started.

    Ray's notice a moment later that their driver was killed.
    """
    deadline = time.monotonic() + timeout_s
    while any(_session(process.pid) == leader for process in psutil.process_iter()):
        assert time.monotonic() < deadline, "Ray did not notice that its driver was killed"
        time.sleep(0.1)


def _session(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return None
