"""Exactly once across restarts (spec 11.1, row 3): every offset that was consumed has one known fate.

Each commit of ingest records, with the data, the offsets it advanced to and what became of the messages between
(`reel.counts`). So for every commit that is still on record:

    offsets consumed = messages = admitted + dropped + set aside        and        rows added = those admitted
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.table import Table

from pipelines.intake import COUNTS
from pipelines.lakehouse.commits import PROGRESS
from pipelines.lakehouse.history import ERASED_ROWS
from pipelines.quality.results import Check, Result, Status, judged
from pipelines.quality.subject import Platform

ROWS_OF = {"bronze.events": "event ", "quarantine.events": "quarantined "}  # which fates put a row into which table
FATES = ("event ", "dropped ", "quarantined ")


@dataclass
class Ledger:
    """Sums over a table's commits."""

    commits: int = 0
    offsets: int = 0
    messages: int = 0
    fates: int = 0
    expected_rows: int = 0
    rows: int = 0
    reread: int = 0

    @property
    def unaccounted(self) -> int:
        """Messages without a fate, or with two; rows that are missing, or too many."""
        return abs(self.messages - self.fates) + abs(self.expected_rows - self.rows)

    @property
    def empty_offsets(self) -> int:
        """Offsets that held no message: transaction markers, compacted away, or deleted before they were read."""
        return self.offsets - self.messages

    def enter(self, summary: Mapping[str, str], offsets: int, rows_of: str) -> None:
        """Add a commit that advanced by `offsets`.

        After a crash between the commits of two tables, one of them has part of the next batch already, and its counts
        are of more messages than it advanced by. Which of those it had cannot be told, so there only surplus is seen.
        """
        counts: dict[str, int] = json.loads(summary[COUNTS])
        messages, rows = counts.get("messages", 0), int(summary.get("added-records", "0"))
        rows += int(summary.get(ERASED_ROWS, "0"))  # they were there, and their fate is known
        expected = sum(n for name, n in counts.items() if name.startswith(rows_of))
        is_reread = messages > offsets
        self.commits += 1
        self.reread += is_reread
        self.offsets += messages if is_reread else offsets
        self.messages += messages
        self.fates += sum(n for name, n in counts.items() if name.startswith(FATES))
        self.rows += rows
        self.expected_rows += min(expected, rows) if is_reread else expected


def reconciled(platform: Platform) -> Iterator[Result]:
    """Per table that ingest fills: messages and rows that are unaccounted for; any fails."""
    for name, table in (("bronze.events", platform.bronze), ("quarantine.events", platform.quarantine)):
        if table is None:
            continue
        ledger = ledger_of(table, ROWS_OF[name])
        if not ledger.commits:
            continue
        detail = (
            f"{ledger.commits:,} commits: {ledger.offsets:,} offsets, {ledger.messages:,} messages, "
            f"{ledger.fates:,} with one fate, {ledger.rows:,} rows of {ledger.expected_rows:,}"
        )
        detail += f"; {ledger.empty_offsets:,} offsets held no message" if ledger.empty_offsets else ""
        detail += f"; {ledger.reread:,} batches were read again after a crash" if ledger.reread else ""
        status = judged(ledger.unaccounted > 0, Status.FAIL)
        if status is Status.OK:
            status = judged(ledger.empty_offsets > 0)
        yield Result(Check.EXACTLY_ONCE, name, status, float(ledger.unaccounted), 0.0, detail, platform.ingestion)


def ledger_of(table: Table, rows_of: str) -> Ledger:
    """The ledger of all commits on record; fates whose name begins with `rows_of` are rows of this table."""
    ledger = Ledger()
    before = 0 if _is_whole(table) else None  # what older commits had consumed is not known where they have expired
    for summary in summaries(table):
        if PROGRESS not in summary:
            continue
        now = _consumed(json.loads(summary[PROGRESS]))
        if COUNTS in summary and before is not None and now > before:
            ledger.enter(summary, now - before, rows_of)
        before = now
    return ledger


def summaries(table: Table) -> list[Mapping[str, str]]:
    """The summaries of the commits that led to the table as it is, oldest first, as far back as they are on record."""
    found: list[Mapping[str, str]] = []
    snapshot = table.current_snapshot()
    while snapshot is not None:
        if snapshot.summary is not None:
            found.append(snapshot.summary.additional_properties)
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return found[::-1]


def _is_whole(table: Table) -> bool:
    """Whether the table's history is on record from its first commit on."""
    snapshot = table.current_snapshot()
    while snapshot is not None and snapshot.parent_snapshot_id is not None:
        snapshot = table.snapshot_by_id(snapshot.parent_snapshot_id)
    return snapshot is not None


def _consumed(progress: Mapping[str, Any]) -> int:
    """Offsets of Kafka, and rows of tables that others fill, which are numbered likewise."""
    of_kafka = [offset for partitions in progress.get("offsets", {}).values() for offset in partitions.values()]
    of_tables = [source["offset"] for source in progress.get("sources", {}).values()]
    return int(sum(of_kafka) + sum(of_tables))
