"""The decision on single rows, worked out by hand: what differs from purpose to purpose, and what was said badly."""

import pyarrow as pa
import pytest

from features.consent import ConsentHistory
from features.decision import (
    Registries,
    consent_refusal,
    counted,
    decide,
    decide_for_aggregates,
    decided_otherwise,
    profile_refusal,
    resolve,
)
from features.profiles import ProfileRegistry
from features.purposes import Purpose

TIMESTAMP = pa.timestamp("ms", tz="UTC")
CONSENTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("allows_analytics", pa.bool_()),
        ("allows_personalization", pa.bool_()),
        ("allows_ad_targeting", pa.bool_()),
        ("event_timestamp", TIMESTAMP),
    ]
)
PROFILES = pa.schema([("profile_id", pa.string()), ("is_kids", pa.bool_()), ("event_timestamp", TIMESTAMP)])
ROW = {
    "event_name": "play.start",
    "source": "CLIENT",
    "market": "US",
    "event_timestamp": 100,
    "user_id": "u",
    "profile_id": "p",
    "session_id": "s",
    "device_id": "d",
    "viewer_token": "t",
    "is_kids": False,
    "consent_analytics": True,
    "consent_personalization": True,
    "consent_ad_targeting": True,
}
TEXTS = [name for name, value in ROW.items() if isinstance(value, str)]
NOBODY = dict.fromkeys(("user_id", "profile_id", "session_id", "device_id", "viewer_token"))
SAFETY, PERSONAL = Purpose.CONTENT_SAFETY, Purpose.PERSONALIZATION


def table(*rows):
    types = {name: pa.string() if name in TEXTS else pa.bool_() for name in ROW} | {"event_timestamp": TIMESTAMP}
    return pa.Table.from_pylist([{**ROW, **changes} for changes in rows], schema=pa.schema(list(types.items())))


def known(consents=(), profiles=()):
    """What is known: (user, analytics, personalization, ads, at) and (profile, is a child's, at)."""
    said = [dict(zip(CONSENTS.names, one, strict=True)) for one in consents]
    described = [dict(zip(PROFILES.names, one, strict=True)) for one in profiles]
    return Registries(
        ConsentHistory.of(pa.Table.from_pylist(said, schema=CONSENTS)),
        ProfileRegistry.of(pa.Table.from_pylist(described, schema=PROFILES)),
        frozenset({"auth.login"}),
    )


def reason(purpose, changes, registries=None, at_ms=1_000):
    return decide(table(changes), purpose, registries or known(), at_ms).reasons.to_pylist()[0]


def test_a_profile_that_turns_out_to_be_a_childs_was_one_all_along():
    later = known(profiles=[("p", False, 50), ("p", True, 500)])
    assert reason(PERSONAL, {}, later, at_ms=499) is None
    assert reason(PERSONAL, {}, later, at_ms=500) == "kids_profile"
    assert reason(PERSONAL, {"profile_id": "another"}, later) is None
    assert reason(PERSONAL, {"profile_id": None}, later) is None


def test_what_a_child_did_stays_a_childs_when_it_has_grown_up():
    assert reason(PERSONAL, {"is_kids": True}, known(profiles=[("p", True, 50), ("p", False, 500)])) == "kids_profile"


@pytest.mark.parametrize("purpose", [Purpose.ANALYTICS, PERSONAL, Purpose.AD_TARGETING, SAFETY])
def test_a_row_of_which_it_is_not_known_whether_it_is_a_childs_may_be(purpose):
    assert reason(purpose, {"is_kids": None}) == "kids_profile"


@pytest.mark.parametrize("left", [*NOBODY, None])
def test_content_safety_takes_a_childs_row_only_when_it_leads_to_nobody(left):
    row = {"is_kids": True, **NOBODY, **({} if left is None else {left: "something"})}
    assert reason(SAFETY, row) == (None if left is None else "kids_profile")
    assert reason(PERSONAL, row) == "kids_profile"


def test_content_safety_rests_on_analytics_and_on_learning():
    assert reason(SAFETY, {"consent_ad_targeting": False}) is None
    assert reason(SAFETY, {"consent_personalization": False}) == "refused_on_event"
    assert reason(SAFETY, {"consent_analytics": False}) == "refused_on_event"
    assert reason(SAFETY, {}, known([("u", True, True, False, 500)])) is None
    assert reason(SAFETY, {}, known([("u", False, True, True, 500)])) == "withdrawn_since"


def test_essential_is_a_list_of_events_and_asks_nobody():
    refused = {"event_name": "auth.login", "consent_analytics": False}
    assert reason(Purpose.ESSENTIAL, refused) is None
    assert reason(Purpose.ESSENTIAL, {**refused, "is_kids": True}) == "kids_profile"
    assert reason(Purpose.ESSENTIAL, {}) == "not_essential"


