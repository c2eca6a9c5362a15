"""The door: who comes in, who is turned away and why, and what an event may still say about a person inside."""

import dataclasses
import hashlib
import ipaddress
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.consent import ConsentHistory
from features.decision import Registries
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from pipelines.contract.essential import essential_events
from pipelines.contract.events import load_contract
from pipelines.door import Door, truncate_addresses
from pipelines.erased import Tombstones
from pipelines.lakehouse import tables
from pipelines.settings_section import PROJECT_ROOT
from tests.pipelines.event_rows import example_row, flat_rows, table_of

CONTRACT = load_contract(PROJECT_ROOT / "configs" / "schemas")
EVENTS = CONTRACT.events
CLIENT_EVENTS = [event for event in EVENTS if event.topic.startswith("client.")]
ESSENTIAL = {"profile.updated", "consent.changed", "user.deleted"}  # spec 8.1: without them consent could not be kept
SALT = "the newest salt"
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
IDS = ("user_id", "profile_id", "session_id", "device_id")
CONSENTS = ("consent_analytics", "consent_personalization", "consent_ad_targeting")
ALLOWED, REFUSED, UNASKED = (dict.fromkeys(CONSENTS, answer) for answer in (True, False, None))
any_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def hashed(plain):
    return None if plain is None else sha256(plain + SALT)


def door(consents=(), profiles=()):
    """A door that knows consents of (user, allows all three, since) and profiles of (profile, is a child's, since)."""
    said = [
        {
            "user_id": hashed(user),
            **dict.fromkeys(("allows_analytics", "allows_personalization", "allows_ad_targeting"), answer),
            "event_timestamp": at,
        }
        for user, answer, at in consents
    ]
    described = [
        {"profile_id": hashed(profile), "is_kids": is_kids, "event_timestamp": at} for profile, is_kids, at in profiles
    ]
    return Door(
        Pseudonymizer(("an old salt", SALT)),
        Registries(
            ConsentHistory.of(pa.Table.from_pylist(said, schema=tables.CONSENTS)),
            ProfileRegistry.of(pa.Table.from_pylist(described, schema=tables.PROFILES)),
            frozenset(ESSENTIAL),
        ),
    )


def row(event, **changes):
    """An ordinary row of a grown-up who allowed everything, as `changes` has it."""
    ordinary = {
        **example_row(event, 1),
        "event_timestamp": MIDNIGHT,
        "source": "CLIENT" if event in CLIENT_EVENTS else "SERVER",
        **ALLOWED,
        **{name: f"plain {name}" for name in IDS},
        "market": "GB",
        "ip": "203.0.113.77",
        "user_agent": "Mozilla/5.0 (Jane's television)",
    }
    return {**ordinary, **{name: value for name, value in changes.items() if name in ordinary}}


def admit(event, *rows, at=None):
    return (at or door()).admit(event, table_of(event, rows))


STARTED = CONTRACT.event("playback.started")


@pytest.mark.parametrize(
    ("own", "said", "market", "allowed"),
    [
        (ALLOWED, [], "GB", True),
        (REFUSED, [], "US", False),
        (REFUSED, [("plain user_id", True, MIDNIGHT)], "US", False),
        (ALLOWED, [("plain user_id", False, MIDNIGHT)], "GB", False),
        (ALLOWED, [("plain user_id", False, MIDNIGHT + timedelta(milliseconds=1))], "GB", True),
        (UNASKED, [], "US", True),
        (UNASKED, [], "GB", False),
        (UNASKED, [], None, False),
        (UNASKED, [("plain user_id", True, MIDNIGHT)], "GB", True),
        (UNASKED, [("plain user_id", False, MIDNIGHT)], "US", False),
        (UNASKED, [("plain user_id", True, MIDNIGHT + timedelta(milliseconds=1))], "GB", False),
        (UNASKED, [("somebody else", True, MIDNIGHT)], "GB", False),
    ],
)
@any_event
def test_without_analytics_only_essential_and_catalogue_events_are_kept(event, own, said, market, allowed):
    catalogue = event.consent_category == "none"
    person = {} if not catalogue else dict.fromkeys(IDS)
    admission = admit(event, row(event, **own, market=market, **person), at=door(consents=said))
    kept = allowed or catalogue or event.name in ESSENTIAL
    assert admission.kept.tolist() == ([0] if kept else [])
    assert admission.rows.num_rows == len(admission.kept)
    assert admission.dropped == ({} if kept else {"analytics_refused": 1})
    assert admission.rejected == {}
    if kept and not catalogue:
        assert [admission.rows[name].to_pylist() for name in CONSENTS] == [[allowed]] * 3


