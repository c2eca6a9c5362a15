"""`reel consistency` on the real stream and the real look-up: every difference that is planted gets its own reason.

Each is planted in a group that nobody else's differences are in, beside somebody of whom all is exact.
"""

import asyncio
import json
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.pseudonyms import Pseudonymizer
from features.windows import floor_ms
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.consistency.exposition import exposition
from pipelines.consistency.page import page
from pipelines.consistency.station import consistency
from pipelines.ingest import ingest
from pipelines.settings import StreamSettings
from pipelines.settings_serving import ServedFeatureSettings as Logged
from pipelines.settings_serving import ServingSettings as Chosen
from pipelines.stream.station import Streamer
from serving import problems
from serving.access import Access
from serving.feast_api import feast_routes
from serving.feature_log import FeatureLog
from serving.feature_lookup import FeatureLookup
from serving.features_api import feature_routes
from serving.online_store import open_online_store
from serving.settings import ServedFeatureSettings, ServingSettings
from serving.store_reader import StoreReader
from tests.platform import DAY, HOUR, MINUTE, SALT, Platform, consent, described, hashed, looked_around, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]

FRIENDS = ["ann", "ben", "cat", "dan", "eve", "fay"]
NEVER_LOGGED = ["kid", "refuser"]
VIEWING, SIGNALS = "user_viewing_history", "user_interaction_signals"
TITLES = ["vod-1", "vod-2", "vod-3"]


