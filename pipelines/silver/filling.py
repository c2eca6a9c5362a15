"""Filling tables of silver: their new rows cut into tasks, and what the tasks have written put together.

A table whose new rows fit into one task is one task. A bigger one takes three steps: its ids are read; tasks write
what is no duplicate; what may be one is decided on together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.cluster import gather, run_and_keep, run_tasks
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import in_groups
from pipelines.report import add_counts
from pipelines.silver.ids import Hashes, merged, repeated
from pipelines.silver.sources import Part, groups
from pipelines.silver.work import Cleaner, KnownFile, TableWork, Written, files_that_may_know, known_hashes

ROWS_PER_TASK = 250_000
IDS_PER_TASK = 1_000_000


@dataclass(frozen=True)
class Job:
    """The new rows of one table, and the files that may know some of them."""

    work: TableWork
    parts: tuple[Part, ...]
    known: tuple[KnownFile, ...]

    @property
    def rows(self) -> int:
        """Rows to be read."""
        return sum(part.rows for part in self.parts)


def fill(cleaner: Cleaner, jobs: Sequence[Job]) -> Iterator[Written]:
    """Do all jobs; what each has written, as they finish."""
    small = sorted((job for job in jobs if job.rows <= ROWS_PER_TASK), key=lambda job: -job.rows)
    if small:
        yield from run_tasks(partial(_clean_all, cleaner), small)
    for job in jobs:
        if job.rows > ROWS_PER_TASK:
            yield _fill_big(cleaner, job)


def _clean_all(cleaner: Cleaner, job: Job) -> Written:
    return cleaner.clean_all(job.work, job.parts, job.known)


def _fill_big(cleaner: Cleaner, job: Job) -> Written:
    ids = merged(list(run_tasks(cleaner.read_ids, list(groups(job.parts, IDS_PER_TASK)))))
    known = files_that_may_know(job.known, ids)
    suspects = _suspects(job.work.table, np.sort(ids.hashes), known)
    done: list[Written] = []
    left: list[Any] = []
    cleaning = partial(_clean_unsuspected, cleaner, job.work, suspects)
    for written, undecided in run_and_keep(cleaning, list(groups(job.parts, ROWS_PER_TASK))):
        done.append(written)
        left.append(undecided)
    if len(suspects):
        buckets = -(-len(suspects) // ROWS_PER_TASK)
        done += gather(partial(cleaner.clean_suspected, job.work, known, buckets), left, buckets)
    return _together(job.work.name, done)


def _suspects(table: TableFiles, ascending: Hashes, known: Sequence[KnownFile]) -> Hashes:
    """Hashes that occur twice among the new ids (sorted), or also in silver."""
    asked = list(in_groups(known, lambda file: file.rows, IDS_PER_TASK))
    found = list(run_tasks(partial(_known_hashes, table, ascending), asked)) if asked else []
    return np.unique(np.concatenate([repeated(ascending), *found]))


def _known_hashes(table: TableFiles, ascending: Hashes, files: Sequence[KnownFile]) -> Hashes:
    return known_hashes(table, files, ascending)


def _clean_unsuspected(
    cleaner: Cleaner, work: TableWork, suspects: Hashes, parts: Sequence[Part]
) -> tuple[Written, pa.Table]:
    return cleaner.clean_unsuspected(work, parts, suspects)


def _together(table: str, parts: Sequence[Written]) -> Written:
    counts: dict[str, int] = {}
    for part in parts:
        add_counts(counts, part.counts)
    waiting = [part.oldest_waiting_ms for part in parts if part.oldest_waiting_ms is not None]
    return Written(table, [file for part in parts for file in part.files], counts, min(waiting, default=None))