def test_the_essential_events_of_the_project():
    assert essential_events(CONTRACT) >= ESSENTIAL
    assert {event.name for event in EVENTS} >= ESSENTIAL


def test_what_may_not_personalize_is_kept_and_says_so():
    admission = admit(STARTED, row(STARTED, consent_personalization=False), row(STARTED, consent_ad_targeting=False))
    assert admission.rows.select(CONSENTS).to_pylist() == [
        {**ALLOWED, "consent_personalization": False},
        {**ALLOWED, "consent_ad_targeting": False},
    ]


@any_event
def test_ids_are_salted_hashes_and_no_plain_one_is_anywhere(event):
    plain = row(event, event_id="evt_1")
    admission = admit(event, plain)
    (stored,) = admission.rows.to_pylist()
    assert {name: stored[name] for name in IDS} == {name: sha256(f"plain {name}" + SALT) for name in IDS}
    assert stored["viewer_token"] == stored["profile_id"]
    assert "user_agent" not in stored
    for value in stored.values():
        for private in (*(plain[name] for name in IDS), plain["user_agent"], "203.0.113.77"):
            assert private not in str(value)


@any_event
def test_nothing_else_of_an_event_changes(event):
    plain = row(event)
    (stored,) = admit(event, plain).rows.to_pylist()
    touched = {*IDS, "ip", "user_agent", "is_kids"}
    assert {name: stored[name] for name in event.arrow.names if name not in touched} == {
        name: value for name, value in table_of(event, [plain]).to_pylist()[0].items() if name not in touched
    }


@any_event
def test_a_childs_event_has_no_id_and_a_token_of_the_day(event):
    last = MIDNIGHT - timedelta(milliseconds=1)
    instants = [last - timedelta(hours=1), last, MIDNIGHT, MIDNIGHT + timedelta(hours=23, minutes=59)]
    rows = [row(event, profile_id="child", event_timestamp=at) for at in instants]
    rows.append(row(event, profile_id="another child"))
    rows.append(row(event, profile_id="adult"))
    since = datetime(2026, 1, 1, tzinfo=UTC)
    known = [("child", True, since), ("another child", True, since), ("adult", False, since)]
    stored = admit(event, *rows, at=door(profiles=known)).rows

    for name in IDS:
        assert stored[name].null_count == 5
    assert stored["is_kids"].to_pylist() == [True] * 5 + [False]
    assert stored["profile_described"].to_pylist() == [True] * 6
    before, eve, day, evening, another, adult = stored["viewer_token"].to_pylist()
    assert before == eve
    assert day == evening
    assert len({eve, day, another, adult}) == 4
    assert adult == hashed("adult")
    # What anyone without the salt could make of what is known of the child.
    guesses = {hashed("child"), sha256("child"), sha256("child2026-03-01"), sha256(hashed("child") + "2026-03-01")}
    assert not guesses & {eve, day}
    other_salt = Door(Pseudonymizer(("other",)), door(profiles=known).known)
    assert not {*other_salt.admit(event, table_of(event, rows)).rows["viewer_token"].to_pylist()} & {eve, day}


def test_a_profile_nobody_described_waits_with_its_ids():
    rows = [row(STARTED, profile_id="stranger"), row(STARTED, profile_id=None)]
    stranger, nobody = admit(STARTED, *rows).rows.to_pylist()
    assert (stranger["is_kids"], stranger["profile_described"]) == (None, False)
    assert stranger["viewer_token"] == stranger["profile_id"] == hashed("stranger")
    assert (nobody["is_kids"], nobody["profile_described"], nobody["viewer_token"]) == (False, None, None)


