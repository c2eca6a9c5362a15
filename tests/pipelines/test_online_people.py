"""What people allow is online with the ingest that heard of it, and the service's own gate obeys."""

import json

import pytest

from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.online_people import publish_people
from serving.consent_gate import ConsentGate, Person
from serving.online_store import open_online_store
from tests.pipelines.privacy.world import SALTS, T0, World, hashed

URL = "lmdb://{}/online"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def says(world, user, at_ms, *, personalization):
    answers = {"allows_analytics": True, "allows_personalization": personalization, "allows_ad_targeting": True}
    world.append("privacy.consents", {"user_id": hashed(user), "at_ms": at_ms, **answers})


def fill(url):
    """As a build of features leaves the store, as far as this looks at it."""
    with open_online_store(url) as store:
        store.put_many("meta", [("built_from", b'"something"')])


def refusals(url, *people):
    with open_online_store(url, readonly=True) as store:
        return ConsentGate(Pseudonymizer(SALTS)).refusals(store, people, [Purpose.PERSONALIZATION], "DE")


def test_who_withdraws_is_refused_and_nobody_else(world, tmp_path):
    url = URL.format(tmp_path)
    fill(url)
    for user in ("ann", "bob"):
        world.describe(user, f"{user}-1")
        says(world, user, T0, personalization=True)
    assert publish_people(world.lakehouse, url) == 4
    people = [Person(profile_id="ann-1"), Person(user_id="bob"), Person(profile_id="nobody-1")]
    assert refusals(url, *people) == [None, None, "unknown_viewer"]
    says(world, "ann", T0 + 1, personalization=False)
    assert publish_people(world.lakehouse, url) == 1, "of ann, and of nobody else"
    assert refusals(url, *people) == ["consent_refused", None, "unknown_viewer"]
    assert publish_people(world.lakehouse, url) == 0
    says(world, "ann", T0 + 2, personalization=True)
    world.append(
        "privacy.profiles", {"profile_id": hashed("bob-1"), "user_id": hashed("bob"), "is_kids": True, "at_ms": T0}
    )
    assert publish_people(world.lakehouse, url) == 2
    assert refusals(url, people[0], Person(profile_id="bob-1")) == [None, "kids_profile"]


def test_what_came_late_does_not_take_the_place_of_what_is_newer(world, tmp_path):
    url = URL.format(tmp_path)
    fill(url)
    says(world, "ann", T0 + 5, personalization=False)
    publish_people(world.lakehouse, url)
    says(world, "ann", T0, personalization=True)
    assert publish_people(world.lakehouse, url) == 1
    assert refusals(url, Person(user_id="ann")) == ["consent_refused"]


def test_a_store_that_was_never_filled_is_left_alone(world, tmp_path):
    says(world, "ann", T0, personalization=True)
    url = URL.format(tmp_path)
    assert publish_people(world.lakehouse, url) == 0
    assert not (tmp_path / "online").exists()
    with open_online_store(url):
        assert publish_people(world.lakehouse, url) == 0
    with open_online_store(url, readonly=True) as store:
        assert store.get_many("consents", [hashed("ann")]) == [None]


def test_after_the_history_has_expired_everybody_is_brought_up_to_date(world, tmp_path):
    url = URL.format(tmp_path)
    fill(url)
    for user in ("ann", "bob"):
        says(world, user, T0, personalization=True)
    with open_online_store(url) as store:
        store.put_many("meta", [("people_as_of", json.dumps({"privacy.consents": 17}).encode())])
    assert publish_people(world.lakehouse, url) == 2
