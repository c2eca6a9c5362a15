"""Status: what there is, read from the catalog, the online store and MLflow; nothing is computed or changed."""

from datetime import UTC, datetime

from pipelines.freshness import freshness
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import row_count
from pipelines.report import StationReport, timed
from pipelines.settings import Settings

TABLES = (
    "bronze.events",
    "quarantine.events",
    "privacy.profiles",
    "privacy.consents",
    "silver.playback",
    "silver.titles",
    "features.user_viewing_history_by_user_id",
    "features.user_viewing_history_by_profile_id",
    "features.content_popularity_by_content_id",
)


def status(settings: Settings) -> StationReport:
    """Rows and age of every table, offsets consumed, and which model is champion, fresh or stale."""
    with timed("status") as report:
        lakehouse = Lakehouse.open(settings)
        report.read = {"work_dir": str(settings.work_dir)}
        for name in TABLES:
            table = lakehouse.existing(name)
            snapshot = table.current_snapshot() if table is not None else None
            if snapshot is None:
                report.wrote[name] = "not made yet"
                continue
            made = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
            report.wrote[name] = f"{row_count(table):,} rows, {made:%Y-%m-%d %H:%M:%S} UTC"
        bronze = lakehouse.existing("bronze.events")
        for topic, partitions in (progress_of(bronze).get("offsets", {}) if bronze is not None else {}).items():
            report.did[f"consumed of {topic}"] = sum(partitions.values())
        for model in freshness(settings):
            report.wrote[f"champion of {model.model}"] = f"version {model.champion}" if model.champion else "none yet"
            report.wrote[f"freshness of {model.model}"] = model.words
    return report
