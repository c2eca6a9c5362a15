"""Schema rejects and missing fields (spec 11.1, rows 1 and 4): what was set aside at ingestion, by topic and reason."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import partial

import polars as pl
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import FileScanTask

from pipelines.cluster import run_tasks
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import file_groups, read_tasks
from pipelines.quality.results import Check, Result, judged
from pipelines.quality.subject import Platform, between, files_between

ROWS_PER_TASK = 500_000
# What the door finds missing in an event that could be read; every other reason is a matter of schemas.
MISSING_REASONS = frozenset({"missing_session_id", "missing_event_id", "wrong_event_name"})

SetAside = Mapping[str, Counter[str]]  # topic -> reason -> messages


def rejects(platform: Platform) -> Iterator[Result]:
    """Per topic the share of messages that could not be read, and a result for each reason; then the missing fields."""
    set_aside = _set_aside(platform)
    for topic in sorted({*platform.received, *set_aside}):
        reasons = set_aside.get(topic, Counter())
        received = platform.received.get(topic, 0) + reasons.total()
        missing = Counter({reason: n for reason, n in reasons.items() if reason in MISSING_REASONS})
        for check, counted in ((Check.SCHEMA_REJECTS, reasons - missing), (Check.MISSING_FIELDS, missing)):
            yield from _of_reasons(platform, check, topic, counted, received)


def _of_reasons(platform: Platform, check: Check, topic: str, counted: Counter[str], received: int) -> Iterator[Result]:
    limit = platform.settings.max_reject_share
    for subject, messages in [(topic, counted.total()), *((f"{topic}/{reason}", n) for reason, n in counted.items())]:
        share = messages / received if received else 0.0
        detail = f"{messages:,} of {received:,} messages set aside"
        yield Result(check, subject, judged(share > limit), share, limit, detail, platform.ingestion)


def _set_aside(platform: Platform) -> SetAside:
    table = platform.quarantine
    if table is None:
        return {}
    inside = between("ingested_at", platform.ingestion)
    groups = list(file_groups(files_between(table, "ingested_at", platform.ingestion), ROWS_PER_TASK))
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for counted in run_tasks(partial(_reasons, TableFiles.of(table), inside), groups) if groups else ():
        for topic, reason, messages in counted.iter_rows():
            found[topic][reason] += messages
    return found


def _reasons(table: TableFiles, inside: BooleanExpression, tasks: list[FileScanTask]) -> pl.DataFrame:
    rows = pl.DataFrame(read_tasks(table, tasks, ["topic", "reason"], inside))
    return rows.group_by("topic", "reason").len()
