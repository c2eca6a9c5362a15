"""Maintain.

input   the lakehouse's tables, while others write and read them
does    erases people who asked for it long enough ago, takes out rows whose time is up, puts small files together,
        forgets old snapshots, deletes orphaned files
output  the same tables: the same rows less those past their retention, in fewer files, with a shorter history; the log
        of predictions less what is past its retention

Safe beside everything else. It never touches what a reader still needs (`lakehouse.readers`), what is not cleaned yet,
or what is younger than the safe ages of the settings; and its commits are on top of whatever others have committed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from pipelines.cluster import run_tasks
from pipelines.lakehouse import lineage
from pipelines.lakehouse.audit import announce_retention
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import ConcurrentCommitError, replace_files
from pipelines.lakehouse.compaction import Rewritten, Target, groups, rewrite
from pipelines.lakehouse.erasures import newest_mark
from pipelines.lakehouse.expiry import HOUR_MS, RETENTION, History, expire
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.inventory import LiveFile, inventory
from pipelines.lakehouse.orphans import remove_orphans
from pipelines.lakehouse.readers import Readers
from pipelines.lakehouse.retention import DAY_MS, cutoff_ms, outdated
from pipelines.lakehouse.scans import appended_files
from pipelines.lakehouse.tables import AUDIT
from pipelines.lineage import UnknownTableError
from pipelines.privacy import predictions, streamed
from pipelines.privacy.erase import erase, is_due
from pipelines.privacy.late_children import strip_late_children
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings

REWRITTEN_PER_COMMIT = 64
# Every run leaves two small files there, this one too: putting so few together would never come to an end.
AUDIT_FILES_AT_LEAST = 100
# Builds keep the files of feature tables in order: one for each week of a bucket.
REBUILT = "features."


def maintain(
    settings: Settings,
    tables: Sequence[str] = (),
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> StationReport:
    """Maintain `tables`, every one when none is named; `on_progress` hears of tables done and in all."""
    with timed("maintain") as report, lineage.run(settings, "maintain") as run:
        lakehouse = Lakehouse.open(settings)
        known = lakehouse.names()
        unknown = next((name for name in tables if name not in known), None)
        if unknown is not None:
            raise UnknownTableError(unknown, known)
        if not tables and is_due(settings, lakehouse, int(time.time() * 1000)):
            erased = erase(settings)
            report.did |= {
                f"erased: {what}": count for what, count in {**erased.report.read, **erased.report.did}.items()
            }
            run.erasures = newest_mark(lakehouse.catalog)  # nothing was read before
        if not tables:
            report.did |= strip_late_children(settings, lakehouse, run, int(time.time() * 1000))
            report.did |= _keep_logs(settings)
            report.did |= _keep_checkpoint(settings)
        readers = Readers.of(lakehouse, settings.work_dir)
        chosen = list(tables) or known
        for done, name in enumerate(chosen):
            table = lakehouse.existing(name)
            if table is not None:
                work = Maintenance(settings, name, readers, run, int(time.time() * 1000))
                work(table)
                report.did |= {f"{name}: {what}": count for what, count in work.did.items() if count}
            on_progress(done + 1, len(chosen))
        report.read = {"tables": len(chosen)}
    return report


def _keep_logs(settings: Settings) -> dict[str, int]:
    """Of answers that are logged: days past their retention go; of each other one file is left."""
    chosen = settings.serving
    logs = {
        "predictions": (settings.predictions_folder, chosen.predictions.retention_days),
        "served features": (settings.served_features_folder, chosen.served_features.retention_days),
    }
    did: dict[str, int] = {}
    for name, (folder, days) in logs.items():
        if folder.exists():
            expired = predictions.expire(folder, days, int(time.time() * 1000))
            fewer = predictions.put_together(folder, datetime.now(UTC).date())
            did |= {f"{name}: rows past their retention": expired, f"{name}: files put together": fewer}
    return {what: count for what, count in did.items() if count}


def _keep_checkpoint(settings: Settings) -> dict[str, int]:
    """The stream's rows are silver's: a checkpoint that nobody went on from does not keep them any longer than that."""
    before_ms = int(time.time() * 1000 - settings.lakehouse.silver_retention_days * DAY_MS)
    gone = streamed.expire(settings.stream_folder, before_ms)
    return {"stream: files of a checkpoint past its retention, deleted": gone} if gone else {}


@dataclass
class Maintenance:
    """All that is done for one table, in the order in which one step makes work for the next."""

    settings: Settings
    name: str
    readers: Readers
    run: lineage.Run
    now_ms: int
    did: dict[str, int] = field(default_factory=dict)

    def __call__(self, table: Table) -> None:
        """Retention, compaction, expiry, orphans."""
        chosen = self.settings.lakehouse
        consumed = self.readers.consumed(table)
        table = self._enforce_retention(table, consumed)
        if not self.name.startswith(REBUILT):
            table = self._compact(table, consumed)
        self.did["snapshots expired"] = expire(table, History.of(chosen), self.readers, self.now_ms)
        files, size_bytes = remove_orphans(table, int(self.now_ms - chosen.orphan_age_hours * HOUR_MS))
        add_counts(self.did, {"orphaned files deleted": files, "orphaned bytes deleted": size_bytes})

    def _enforce_retention(self, table: Table, consumed: Snapshot | None) -> Table:
        before_ms = cutoff_ms(self.name, self.settings.lakehouse, self.now_ms)
        if before_ms is None:
            return table
        if "ingested_at" not in table.schema().column_names:
            self.did["kept for want of ingested_at, rows"] = sum(
                f.file.record_count for f in inventory(table, consumed)
            )
            return table
        past = outdated(self._settled_files(table, consumed), before_ms)
        if self.name == AUDIT and (past.whole or past.mixed):
            announce_retention(self.settings, self.run, before_ms)
        facts = {RETENTION: str(before_ms)}
        for start in range(0, len(past.whole), REWRITTEN_PER_COMMIT):
            files = tuple(one.file for one in past.whole[start : start + REWRITTEN_PER_COMMIT])
            table = self._replace(table, [Rewritten(files, ())], facts)
        without = partial(rewrite, TableFiles.of(table), ingested_from_ms=before_ms)
        return self._rewrite_all(table, [(one,) for one in past.mixed], without, facts)

    def _compact(self, table: Table, consumed: Snapshot | None) -> Table:
        chosen = self.settings.lakehouse
        target = Target(chosen.target_file_mb * 1024 * 1024, chosen.target_file_rows)
        files = self._settled_files(table, consumed)
        if self.name == AUDIT and len(files) < AUDIT_FILES_AT_LEAST:
            return table
        small = list(groups(files, target))
        return self._rewrite_all(table, small, partial(rewrite, TableFiles.of(table)), {})

    def _settled_files(self, table: Table, consumed: Snapshot | None) -> list[LiveFile]:
        """The files that every follower has read; what is appended after that is left as it was appended."""
        current = table.current_snapshot()
        if consumed is None or current is None:
            return []
        if consumed.snapshot_id == current.snapshot_id:
            return list(inventory(table, current))
        unread = {file.file_path for file in appended_files(table, consumed.snapshot_id)}
        return [file for file in inventory(table, current) if file.path not in unread]

    def _rewrite_all(
        self,
        table: Table,
        work: Sequence[tuple[LiveFile, ...]],
        rewriting: Callable[[tuple[LiveFile, ...]], Rewritten],
        facts: dict[str, str],
    ) -> Table:
        """Rewrite in Ray tasks; what is done is committed now and then, so that an interruption loses little."""
        done: list[Rewritten] = []
        for one in run_tasks(rewriting, work):
            done.append(one)
            if len(done) == REWRITTEN_PER_COMMIT:
                table, done = self._replace(table, done, facts), []
        return self._replace(table, done, facts) if done else table

    def _replace(self, table: Table, done: Sequence[Rewritten], facts: dict[str, str]) -> Table:
        stale: list[DataFile] = [file for one in done for file in one.stale]
        files = [file for one in done for file in one.files]
        parent = table.metadata.current_snapshot_id
        assert parent is not None, "there are files to replace, so there is a snapshot"
        made_by = self.run.facts(lineage.Inputs(tables={self.name: parent}))
        try:
            table = self.run.wrote(replace_files(table, stale, files, facts={**made_by, **facts}))
        except ConcurrentCommitError:
            add_counts(self.did, {"files that others replaced first": len(stale)})
            return table.catalog.load_table(table.name())
        rows_gone = sum(file.record_count for file in stale) - sum(file.record_count for file in files)
        counts = {"files replaced": len(stale), "files written": len(files), "rows past their retention": rows_gone}
        add_counts(self.did, counts)
        return table