def test_a_description_holds_from_its_instant_and_the_first_also_before():
    known = [("p", False, MIDNIGHT), ("p", True, MIDNIGHT + timedelta(hours=1))]
    rows = [
        row(STARTED, profile_id="p", event_timestamp=MIDNIGHT + timedelta(minutes=minutes)) for minutes in (-5, 59, 60)
    ]
    assert admit(STARTED, *rows, at=door(profiles=known)).rows["is_kids"].to_pylist() == [False, False, True]


@pytest.mark.parametrize("event", CLIENT_EVENTS, ids=lambda event: event.name)
def test_a_client_event_needs_a_session(event):
    admission = admit(event, row(event), row(event, session_id=None), row(event))
    assert admission.kept.tolist() == [0, 2]
    assert {reason: at.tolist() for reason, at in admission.rejected.items()} == {"missing_session_id": [1]}


@pytest.mark.parametrize(
    "event", [event for event in EVENTS if event not in CLIENT_EVENTS], ids=lambda event: event.name
)
def test_a_servers_event_needs_none(event):
    assert admit(event, row(event, session_id=None)).kept.tolist() == [0]


@any_event
def test_an_event_by_another_name_is_set_aside(event):
    admission = admit(event, row(event, event_name="playback.startled"), row(event), row(event, event_name=""))
    assert admission.kept.tolist() == [1]
    assert {reason: at.tolist() for reason, at in admission.rejected.items()} == {"wrong_event_name": [0, 2]}


def test_a_set_aside_event_counts_once_even_when_it_is_wrong_twice():
    admission = admit(STARTED, row(STARTED, event_name="x", session_id=None, event_id=""), row(STARTED, event_id=""))
    assert {reason: at.tolist() for reason, at in admission.rejected.items()} == {
        "wrong_event_name": [0],
        "missing_event_id": [1],
    }


def test_a_catalogue_event_is_nobodys():
    event = CONTRACT.event("title.added")
    plain = row(event, **UNASKED, **dict.fromkeys(IDS), market=None, ip=None, user_agent=None)
    (stored,) = admit(event, plain, at=door(consents=[("plain user_id", False, MIDNIGHT)])).rows.to_pylist()
    assert stored["viewer_token"] is None
    assert stored["is_kids"] is False
    assert stored["title"] == plain["title"]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("playback.error", "error_message"),
        ("playback.requested", "referrer"),
        ("app.background", "active_screen"),
        ("subscription.cancelled", "cancel_reason"),
    ],
)
def test_personal_data_in_free_text_is_replaced(name, column):
    event = CONTRACT.event(name)
    admission = admit(event, row(event, **{column: "for jane@example.com, +44 7700 900123"}), row(event))
    assert admission.rows[column].to_pylist() == ["for <email>, <phone>", example_row(event, 1)[column]]


addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)


@settings(deadline=None)
@given(st.lists(addresses.map(str) | st.none() | st.text(max_size=8), max_size=10))
def test_addresses_are_cut_to_24_or_48_bits(texts):
    for text, cut in zip(texts, truncate_addresses(pa.chunked_array([pa.array(texts, pa.string())])), strict=True):
        try:
            address = ipaddress.ip_address(text) if text is not None else None
        except ValueError:
            address = None
        if address is None:
            assert cut.as_py() is None
            continue
        network = ipaddress.ip_network(cut.as_py(), strict=True)  # strict: no bit behind the prefix
        assert address in network
        assert network.prefixlen == (24 if address.version == 4 else 48)


