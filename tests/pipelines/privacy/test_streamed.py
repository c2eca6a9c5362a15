"""People in the stream: erased while it runs, nothing of theirs comes back; its checkpoint is exported, and ends."""

import json
import os
import time
from collections.abc import Callable, Iterator

import pytest

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.maintain import maintain
from pipelines.privacy.erase import erase
from pipelines.privacy.export import export
from pipelines.privacy.people import find_people
from pipelines.privacy.verify import verify
from pipelines.secrets import pseudonymizer
from pipelines.settings import Settings, StreamSettings
from pipelines.stream.beside import streaming
from serving.online_store import open_online_store
from tests.pipelines.privacy.bytes_scan import files_with, online_keys
from tests.platform import DAY, HOUR, SALT, T0, Platform, consent, described, hashed, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PEOPLE = ("ann", "bob")
NAMES = {hashed(one) for one in ("ann", "ann-p", "ann-session", "ann-device")}


@pytest.fixture(scope="module")
def platform(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Features of two people, and a stream that goes on from them and saves often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        platform = Platform(tmp_path_factory.mktemp("streamed"))
        stream = StreamSettings(batch_ms=10, checkpoint_seconds=0.2)
        platform.settings = platform.settings.model_copy(update={"stream": stream})
        events = [title(f"vod-{n}", "drama") for n in range(9)]
        for person in PEOPLE:
            events += [described(person), consent(person, T0 - DAY), *watched(person, "vod-0", T0)]
        platform.send(*events)
        ingest(platform.settings)
        clean(platform.settings)
        build_features(platform.settings)
        yield platform


def value(settings: Settings, person: str) -> bytes | None:
    with open_online_store(settings.online_store_url, readonly=True) as store:
        return store.get_many(USER_VIEWING_HISTORY.stored_as("profile_id"), [hashed(f"{person}-p")])[0]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


def test_erased_while_the_stream_runs_nothing_of_theirs_comes_back(platform, tmp_path):
    settings, folder = platform.settings, platform.settings.stream_folder
    before = {person: value(settings, person) for person in PEOPLE}
    with streaming(settings):
        platform.send(*watched("ann", "vod-1", T0 + HOUR), *watched("bob", "vod-1", T0 + HOUR))
        wait_until(lambda: all(value(settings, person) != before[person] for person in PEOPLE))
        wait_until(lambda: bool(files_with(folder, NAMES)) and (folder / "checkpoint.json").exists())
        person = find_people(Lakehouse.open(settings), pseudonymizer(settings), ["ann"])["ann"]
        held = {one["where"] for one in places(settings, "ann")}
        assert any("/stream/" in where for where in held)
        made = export(settings, "ann", tmp_path / "export")
        said = json.loads((made.folder / "export.json").read_text())
        (streamed,) = [one for one in said["held"] if one["layer"] == "stream"]
        assert hashed("ann-p") in {row.get("profile_id") for row in streamed["rows"]}
        assert hashed("bob-p") not in str(streamed)

        platform.send(*watched("ann", "vod-2", T0 + 2 * HOUR))  # it may come before, while or after she is erased
        erase(settings, ["ann"])
        platform.send(*watched("ann", "vod-3", T0 + 3 * HOUR), *watched("bob", "vod-3", T0 + 3 * HOUR))
        at_erasure = value(settings, "bob")
        wait_until(lambda: value(settings, "bob") != at_erasure)
        wait_until((folder / "checkpoint.json").exists)
    assert NAMES.isdisjoint(online_keys(platform.folder / "online"))
    assert files_with(folder, NAMES) == {}
    assert list(folder.glob("*.arrow")), "the stream went on"
    assert verify(settings, "ann", person).found == ()


def places(settings: Settings, person: str) -> list[dict[str, str]]:
    return [{"where": one.where, "what": one.what} for one in verify(settings, person).found]


def test_a_checkpoint_that_nobody_went_on_from_ends_with_silvers_limit(platform):
    folder, limit_s = platform.settings.stream_folder, 365 * 86_400
    maintain(platform.settings)
    files = list(folder.glob("*.arrow"))
    assert files
    for path in files:
        os.utime(path, (time.time() - limit_s + 600,) * 2)
    maintain(platform.settings)
    assert set(folder.glob("*.arrow")) == set(files)
    for path in files:
        os.utime(path, (time.time() - limit_s - 60,) * 2)
    report = maintain(platform.settings)
    assert report.did["stream: files of a checkpoint past its retention, deleted"] > 0
    assert list(folder.iterdir()) == []
