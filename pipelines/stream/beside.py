"""The stream beside other work of the same process: for the demo, benchmarks and tests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.settings import Settings
from pipelines.stream.running import BatchDone
from pipelines.stream.station import Streamer


@contextmanager
def streaming(settings: Settings, on_batch: Callable[[BatchDone], None] = lambda batch: None) -> Iterator[Streamer]:
    """The stream for the length of the block, which begins when it has caught up; at its end there is a checkpoint.

    What ended it before its time is raised.
    """
    streamer = Streamer(settings, on_batch=on_batch)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            streamer.run()
        except BaseException as failure:  # noqa: BLE001 - it is raised where somebody hears of it
            failures.append(failure)
        finally:
            streamer.caught_up.set()

    thread = threading.Thread(target=run, name="stream")
    thread.start()
    try:
        streamer.caught_up.wait()
        if not failures:
            yield streamer
    finally:
        streamer.stopping.ask()
        thread.join()
        if failures:  # whatever went wrong in the block may be for that reason
            raise failures[0]
