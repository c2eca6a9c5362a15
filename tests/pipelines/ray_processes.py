"""Workers of Ray Train, for tests that kill them."""

import os
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
