"""What ingest and clean themselves leave behind: their counts close, and what was wrong with the events is found."""

import pytest

from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.quality.results import Status
from pipelines.quality.station import quality
from pipelines.settings import IngestSettings
from tests.pipelines.quality.world import of
from tests.platform import MINUTE, SALT, T0, Platform, described, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


def test_the_road_is_reconciled_and_its_defects_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    platform = Platform(tmp_path)
    in_parts = IngestSettings(messages_per_task=3, messages_per_commit=6)  # so that there are several commits
    platform.settings = platform.settings.model_copy(update={"ingest": in_parts})
    started, stopped = watched("ann", "vod-1", T0)
    platform.send(described("ann"), title("vod-1"), started, stopped, stopped)
    platform.send(*watched("ann", "vod-gone", T0, client_timestamp=T0 + 6 * MINUTE))
    platform.send(*watched("ann", "vod-1", T0, session_id=None))
    platform.send(*watched("ann", "vod-1", T0, consent_analytics=False))
    ingest(platform.settings)
    platform.send(*watched("ann", "vod-1", T0 - MINUTE))  # a second run, of which nothing is read twice
    ingest(platform.settings)
    clean(platform.settings)

    run = quality(platform.settings)
    assert of(run, "exactly_once", "bronze.events").status is Status.OK
    assert "13 offsets, 13 messages, 13 with one fate, 9 rows of 9" in of(run, "exactly_once", "bronze.events").detail
    assert of(run, "exactly_once", "quarantine.events").detail.endswith("2 rows of 2")
    assert of(run, "timestamps", "silver.playback").detail == "2 of 6 client timestamps are flagged unreliable"
    assert of(run, "duplicates", "client.playback").detail.startswith("1 of 7 events repeat one of the hour before")
    assert of(run, "missing_fields", "client.playback/missing_session_id").detail == "2 of 9 messages set aside"
    assert of(run, "references", "silver.playback.content_id").detail == "2 of 6 references to 1 unknown ids: vod-gone"
    assert not run.findings.count(Status.FAIL)
