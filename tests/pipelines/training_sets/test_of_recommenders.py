"""The declared training sets of the content model and the ranker, built: what was sent is what they learn from."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.content.titles import titles_of
from models.content.training_set import TRAINING_SET as CONTENT
from models.content.watches import Watches
from models.ranker.shown import Requests
from models.ranker.training_set import TRAINING_SET as RANKER
from models.task import load_task
from models.training_set import read_manifest
from pipelines.training_sets import BuiltTrainingSet, build
from tests.pipelines.training_sets.world import LEAVER, VIEWERS
from tests.platform import HOUR, Platform, hashed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PEOPLE = {hashed(f"{person}-p"): person for person in [*VIEWERS, LEAVER]}


def whole(built: BuiltTrainingSet) -> pa.Table:
    return pa.concat_tables(
        pq.read_table(path, partitioning=None) for name in ("train", "validation", "test") for path in built.paths(name)
    )


@pytest.fixture(scope="module")
def finished(platform: Platform) -> list[tuple[str, str, int]]:
    """(person, title, ms) of everything watched past the half."""
    return [
        (event["user_id"], event["content_id"], event["event_timestamp"])
        for event in platform.told
        if event["event_name"] == "playback.stopped" and event["completion_percent"] >= 50
    ]


def test_the_content_models_rows_are_what_people_began(
    platform: Platform, finished: list[tuple[str, str, int]]
) -> None:
    built = build(platform.settings, CONTENT)
    rows = whole(built)
    assert set(load_task("content").columns) <= set(rows.column_names)
    assert read_manifest(built.folder).horizon_ms == 6 * HOUR
    began = {
        (event["user_id"], event["content_id"], event["event_timestamp"] - 1)
        for event in platform.told
        if event["event_name"] == "playback.started"
    }
    seen = set()
    for row in rows.to_pylist():
        person, at_ms = PEOPLE[row["profile_id"]], round(row["event_timestamp"].timestamp() * 1000)
        assert (person, row["content_id"], at_ms) in began
        seen.add((person, row["content_id"], at_ms))
        expected = any(
            (who, title) == (person, row["content_id"]) and at_ms < end <= at_ms + 6 * HOUR
            for who, title, end in finished
        )
        assert row["finished"] == expected
    assert len(seen) == len(rows)
    assert {"drama", "news"} >= {genre for title in titles_of(rows) for genre in title.genres} != set()
    assert len(Watches.of(rows)) > 0


def test_the_rankers_rows_are_what_people_were_shown(platform: Platform) -> None:
    built = build(platform.settings, RANKER)
    rows = whole(built)
    assert set(load_task("ranker").columns) <= set(rows.column_names)
    shown = {
        (event["user_id"], event["content_id"], event["event_timestamp"])
        for event in platform.told
        if event["event_name"] == "tile.impression"
    }
    for row in rows.to_pylist():
        at_ms = round(row["event_timestamp"].timestamp() * 1000)
        assert (PEOPLE[row["profile_id"]], row["content_id"], at_ms) in shown
        assert row["content_genres"]
    requests = Requests.of(rows)
    assert requests.sizes.sum() == len(rows)
    assert (requests.sizes == 1).all()  # these tiles come three minutes after each other
