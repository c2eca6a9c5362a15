"""The gate against a truth table worked out by hand from the rules, not from its code."""

import itertools
import json
from pathlib import Path

import pytest

from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving.consent_gate import ConsentGate, Person
from serving.online_store import OnlineStore, open_online_store

PEOPLE = Pseudonymizer(("old", "new"))
PERSONAL = frozenset({Purpose.PERSONALIZATION})


@pytest.fixture
def store(tmp_path: Path) -> OnlineStore:
    return open_online_store(f"lmdb://{tmp_path}/online")


def put(store: OnlineStore, group: str, plain: str, record: object) -> None:
    store.put_many(group, [(PEOPLE.hash(plain), json.dumps(record).encode())])


def refusal(store: OnlineStore, person: Person, purposes: frozenset[Purpose] = PERSONAL, market: str | None = None):
    (reason,) = ConsentGate(PEOPLE).refusals(store, [person], purposes, market)
    return reason


@pytest.mark.parametrize(
    ("said", "market", "is_kids"), list(itertools.product([True, False, None], ["US", "DE", None], [True, False, None]))
)
def test_truth_table(store: OnlineStore, said: bool | None, market: str | None, is_kids: bool | None) -> None:
    put(store, "profiles", "p", {"is_kids": is_kids, "user_id": PEOPLE.hash("u")})
    if said is not None:
        put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": said})
    if is_kids is not False:  # a description that does not say is no proof of an adult
        expected = "kids_profile"
    elif said is False:
        expected = "consent_refused"
    elif said is True or market == "US":
        expected = None
    else:
        expected = "consent_unknown"
    assert refusal(store, Person(profile_id="p"), market=market) == expected


def test_every_purpose_involved_must_be_allowed(store: OnlineStore) -> None:
    put(store, "consents", "u", {"allows_personalization": True, "allows_analytics": False})
    both = frozenset({Purpose.PERSONALIZATION, Purpose.ANALYTICS})
    for purposes in (PERSONAL, both):  # whatever is personal rests on analytics
        assert refusal(store, Person(user_id="u"), purposes) == "consent_refused"
        assert refusal(store, Person(user_id="u"), purposes, "US") == "consent_refused"
    put(store, "consents", "u", {"allows_personalization": True, "allows_analytics": True})
    assert refusal(store, Person(user_id="u"), both) is None
    ads = frozenset({Purpose.AD_TARGETING, Purpose.PERSONALIZATION})  # never asked about ads
    assert refusal(store, Person(user_id="u"), ads) == "consent_unknown"
    assert refusal(store, Person(user_id="u"), ads, "US") is None


@pytest.mark.parametrize("purpose", [Purpose.ESSENTIAL, Purpose.CONTENT_SAFETY])
def test_a_purpose_without_consent_of_its_own_admits_nobody(store: OnlineStore, purpose: Purpose) -> None:
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": True})
    assert refusal(store, Person(user_id="u"), PERSONAL | {purpose}, "US") == "purpose_not_permitted"


def test_an_unknown_user_has_the_markets_default(store: OnlineStore) -> None:
    assert refusal(store, Person(user_id="nobody")) == "consent_unknown"
    assert refusal(store, Person(user_id="nobody"), market="US") is None


def test_a_profile_nobody_described_is_refused_even_with_consent(store: OnlineStore) -> None:
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": True})
    assert refusal(store, Person(user_id="u", profile_id="p"), market="US") == "unknown_viewer"


def test_the_profiles_owner_decides(store: OnlineStore) -> None:
    put(store, "profiles", "p", {"is_kids": False, "user_id": PEOPLE.hash("owner")})
    put(store, "consents", "owner", {"allows_analytics": True, "allows_personalization": False})
    put(store, "consents", "other", {"allows_analytics": True, "allows_personalization": True})
    assert refusal(store, Person(profile_id="p")) == "consent_refused"
    assert refusal(store, Person(profile_id="p", user_id="owner")) == "consent_refused"
    assert refusal(store, Person(profile_id="p", user_id="other")) == "profile_of_another_user"


def test_an_ownerless_profile_is_the_named_users(store: OnlineStore) -> None:
    put(store, "profiles", "p", {"is_kids": False, "user_id": None})
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": True})
    assert refusal(store, Person(profile_id="p", user_id="u")) is None
    assert refusal(store, Person(profile_id="p")) == "consent_unknown"


