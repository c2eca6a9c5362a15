"""The stream on a platform written by hand: what is said of people holds at once, and a new build is gone on from."""

import time

import pytest

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import unpack_values
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.contract.registry import open_registry
from pipelines.ingest import ingest
from pipelines.kafka.produce import Producer
from pipelines.settings import StreamSettings
from pipelines.status import status
from pipelines.stream.base import NothingPublishedError
from pipelines.stream.beside import streaming
from pipelines.stream.station import Streamer
from serving.consent_gate import ConsentGate, Person
from serving.online_store import open_online_store
from tests.platform import (
    DAY,
    HOUR,
    SALT,
    T0,
    Platform,
    consent,
    described,
    event,
    hashed,
    looked_around,
    title,
    watched,
)

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
PEOPLE = ("ann", "bob", "cal", "eve")
NOW = T0 + 2 * DAY
PROFILES, USERS = (USER_VIEWING_HISTORY.stored_as(entity) for entity in ("profile_id", "user_id"))


def road(settings):
    ingest(settings)
    clean(settings)
    return build_features(settings)


class Live:
    """A platform with features, and what its service would say."""

    def __init__(self, folder):
        self.platform = Platform(folder)
        stream = StreamSettings(batch_ms=10, checkpoint_seconds=0.3)
        self.settings = self.platform.settings.model_copy(update={"stream": stream})
        events = [title(f"vod-{n}", "drama") for n in range(9)]
        for person in PEOPLE:
            events += [described(person), consent(person, T0 - DAY), *watched(person, "vod-0", T0)]
            events += looked_around(person, "vod-0", T0 + HOUR)
        events += watched("early", "vod-7", T0)  # described by nobody when features are built
        self.platform.send(*events)

    def value(self, person, key="profile_id"):
        """The viewing history that is stored of a person, or None."""
        name = hashed(f"{person}-p" if key == "profile_id" else person)
        with open_online_store(self.settings.online_store_url, readonly=True) as store:
            packed = store.get_many(USER_VIEWING_HISTORY.stored_as(key), [name])
            (at_ms,) = store.get_many("meta", ["watermark_ms"])
        if packed == [None]:
            return None
        value = unpack_values(USER_VIEWING_HISTORY, packed, int(at_ms)).to_pylist()[0]
        del value[USER_VIEWING_HISTORY.age_column]  # values go before the watermark, by which ages are told
        return value

    def titles(self, person):
        value = self.value(person)
        return None if value is None else value["recent_titles"]

    def refusal(self, person):
        with open_online_store(self.settings.online_store_url, readonly=True) as store:
            asked = [Person(profile_id=f"{person}-p")]
            return ConsentGate(Pseudonymizer((SALT,))).refusals(store, asked, [Purpose.PERSONALIZATION], "GB")[0]


def wait_until(holds, seconds=200):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        yield Live(tmp_path_factory.mktemp("live"))


def test_without_a_publication_there_is_nothing_to_go_on_from(live):
    with pytest.raises(NothingPublishedError, match="run `reel features`"):
        Streamer(live.settings).run(until_idle_s=0)


def test_what_happens_is_known_at_once(live):
    road(live.settings)
    send = live.platform.send
    with streaming(live.settings):
        # Who was described after features were built: what they did before has waited for it.
        assert live.value("early") is None
        send(described("early"), consent("early", T0))
        wait_until(lambda: live.titles("early") == ["vod-7"])

        send(*watched("ann", "vod-1", NOW))
        wait_until(lambda: live.titles("ann") == ["vod-0", "vod-1"])
        assert live.value("ann", "user_id")["recent_titles"] == ["vod-0", "vod-1"]

        # An event that comes late changes what is known of those after it, and stands in its own place.
        send(*watched("ann", "vod-2", NOW - HOUR))
        wait_until(lambda: live.titles("ann") == ["vod-0", "vod-2", "vod-1"])

        # Nobody can read this, and nothing ends for it.
        registry = open_registry(live.settings.registry_location)
        with Producer(live.platform.bootstrap, live.platform.contract, registry) as producer:
            producer.produce_bytes("client.playback", None, b"\0\0\0\0\1rubbish")
        send(*watched("ann", "vod-3", NOW + HOUR))
        wait_until(lambda: live.titles("ann") == ["vod-0", "vod-2", "vod-1", "vod-3"])

        # Nobody has described the profile, so it may be a child's: what it watches waits until somebody does.
        send(*watched("new", "vod-1", NOW), *watched("bob", "vod-1", NOW))
        wait_until(lambda: live.titles("bob") == ["vod-0", "vod-1"])
        assert live.value("new") is None
        send(described("new"), consent("new", T0))
        wait_until(lambda: live.titles("new") == ["vod-1"])
        wait_until(lambda: live.refusal("new") is None)  # what they did allowed it; that they do may be read later
    said = status(live.settings).did
    assert said["stream"].startswith("not running since")
    assert "2026-01-07" in said["stream has read client.playback to"]


def test_who_says_no_is_refused_and_nothing_of_theirs_is_kept(live):
    with streaming(live.settings):
        assert [live.refusal(person) for person in PEOPLE] == [None] * 4
        live.platform.send(
            consent("bob", NOW, allows_personalization=False),
            described("eve", NOW, is_kids=True),
            event("user.deleted", NOW, "cal"),
        )
        wait_until(lambda: [live.value(person) for person in ("bob", "cal", "eve")] == [None] * 3)
        assert live.refusal("bob") == "consent_refused"
        assert live.refusal("cal") == "consent_refused"
        assert live.refusal("eve") == "kids_profile"
        assert live.refusal("ann") is None
        wait_until(lambda: [live.value(person, "user_id") for person in ("bob", "cal", "eve")] == [None] * 3)
        live.platform.send(*watched("bob", "vod-4", NOW + DAY), *watched("ann", "vod-4", NOW + DAY))
        wait_until(lambda: live.titles("ann")[-1] == "vod-4")
        assert live.value("bob") is None


def test_a_new_build_is_gone_on_from_without_a_gap_and_nothing_counts_twice(live):
    with streaming(live.settings):
        live.platform.send(*watched("ann", "vod-5", NOW + DAY + HOUR))
        wait_until(lambda: live.titles("ann")[-1] == "vod-5")
        streamed = live.value("ann")
        road(live.settings)
        assert live.value("ann") == streamed
        live.platform.send(*watched("ann", "vod-6", NOW + DAY + 2 * HOUR))
        wait_until(lambda: live.titles("ann")[-1] == "vod-6")
        streamed = live.value("ann")
    assert road(live.settings).did
    assert live.value("ann") == streamed