class World:
    """A platform whose stream has ended, asked over HTTP; then the batch learns what the stream never saw."""

    def __init__(self, folder: Path) -> None:
        self.platform = Platform(folder)
        stream = StreamSettings(actors=1, batch_ms=1, checkpoint_seconds=0.2)
        serving = Chosen(served_features=Logged(share=1, flush_s=0.01))
        self.settings = self.platform.settings.model_copy(update={"stream": stream, "serving": serving})
        # Ten past this hour, be it yet to come: all that was planted was before the hour. At whatever minute this runs,
        # the newest boundary published is this hour's or that of the hour before, and before neither did anybody watch
        # for an hour, on that day or those before. So the case is the same: no trend, and other viewers of a day.
        self.now = floor_ms(int(time.time() * 1000), HOUR) + 10 * MINUTE
        self.answers: dict[str, dict] = {}

    def road(self) -> None:
        ingest(self.settings)
        clean(self.settings)
        build_features(self.settings)

    def live(self) -> None:
        """A past that features are built of, and two days that the stream adds."""
        past = self.now - 9 * DAY
        everybody = [*FRIENDS, *NEVER_LOGGED]
        events = [title(one, "drama", at_ms=past) for one in TITLES]
        events += [described(one, past, is_kids=one == "kid") for one in everybody]
        events += [consent(one, past) for one in FRIENDS]
        events += [consent("kid", past), consent("refuser", past, allows_analytics=False)]
        for place, person in enumerate(everybody):
            for day in (7, 5):  # not yet forgotten, and more than a day apart
                events += self.evening(person, self.now - day * DAY + place * MINUTE)
        self.platform.send(*events)
        self.road()
        later = []
        for place, person in enumerate(everybody):
            later += self.evening(person, self.now - DAY + place * MINUTE)
            later += self.evening(person, self.now - 5 * HOUR + place * MINUTE)
        self.platform.send(*later)
        Streamer(self.settings).run(until_idle_s=0.2)

    def evening(self, person: str, at: int) -> list[dict]:
        allowed = {"consent_personalization": person != "refuser", "consent_analytics": person != "refuser"}
        content = TITLES[(at // MINUTE) % len(TITLES)]
        return [*watched(person, content, at, **allowed), *looked_around(person, content, at + MINUTE, **allowed)]

    def plant(self) -> None:
        """Two events that come when no stream runs, and a value that somebody has changed."""
        self.platform.send(
            *watched("cat", "vod-2", self.now - 7 * HOUR),  # older than what was processed
            *looked_around("dan", "vod-2", self.now - 40 * MINUTE),  # newer than all
        )
        with open_online_store(self.settings.online_store_url) as store:
            group = USER_VIEWING_HISTORY.stored_as("profile_id")
            (value,) = store.get_many(group, [hashed("ben-p")])
            store.put_many(group, [(hashed("fay-p"), value)])

    def ask(self) -> None:
        log = FeatureLog(
            ServedFeatureSettings(folder=self.settings.served_features_folder, share=1, flush_s=0.01),
            lambda: open_online_store(self.settings.online_store_url, readonly=True),
        )
        chosen = ServingSettings(
            online_store_url=self.settings.online_store_url, mlflow_tracking_uri="sqlite:///none", store_budget_ms=9000
        )
        lookup = FeatureLookup(StoreReader(chosen.online_store_url, 9000), Pseudonymizer((SALT,)), chosen, log)
        app = FastAPI()
        problems.install(app)
        app.include_router(feature_routes(lookup, chosen, Access(chosen)))
        app.include_router(feast_routes(lookup, chosen, Access(chosen)))
        plain = [*NEVER_LOGGED, "stranger"]
        questions = {
            "tampered": (VIEWING, "profile_id", ["ann-p", "fay-p"]),
            "late": (VIEWING, "user_id", ["ann", "cat"]),
            "not processed": (SIGNALS, "profile_id", ["ann-p", "dan-p", *(f"{one}-p" for one in plain)]),
            "withdrawn": (SIGNALS, "user_id", ["ann", "eve", *plain]),
            "popular": ("content_popularity", "content_id", [*TITLES, "vod-nobody-knows"]),
        }

        async def all_of_them() -> None:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://reel") as client:
                for name, (group, entity, keys) in questions.items():
                    body = {"group": group, "entity": entity, "keys": keys}
                    self.answers[name] = (await client.post("/v1/features", json=body)).raise_for_status().json()
                service = "personalization_content_engagement_by_content_id"
                question = {"feature_service": service, "entities": {"content_id": TITLES}}
                (await client.post("/get-online-features", json=question)).raise_for_status()

        asyncio.run(all_of_them())
        log.close()
        assert log.counts.dropped == 0

    def learn(self) -> None:
        """Somebody withdraws; and everything comes to the batch."""
        now = int(time.time() * 1000)
        self.platform.send(consent("eve", now, allows_personalization=False), *watched("ben", "vod-3", now))
        self.road()

    def logged(self) -> list[dict]:
        files = sorted(self.settings.served_features_folder.glob("date=*/*.parquet"))
        return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        world = World(tmp_path_factory.mktemp("consistency"))
        world.live()
        world.plant()
        world.ask()
        world.untold = consistency(world.settings)
        world.learn()
        world.found = consistency(world.settings)
        yield world


def of(world, name):
    return next(one for one in world.found.results if one.target.name == f"features.{name}")


def test_what_the_batch_cannot_tell_yet_is_left_for_the_next_run(world):
    assert world.untold.whole.compared == 0
    event_groups = [one for one in world.untold.results if one.target.group.name in (VIEWING, SIGNALS)]
    assert sum(one.left for one in event_groups) == sum(
        len([key for key in world.answers[name]["rows"] if key["reason"] is None])
        for name in ("tampered", "late", "not processed", "withdrawn")
    )
    again = consistency(world.settings)
    assert [one for one in again.results if one.answers] == [], "nothing is compared twice"
    assert consistency(world.settings, since_ms=0).whole.compared == world.found.whole.compared


@pytest.mark.parametrize(
    ("target", "reason", "most_are"),
    [
        (f"{VIEWING}_by_profile_id", "unexplained", "different"),
        (f"{VIEWING}_by_user_id", "late event after the answer", "different"),
        (f"{SIGNALS}_by_profile_id", "event not yet processed", "different"),
        (f"{SIGNALS}_by_user_id", "consent changed since", "extra"),
        ("content_popularity_by_content_id", "boundary not yet published", "different"),
    ],
)
def test_every_planted_difference_has_its_reason(world, target, reason, most_are):
    found = of(world, target)
    assert set(found.reasons) == {reason}
    tallies = [one.tally for one in found.features.values()]
    differing = sum(one.missing + one.extra + one.different for one in tallies)
    assert found.reasons[reason] == differing > 0
    of_kinds = {kind: sum(getattr(one, kind) for one in tallies) for kind in ("missing", "extra", "different")}
    assert max(of_kinds, key=lambda kind: of_kinds[kind]) == most_are
    assert sum(one.identical for one in tallies) >= len(tallies), "ann's are exact"


def test_numbers_are_those_of_the_log_and_the_report(world):
    whole = world.found.whole
    values = [json.loads(row["values"]) for row in world.logged()]
    assert whole.compared == sum(map(len, values))
    assert whole.compared == whole.identical + whole.close + whole.missing + whole.extra + whole.different
    assert sum(world.found.reasons.values()) == whole.missing + whole.extra + whole.different
    assert world.found.smape_max > 0
    recorded = world.platform.rows("quality.consistency")
    of_run = [row for row in recorded if round(row["measured_at"].timestamp() * 1000) == world.found.measured_ms]
    assert sum(row["identical"] for row in of_run) == whole.identical


def test_the_page_and_the_metrics_say_the_same_and_name_nobody(world):
    shown, metrics = page(world.found), exposition(world.found)
    reasons = {
        sample.labels["reason"]: 0.0
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "reel_consistency_differences"
    }
    assert set(reasons) == set(world.found.reasons)
    assert all(f'data-reason="{reason}"' in shown for reason in reasons)
    ids = [*FRIENDS, *NEVER_LOGGED, *(f"{one}-p" for one in FRIENDS)]
    assert not [one for one in ids if hashed(one) in shown + metrics or f">{one}<" in shown]


def test_children_and_who_refuses_are_not_in_the_log_and_no_id_is_plain(world):
    said = {row["key"]: row["reason"] for row in world.answers["withdrawn"]["rows"]}
    assert (said["refuser"], said["ann"]) == ("consent_refused", None)
    rows = world.logged()
    people = {row["user_id"] for row in rows} | {row["profile_id"] for row in rows}
    allowed = {hashed(one) for friend in FRIENDS for one in (friend, f"{friend}-p")}
    account = hashed("kid")  # its owner is no child
    assert people - {None} <= allowed | {account}
    assert {hashed("ann"), hashed("ann-p"), hashed("fay-p")} <= people
    raw = b"".join(file.read_bytes() for file in world.settings.served_features_folder.rglob("*.parquet"))
    assert not [one for one in (*FRIENDS, *NEVER_LOGGED) if f"{one}-p".encode() in raw]
    assert {row["key"] for row in rows} >= {"vod-1", "vod-nobody-knows"}
    assert all(json.loads(row["stream"])["partitions"] for row in rows)
