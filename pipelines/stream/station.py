"""Stream features.

input   Kafka, from the offsets that `reel features` had seen, or those of the last checkpoint
does    small batches, many a second: messages through the door, logs, tiles, for every group valued at every event
output  the online store: values of event groups, sessions, and what people allow; Kafka: `qoe.metrics`; nothing of the
        lakehouse

Groups of hourly and daily cadence stay with `reel features`. When that has put a new publication online, which may be
behind what is here, the stream begins anew from it: reads again what came after, and is ahead once more.

For every batch:

    1. the actors read what has come in their partitions
    2. then people and titles are read to their end: whoever an event is about has been described by then
    3. what they allow goes online, and to every actor
    4. messages go through the door, rows to whoever makes their logs, logs to whoever keeps their keys' tiles
    5. whole values are written to the online store
    6. every second: playbacks that are over go online, and how good they were to Kafka (`pipelines.stream.finishing`)
    7. every `stream.checkpoint_seconds`: state and offsets, together (`pipelines.stream.checkpoint`)

A crash anywhere loses what came after step 7, and the next start reads it again from Kafka: the values are the same.
"""

import threading
import time
from collections.abc import Callable

from pipelines.console import complain
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.stopping import Stopping
from pipelines.stream.base import NothingPublishedError
from pipelines.stream.known import PURPOSE
from pipelines.stream.running import BatchDone, BegunAnewError, Running
from serving.errors import StoreUnavailableError

LONGEST_PAUSE_S = 2.0
"""Between two tries: what is served is to be right within 10 s of the end of whatever failed."""


class Streamer:
    """The stream, until it is told to stop. `on_batch` hears of every batch that had messages."""

    def __init__(self, settings: Settings, *, on_batch: Callable[[BatchDone], None] = lambda batch: None) -> None:
        self._settings, self._on_batch = settings, on_batch
        self.stopping = Stopping("after this batch", LONGEST_PAUSE_S)
        self.caught_up = threading.Event()
        """Set when everything that was there has been read once."""
        self.process_ids: list[int] = []
        """Of the actors at work."""

    def run(self, *, until_idle_s: float | None = None) -> StationReport:
        """Batch after batch, until told to stop, or nothing came for `until_idle_s`; what all of it came to.

        A failure that passes (a broker or a store that restarts, an actor that was killed, a full disk) is told and
        tried again from the last checkpoint, with growing pauses; any other ends the run.
        """
        with timed("stream") as report, lineage.run(self._settings, "stream") as made:
            made.serves(PURPOSE)
            report.read["messages"] = report.did["batches"] = report.wrote["values"] = 0
            is_done = has_begun = False
            while not (is_done or self.stopping.is_asked):
                try:
                    with Running(self._settings) as running:
                        has_begun = True
                        try:
                            is_done = self._go_on(running, report, until_idle_s)
                        finally:
                            add_counts(report.did, running.counts)
                except BegunAnewError as news:
                    complain(str(news))
                except (ReelError, StoreUnavailableError) as error:
                    passes = isinstance(error, StoreUnavailableError) or error.passes
                    # Whoever has run waits for the next publication; at the start there is nothing to wait for.
                    if not (passes or (has_begun and isinstance(error, NothingPublishedError))):
                        raise
                    self.stopping.pause_after(error)
                except OSError as error:  # a full disk under the checkpoint: values go on, from the last one
                    if not has_begun:
                        raise
                    self.stopping.pause_after(error)
        return report

    def _go_on(self, running: Running, report: StationReport, until_idle_s: float | None) -> bool:
        """Batches until the end; True, for that was all."""
        self.process_ids = running.process_ids
        last_message = last_save = time.monotonic()
        while not self.stopping.is_asked:
            batch = running.batch()
            if not batch.messages:
                self.caught_up.set()
            if batch.messages:
                last_message = time.monotonic()
                self.stopping.succeeded()
                add_counts(report.read, {"messages": batch.messages})
                add_counts(report.did, {"batches": 1})
                add_counts(report.wrote, {"values": batch.values})
                self._on_batch(batch)
            elif until_idle_s is not None and time.monotonic() - last_message >= until_idle_s:
                break
            if time.monotonic() - last_save >= self._settings.stream.checkpoint_seconds:
                running.save()
                running.check()
                last_save = time.monotonic()
        running.save(is_running=False)
        return True
