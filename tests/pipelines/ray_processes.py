"""Processes of Ray's, for tests that kill them or wait for their end."""

import os
import time
from contextlib import suppress

import psutil


def kill_train_workers(at_most: int | None = None) -> int:
    """`kill -9` of the processes that train in the Ray of the task that calls this; how many they were.

    Of this Ray alone, whose raylet is the parent of all its workers: the tests of another process may train as well.
    """
    killed = 0
    for process in psutil.Process(os.getppid()).children():
        with suppress(psutil.NoSuchProcess):
            if killed != at_most and process.name().startswith("ray::RayTrainWorker"):
                process.kill()
                killed += 1
    return killed


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
