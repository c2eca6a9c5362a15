"""Consent withdrawn in Kafka: obeyed by the service, the next build and the next training set, earlier rows too."""

import time
from collections.abc import Iterator

import pytest

from features.groups import GROUPS
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.build_features import build_features
from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.settings import StreamSettings
from pipelines.stream.beside import streaming
from pipelines.training_sets import build
from serving.consent_gate import ConsentGate, Person
from serving.online_store import open_online_store
from tests.pipelines.training_sets.world import CHURN, DAYS, RANKER, built
from tests.platform import DAY, SALT, T0, Platform, consent, hashed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
WITHDRAWS, STAYS = "viewer-2", "viewer-3"
IDS = ("user_id", "profile_id")


@pytest.fixture(scope="module")
def platform(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REEL_SALT", SALT)
        yield built(tmp_path_factory.mktemp("restricted"))


def people_in(platform: Platform) -> dict[str, set[str]]:
    """Who is in each table of features."""
    names = [one for one in Lakehouse.open(platform.settings).names() if one.startswith("features.")]
    rows = {name: platform.rows(name) for name in names}
    return {name: {row[one] for row in some for one in IDS if row.get(one)} for name, some in rows.items()}


def test_withdrawn_in_kafka_it_is_obeyed_by_serving_the_next_build_and_the_next_training_set(platform):
    settings = platform.settings.model_copy(update={"stream": StreamSettings(batch_ms=10, checkpoint_seconds=1)})
    theirs, others = ({hashed(one), hashed(f"{one}-p")} for one in (WITHDRAWS, STAYS))
    gate = ConsentGate(Pseudonymizer((SALT,)))

    def refusals() -> list[str | None]:
        with open_online_store(settings.online_store_url, readonly=True) as store:
            asked = [Person(profile_id=f"{one}-p") for one in (WITHDRAWS, STAYS)]
            return gate.refusals(store, asked, [Purpose.PERSONALIZATION], "US")

    before = people_in(platform)
    had = {name for name, people in before.items() if not people.isdisjoint(theirs)}
    assert len(had) > 5
    first = {one.name: build(settings, one) for one in (CHURN, RANKER)}
    in_first = {name: rows_of(one, theirs) for name, one in first.items()}
    assert all(in_first.values())

    with streaming(settings):
        assert refusals() == [None, None]
        platform.send(consent(WITHDRAWS, T0 + DAYS * DAY, allows_personalization=False))
        sent = time.monotonic()
        while refusals() != ["consent_refused", None]:
            assert time.monotonic() < sent + 120, "the service never came to obey"
            time.sleep(0.01)
    with open_online_store(settings.online_store_url, readonly=True) as store:
        values = [store.get_many(f"user_viewing_history_by_{key}", sorted(theirs)) for key in IDS]
    assert values == [[None, None], [None, None]]

    ingest(settings)
    clean(settings)
    build_features(settings)
    after = people_in(platform)
    logs = {name for name in after if not name.startswith(tuple(f"features.{group.name}_" for group in GROUPS))}
    assert len(had - logs) > 5
    assert {name for name, people in after.items() if not people.isdisjoint(theirs)} <= logs
    assert all(not people.isdisjoint(others) for name, people in after.items() if name in had)

    for one in (CHURN, RANKER):
        again = build(settings, one)
        assert rows_of(again, theirs) == 0
        assert rows_of(again, others) > 0
        left_out = {**again.manifest["excluded"], **{
            f"{log}: {why}": count for log, whys in again.manifest["events_left_out"].items()
            for why, count in whys.items()
        }}  # fmt: skip
        assert sum(count for why, count in left_out.items() if "withdrawn_since" in why) > 0
    # The logs that training sets are made of are decided on anew with them.
    assert {name for name, people in people_in(platform).items() if not people.isdisjoint(theirs)} == set()


def rows_of(built_set, people: set[str]) -> int:
    """Rows of a training set, of whatever split, that name one of some people."""
    return sum(
        any(row.get(one) in people for one in IDS)
        for split in built_set.rows
        for row in built_set.frame(split).to_dicts()
    )