def test_what_was_said_under_the_newest_salt_counts(store: OnlineStore) -> None:
    older = Pseudonymizer(("old",)).hash("u")
    store.put_many(
        "consents", [(older, json.dumps({"allows_analytics": True, "allows_personalization": True}).encode())]
    )
    assert refusal(store, Person(user_id="u")) is None
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": False})
    assert refusal(store, Person(user_id="u")) == "consent_refused"


def test_the_owner_recorded_under_an_older_salt_may_speak_under_the_newest(store: OnlineStore) -> None:
    older = Pseudonymizer(("old",)).hash("u")
    put(store, "profiles", "p", {"is_kids": False, "user_id": older})
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": False})
    assert refusal(store, Person(profile_id="p", user_id="u")) == "consent_refused"


def test_a_refusal_from_before_a_new_salt_holds_for_a_profile_described_since(store: OnlineStore) -> None:
    older = Pseudonymizer(("old",))
    described = {hasher.hash("p"): {"is_kids": False, "user_id": hasher.hash("u")} for hasher in (older, PEOPLE)}
    store.put_many("profiles", [(key, json.dumps(one).encode()) for key, one in described.items()])
    refused = {"allows_analytics": True, "allows_personalization": False}
    store.put_many("consents", [(older.hash("u"), json.dumps(refused).encode())])
    for person in (Person(profile_id="p"), Person(user_id="u"), Person(user_id="u", profile_id="p")):
        assert refusal(store, person, market="US") == "consent_refused"


def test_a_profile_that_is_a_childs_under_some_salt_is_a_childs(store: OnlineStore) -> None:
    older = Pseudonymizer(("old",)).hash("p")
    store.put_many("profiles", [(older, json.dumps({"is_kids": True, "user_id": None}).encode())])
    put(store, "profiles", "p", {"is_kids": False, "user_id": None})
    assert refusal(store, Person(profile_id="p"), market="US") == "kids_profile"


def test_many_people_each_get_their_own_verdict(store: OnlineStore) -> None:
    put(store, "profiles", "adult", {"is_kids": False, "user_id": PEOPLE.hash("u")})
    put(store, "profiles", "kid", {"is_kids": True, "user_id": PEOPLE.hash("u")})
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": True})
    asked = [Person(profile_id=name) for name in ("kid", "adult", "none", "adult")] + [Person(user_id="u")]
    found = ConsentGate(PEOPLE).refusals(store, asked, PERSONAL, None)
    assert found == ["kids_profile", None, "unknown_viewer", None, None]
    assert ConsentGate(PEOPLE).refusals(store, [], PERSONAL, None) == []


def test_people_asked_about_for_different_purposes_are_looked_up_together(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "profiles", "adult", {"is_kids": False, "user_id": PEOPLE.hash("u")})
    put(store, "profiles", "kid", {"is_kids": True, "user_id": PEOPLE.hash("u")})
    put(store, "consents", "u", {"allows_analytics": True, "allows_personalization": True})
    reads: list[object] = []
    get_groups = store.get_groups
    monkeypatch.setattr(store, "get_groups", lambda wanted: reads.append(wanted) or get_groups(wanted))
    people = [Person(profile_id=name) for name in ("kid", "adult", "none")]
    people += [Person(user_id="u"), Person(user_id="nobody"), Person(user_id="u", profile_id="adult")]
    asked = [
        (person, purposes)
        for person in people
        for purposes in (PERSONAL, {Purpose.ANALYTICS}, {Purpose.ESSENTIAL}, {Purpose.AD_TARGETING, *PERSONAL})
    ]
    together = ConsentGate(PEOPLE).refusals_by_purposes(store, asked, "US")
    assert len(reads) == 2
    assert together == [
        reason for one, purposes in asked for reason in ConsentGate(PEOPLE).refusals(store, [one], purposes, "US")
    ]
    assert len(set(together)) > 3
    reads.clear()
    refused = ConsentGate(PEOPLE).refusals_by_purposes(store, [(people[1], {Purpose.ESSENTIAL})], "US")
    assert refused == ["purpose_not_permitted"]
    assert not [entity for wanted in reads for _, entities in wanted for entity in entities]
