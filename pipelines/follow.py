"""Follow.

input   Kafka topics that go on
does    ingests and cleans in batches, by time or by size, until it is told to stop
output  the tables of ingest and of clean, never further behind than a batch while it keeps up

A batch takes at most `ingest.messages_per_commit` messages: when more is waiting the rest stays in Kafka, and memory
does not grow with the backlog. What a batch has read is on record with its rows, so a follower that was stopped, or
killed, or that lost its broker, goes on where the last commit left off.
"""

import time
from collections.abc import Callable, Sequence

from pipelines.clean import Cleaning
from pipelines.errors import ReelError
from pipelines.ingest import Ingestion, warn_of_nulls
from pipelines.lakehouse.audit import continuous
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.expiry import tidy
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.stopping import Stopping

BATCHES_PER_TIDYING = 50


class Follower:
    """Ingest that goes on. `on_batch` hears of every batch that had messages."""

    def __init__(
        self, settings: Settings, topics: Sequence[str] = (), *, on_batch: Callable[[StationReport], None]
    ) -> None:
        self._settings, self._topics, self._on_batch = settings, topics, on_batch
        self.stopping = Stopping("after this batch")

    def run(self, *, accept_lost: bool = False, until_idle_s: float | None = None) -> StationReport:
        """Batch after batch, until `stopping` is asked for, or nothing came for `until_idle_s`; the sum of all batches.

        A failure that passes (a broker that restarts, another ingest that was faster) is told and tried again, with
        growing pauses; any other ends the run.
        """
        at_most = self._settings.ingest.messages_per_commit
        with timed("follow") as total, continuous(self._settings, "follow", tries_again=self._tries_again):
            total.did["batches"] = 0
            stations: tuple[Ingestion, Cleaning] | None = None
            last_message = time.monotonic()
            while not self.stopping.is_asked:
                started = time.monotonic()
                try:
                    stations = stations or self._open()
                    batch = self._batch(*stations, at_most, accept_lost)
                    self.stopping.succeeded()
                except ReelError as error:
                    if not error.passes:
                        raise
                    stations = None  # opened anew: whatever it had open may be what failed
                    self.stopping.pause_after(error)
                    continue
                messages = int(batch.read["messages"])
                if messages:
                    if not total.did["batches"]:
                        warn_of_nulls(stations[0].enricher)
                    self._tidy_now_and_then(int(total.did["batches"]) + 1)
                    last_message = time.monotonic()
                    _add(total, batch)
                    self._on_batch(batch)
                elif until_idle_s is not None and time.monotonic() - last_message >= until_idle_s:
                    break
                if messages < at_most:  # else more is waiting than a batch may take
                    self._wait(stations[0], started + self._settings.ingest.batch_seconds, at_most)
        return total

    def _open(self) -> tuple[Ingestion, Cleaning]:
        return Ingestion(self._settings, self._topics), Cleaning(self._settings)

    def _batch(self, ingestion: Ingestion, cleaning: Cleaning, at_most: int, accept_lost: bool) -> StationReport:
        with timed("batch") as report:
            ingested = ingestion.run(accept_lost=accept_lost, at_most=at_most)
            report.read, report.did, report.wrote = ingested.read, ingested.did, ingested.wrote
            # Also without news: rows that wait for their profile are settled as time goes by.
            cleaned = cleaning.run()
            add_counts(report.did, {name: n for name, n in cleaned.did.items() if isinstance(n, int)}, "clean: ")
            report.wrote |= cleaned.wrote
        return report

    def _tidy_now_and_then(self, batches: int) -> None:
        """Every batch leaves a snapshot in each table, and every commit writes the whole history anew."""
        if batches % BATCHES_PER_TIDYING == 0:
            tidy(Lakehouse.open(self._settings), self._settings, int(time.time() * 1000))

    def _wait(self, ingestion: Ingestion, until: float, full: int) -> None:
        """Until the time of the next batch, or until one is full."""
        while (left := until - time.monotonic()) > 0 and not self.stopping.wait(min(left, 1.0)):
            try:
                if ingestion.waiting() >= full:
                    return
            except ReelError as error:
                if not error.passes:
                    raise
                return  # the batch itself finds out, and tells

    def _tries_again(self, error: ReelError) -> bool:
        self.stopping.pause_after(error)
        return not self.stopping.is_asked


def _add(total: StationReport, batch: StationReport) -> None:
    total.did["batches"] = int(total.did["batches"]) + 1
    total.read["topics"] = batch.read["topics"]
    add_counts(total.read, {"messages": int(batch.read["messages"])})
    add_counts(total.did, {name: n for name, n in batch.did.items() if isinstance(n, int)})
    add_counts(total.wrote, {name: n for name, n in batch.wrote.items() if isinstance(n, int)})
