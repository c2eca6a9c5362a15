"""Status: what there is, read from the catalog, the online store and MLflow; nothing is computed or changed."""

from datetime import UTC, datetime

from models.recommendation.task import TASK
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import row_count
from pipelines.report import StationReport, timed
from pipelines.settings import Settings
from pipelines.tracking import Tracking

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
    """Rows and age of every table, offsets consumed, and which model is champion."""
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
        report.wrote[f"champion of {TASK.name}"] = _champion(settings)
    return report


def _champion(settings: Settings) -> str:
    if settings.mlflow.tracking_uri is None and not (settings.work_dir / "mlflow.db").exists():
        return "none yet"  # asking would make the database
    found = Tracking(settings.tracking_uri).alias(TASK.name, "champion")
    return f"version {found.version}" if found is not None else "none yet"