def test_aggregates_know_whose_rows_are_a_childs():
    registries = known([("u", False, False, False, 500)], [("p", False, 10), ("p", True, 500)])
    rows = table({}, {"profile_id": None}, {"is_kids": True, **NOBODY}, {"is_kids": None}, {"consent_analytics": False})
    decision, is_child = decide_for_aggregates(rows, PERSONAL, registries, 1_000)
    assert decision.reasons.to_pylist() == [
        "withdrawn_since",
        "withdrawn_since",
        None,
        "kids_profile",
        "refused_on_event",
    ]
    assert is_child.tolist() == [True, False, True, True, True]
    decision, is_child = decide_for_aggregates(rows, PERSONAL, registries, 499)
    assert decision.reasons.to_pylist() == [None, None, None, "kids_profile", "refused_on_event"]
    assert is_child.tolist() == [False, False, True, True, False]
    ads, _ = decide_for_aggregates(rows, Purpose.AD_TARGETING, registries, 1_000)
    assert ads.reasons.to_pylist() == ["kids_profile", "withdrawn_since", *["kids_profile"] * 3]


def test_a_row_without_a_user_is_of_whose_profile_it_is():
    owned = pa.table(
        {"profile_id": ["p"], "is_kids": [False], "user_id": ["u"], "event_timestamp": pa.array([5], TIMESTAMP)}
    )
    registries = Registries(known([("u", True, False, True, 500)]).consents, ProfileRegistry.of(owned))
    assert reason(PERSONAL, {"user_id": None}, registries) == "withdrawn_since"
    assert reason(PERSONAL, {"user_id": None}, registries, at_ms=499) is None
    assert reason(PERSONAL, {"user_id": None, "profile_id": "q"}, registries) is None
    assert reason(PERSONAL, {"user_id": "v"}, registries) is None


def test_a_profile_that_was_a_childs_for_a_while():
    def at(event_ms, now_ms=9_000):
        history = known(profiles=[("p", False, 10), ("p", True, 500), ("p", False, 900)])
        return reason(PERSONAL, {"event_timestamp": event_ms}, history, now_ms)

    assert [at(one) for one in (5, 100, 500, 900)] == ["kids_profile"] * 4
    assert at(901) is None
    assert at(100, now_ms=499) is None


def test_the_first_reason_is_told_and_each_row_has_its_own():
    registries = known([("u", True, False, True, 500)])
    rows = table({"is_kids": True, "consent_personalization": False}, {"consent_personalization": False}, {})
    decision = decide(rows, PERSONAL, registries, 1_000)
    assert decision.reasons.to_pylist() == ["kids_profile", "refused_on_event", "withdrawn_since"]
    assert decision.excluded == {"kids_profile": 1, "refused_on_event": 1, "withdrawn_since": 1}
    assert decision.allowed.tolist() == [False, False, False]


def resolved(changes, consents=()):
    found = resolve(table(changes), known(consents).consents)
    (row,) = found.events.select(["consent_analytics", "consent_personalization", "consent_ad_targeting"]).to_pylist()
    return [*row.values()], counted(found.read_strictly)


def test_an_object_that_answers_only_some_questions_refuses_the_others():
    assert resolved({"consent_personalization": None}) == ([True, False, True], {"consent_half_filled": 1})
    allowed_before = [("u", True, True, True, 50)]
    assert resolved({"consent_personalization": None}, allowed_before) == (
        [True, False, True],
        {"consent_half_filled": 1},
    )


def test_an_object_that_allows_what_was_refused_is_not_believed():
    assert resolved({}, [("u", True, False, True, 50)]) == ([True, False, True], {"consent_contradicted": 1})
    assert resolved({}, [("u", True, False, True, 101)]) == ([True, True, True], {}), "refused later"
    stricter = {"consent_analytics": False}
    assert resolved(stricter, [("u", True, True, True, 50)]) == ([False, True, True], {})


def test_what_is_decided_otherwise_since_is_found():
    before = known([("u", True, True, True, 10), ("v", True, True, True, 10)], [("p", False, 10), ("q", False, 10)])
    since = [("u", True, False, True, 20), ("v", True, True, False, 20)]
    now = known(
        [("u", True, True, True, 10), ("v", True, True, True, 10), *since],
        [("p", False, 10), ("p", True, 20), ("q", False, 10)],
    )
    assert decided_otherwise(before, 15, now, 30, PERSONAL) == ({"u"}, {"p"})
    assert decided_otherwise(before, 15, now, 19, PERSONAL) == (set(), set())


def test_answers():
    yes = dict.fromkeys((Purpose.ANALYTICS, PERSONAL, Purpose.AD_TARGETING), True)
    assert consent_refusal(yes, [PERSONAL], None) is None
    assert consent_refusal({**yes, PERSONAL: False}, [PERSONAL], "US") == "consent_refused"
    assert consent_refusal({**yes, Purpose.ANALYTICS: False}, [PERSONAL], "US") == "consent_refused"
    assert consent_refusal({**yes, Purpose.AD_TARGETING: False}, [PERSONAL], "DE") is None
    assert consent_refusal({}, [PERSONAL], "US") is None
    assert consent_refusal({}, [PERSONAL], "DE") == "consent_unknown"
    assert consent_refusal({Purpose.ANALYTICS: True}, [PERSONAL], None) == "consent_unknown"
    assert profile_refusal(False, None) == "unknown_viewer"
    assert [profile_refusal(True, one) for one in (False, True, None)] == [None, "kids_profile", "kids_profile"]
