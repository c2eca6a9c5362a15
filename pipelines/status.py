"""Status: what there is, read from the catalog, the online store and MLflow; nothing is computed or changed."""

import json
from datetime import UTC, datetime

from pipelines.freshness import freshness
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import row_count
from pipelines.online_people import STREAM, a_stream_is_running, is_made
from pipelines.report import StationReport, timed
from pipelines.settings import Settings
from serving.online_store import open_online_store

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
    """Rows and age of every table, offsets consumed, how far the stream is, and each champion, fresh or stale."""
    with timed("status") as report:
        lakehouse = Lakehouse.open(settings)
        report.read = {"work_dir": str(settings.work_dir)}
        for name in TABLES:
            table = lakehouse.existing(name)
            snapshot = table.current_snapshot() if table is not None else None
            if snapshot is None:
                report.wrote[name] = "not made yet"
                continue
            report.wrote[name] = f"{row_count(table):,} rows, {_time(snapshot.timestamp_ms)} UTC"
        bronze = lakehouse.existing("bronze.events")
        for topic, partitions in (progress_of(bronze).get("offsets", {}) if bronze is not None else {}).items():
            report.did[f"consumed of {topic}"] = sum(partitions.values())
        report.did |= _stream(settings)
        for model in freshness(settings):
            report.wrote[f"champion of {model.model}"] = f"version {model.champion}" if model.champion else "none yet"
            report.wrote[f"freshness of {model.model}"] = model.words
    return report


def _stream(settings: Settings) -> dict[str, str]:
    """How far `reel stream` has come: by topic, the newest event of each partition; nothing if it never ran."""
    if not is_made(settings.online_store_url):
        return {}
    with open_online_store(settings.online_store_url, readonly=True) as store:
        (said,) = store.get_many("meta", [STREAM])
        is_running = a_stream_is_running(store)
    if said is None:
        return {}
    state = json.loads(said)
    seen = _time(state["at_ms"])
    found = {"stream": f"running with {state['actors']} actor(s)" if is_running else f"not running since {seen} UTC"}
    for topic, partitions in state["partitions"].items():
        times = [_time(one["event_ms"]) if one["event_ms"] else "nothing yet" for one in partitions.values()]
        found[f"stream has read {topic} to"] = ", ".join(
            f"{number}: {at}" for number, at in zip(partitions, times, strict=True)
        )
    return found


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