@pytest.mark.parametrize(
    ("plain", "cut"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:85a3:1234:5678:8a2e:370:7334", "2001:db8:85a3::/48"),
        ("::ffff:203.0.113.77", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("203.0.113.77:443", None),
        ("localhost", None),
        ("", None),
        (None, None),
    ],
)
def test_addresses_by_hand(plain, cut):
    assert admit(STARTED, row(STARTED, ip=plain)).rows["ip"].to_pylist() == [cut]


@any_event
def test_no_events(event):
    admission = admit(event)
    assert admission.rows.num_rows == 0
    assert (admission.kept.tolist(), admission.rejected, admission.dropped) == ([], {}, {})
    assert admission.rows.column_names == admit(event, row(event)).rows.column_names


def fate(event, plain):
    """What must become of a row, by the rules alone: kept, dropped, or the reason it is set aside for."""
    if plain["event_name"] != event.name:
        return "wrong_event_name"
    if event in CLIENT_EVENTS and plain["session_id"] is None:
        return "missing_session_id"
    if plain["event_id"] == "":
        return "missing_event_id"
    of_a_person = plain["source"] == "CLIENT" or plain["user_id"] is not None or plain["profile_id"] is not None
    own = plain["consent_analytics"]
    allowed = own if own is not None else plain["market"] == "US"
    return "kept" if allowed or not of_a_person or event.name in ESSENTIAL else "analytics_refused"


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), event=st.sampled_from(EVENTS))
def test_every_event_has_exactly_one_fate(data, event):
    names = st.sampled_from([event.name, event.name, event.name, "another"])
    few = flat_rows(event).flatmap(
        lambda plain: st.builds(
            lambda name, market: {**plain, "event_name": name, "market": market}, names, st.sampled_from(["US", "GB"])
        )
    )
    rows = data.draw(st.lists(few, max_size=8))
    admission = admit(event, *rows)
    fates = [fate(event, plain) for plain in rows]
    assert admission.kept.tolist() == [number for number, one in enumerate(fates) if one == "kept"]
    assert admission.rows["event_id"].to_pylist() == [rows[number]["event_id"] for number in admission.kept]
    aside = {reason: at.tolist() for reason, at in admission.rejected.items()}
    assert aside == {
        reason: [number for number, one in enumerate(fates) if one == reason]
        for reason in {*fates} - {"kept", "analytics_refused"}
    }
    assert admission.dropped == {name: n for name, n in Counter(fates).items() if name == "analytics_refused"}
    together = np.concatenate([admission.kept, *admission.rejected.values()])
    assert (
        len(set(together.tolist())) + sum(admission.dropped.values())
        == len(together) + fates.count("analytics_refused")
        == len(rows)
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_events_of_several_schemas_are_admitted_at_once_as_they_are_one_by_one(data):
    names = st.sampled_from([None, "eve", "ada", "bob"])
    changes = st.fixed_dictionaries(
        {
            "user_id": names,
            "profile_id": names,
            "session_id": st.sampled_from([None, "one", "two"]),
            "event_id": st.sampled_from(["", "an id"]),
            "market": st.sampled_from(["GB", "DE", "US"]),
            **dict.fromkeys(CONSENTS, st.sampled_from([None, True, False])),
        }
    )
    parts = [
        (event, table_of(event, [row(event, **one) for one in data.draw(st.lists(changes, max_size=4))]))
        for event in data.draw(st.lists(st.sampled_from(EVENTS), max_size=5))
    ]
    before = MIDNIGHT - timedelta(days=1)
    knowing = door(
        consents=[("eve", False, before), ("ada", True, before)],
        profiles=[("bob", True, before), ("ada", False, before)],
    )
    mark = bytes.fromhex(Tombstones(b"key").mark("user", "ada"))
    erased = Tombstones(b"key", {"user": frozenset({mark})})
    knowing = dataclasses.replace(knowing, erased=data.draw(st.sampled_from([knowing.erased, erased])))
    together = knowing.admit_each(parts)
    assert len(together) == len(parts)
    for (event, events), found in zip(parts, together, strict=True):
        alone = knowing.admit(event, events)
        assert {**found.dropped} == {**alone.dropped}
        assert {**found.restricted} == {**alone.restricted}
        assert found.kept.tolist() == alone.kept.tolist()
        assert {why: at.tolist() for why, at in found.rejected.items()} == {
            why: at.tolist() for why, at in alone.rejected.items()
        }
        missing = set(found.rows.column_names) - set(alone.rows.column_names)
        assert all(found.rows[name].null_count == found.rows.num_rows for name in missing)
        assert found.rows.select(alone.rows.column_names).to_pylist() == alone.rows.to_pylist()
