"""Quality.

input   `bronze.events`, `quarantine.events`, `silver.*`: their metadata, and the columns that it does not tell of
does    the seven checks of spec 11.1 over the newest hours
output  Iceberg `quality.checks`; a page and metrics made from the same results
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from features.purposes import Purpose
from pipelines.lakehouse import lineage
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.quality.clean_rows import client_clocks, references
from pipelines.quality.identity import duplicates, unique_origins
from pipelines.quality.ledger import reconciled
from pipelines.quality.record import checks_table, rows_of
from pipelines.quality.rejects import rejects
from pipelines.quality.required import required_fields
from pipelines.quality.results import Check, Findings, Result, Status, Window
from pipelines.quality.subject import Platform
from pipelines.quality.timeliness import freshness, volume
from pipelines.report import StationReport, timed
from pipelines.settings import Settings

CHECKS: tuple[Callable[[Platform], Iterator[Result]], ...] = (
    rejects,
    client_clocks,
    duplicates,
    unique_origins,
    reconciled,
    required_fields,
    references,
    volume,
    freshness,
)


@dataclass(frozen=True)
class QualityRun:
    """What one run found, and events by topic and hour (columns topic, hour_ms, rows) for the page."""

    findings: Findings
    arrived: pl.DataFrame
    window: Window
    report: StationReport


def quality(settings: Settings, *, on_progress: Callable[[int, int], None] = lambda done, total: None) -> QualityRun:
    """Run every check and record what it found; `on_progress` hears of checks done and in all."""
    with timed("quality") as report, lineage.run(settings, "quality") as made:
        made.serves(Purpose.ANALYTICS)
        platform = Platform.of(settings)
        results: list[Result] = []
        for done, check in enumerate(CHECKS):
            results += check(platform)
            on_progress(done + 1, len(CHECKS))
        order = list(Check)
        results.sort(key=lambda result: (order.index(result.check), result.subject))
        findings = Findings(platform.measured_ms, results)
        if results:
            _record(platform, findings, made)
        report.read = {"topics": platform.arrived["topic"].n_unique(), "silver tables": len(platform.silver)}
        report.did = {str(status): findings.count(status) for status in Status}
        report.wrote = {checks_table().name: len(results)}
    return QualityRun(findings, platform.arrived, platform.events, report)


def _record(platform: Platform, findings: Findings, made: lineage.Run) -> None:
    """Append the findings in one commit that says what they were made of."""
    table = platform.lakehouse.table(checks_table())
    sources = {"bronze.events": platform.bronze, "quarantine.events": platform.quarantine, **platform.silver}
    current = {name: one.metadata.current_snapshot_id for name, one in sources.items() if one is not None}
    inputs = lineage.Inputs(tables={name: snapshot for name, snapshot in current.items() if snapshot is not None})
    made.wrote(commit_files(table, write_files(TableFiles.of(table), rows_of(findings)), {}, made.facts(inputs)))
