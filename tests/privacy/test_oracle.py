"""The oracle itself, against cases worked out by hand from the text, and against what must hold of any such rules.

C1 to C23 are the choices in the oracle's docstring.
"""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.purposes import Purpose
from tests.privacy import scenarios
from tests.privacy.facts import (
    ALL,
    ANONYMOUS,
    NONE,
    PER_PERSON,
    Answers,
    Description,
    Event,
    Statement,
    aggregate,
)
from tests.privacy.oracle import (
    Fallback,
    Irregular,
    Reason,
    at_ingest,
    certain_viewers,
    essential_names,
    in_build,
    left_row,
    when_serving,
)

DAY = 86_400_000
T = 10 * DAY
LATER = 40 * DAY
ESSENTIAL = essential_names()
ADULT = [Description("p", "u", False, 0)]
KIDS = [Description("p", "u", True, 0)]
US, DE = "US", "DE"


def event(market=DE, consent=None, name="playback.started", user="u", profile="p", at=T, read=T):
    return Event(name, consent is not None, at, read, user, profile, market, consent)


def fate(one, said=(), described=ADULT):
    return at_ingest(one, said, described, ESSENTIAL)


def built(one, purpose, said=(), described=ADULT, use=PER_PERSON, at=LATER):
    return set(in_build(one, purpose, use, said, described, at, ESSENTIAL).reasons)


def served(said=(), described=ADULT, purpose=Purpose.PERSONALIZATION, at=LATER, market=DE):
    return when_serving("u", "p", [purpose], said, described, at, market)


def said(at, *answers):
    return Statement("u", at, Answers(*answers) if len(answers) == 3 else answers[0])


def test_the_list_of_essential_events_is_read():
    assert {"auth.login_succeeded", "consent.changed", "profile.updated", "user.deleted"} <= ESSENTIAL
    assert "playback.started" not in ESSENTIAL


# At ingest.


def test_without_analytics_only_essential_events_are_stored():
    refusing = Answers(False, True, True)
    assert fate(event(consent=refusing)).reasons == {Reason.NO_ANALYTICS}
    stored = fate(event(consent=refusing, name="auth.login_failed"))
    assert stored.is_stored
    assert stored.tags == frozenset()  # C23


def test_a_refusal_tags_the_event():
    assert fate(event(consent=Answers(True, False, True))).tags == {"no_personalization"}
    assert fate(event(consent=Answers(True, True, False))).tags == {"no_ad_targeting"}
    assert fate(event(consent=ALL)).tags == frozenset()


@pytest.mark.parametrize(("market", "is_stored"), [(US, True), (DE, False), (None, False), ("us", False), ("", False)])
def test_without_an_object_and_a_statement_the_market_decides(market, is_stored):
    assert fate(event(market)).is_stored is is_stored


def test_without_an_object_the_latest_statement_before_the_event_decides():
    assert fate(event(US), [said(T - 1, NONE)]).reasons == {Reason.NO_ANALYTICS}
    assert fate(event(DE), [said(T - 1, ALL)]).is_stored
    assert fate(event(DE), [said(T - 2, ALL), said(T - 1, NONE)]).reasons == {Reason.NO_ANALYTICS}
    assert fate(event(DE), [said(T + 1, ALL)]).reasons == {Reason.NO_ANALYTICS}
    assert fate(event(DE), [Statement("somebody else", T - 1, ALL)]).reasons == {Reason.NO_ANALYTICS}


def test_at_the_same_millisecond_a_refusal_counts_and_a_permission_does_not_yet():
    assert fate(event(DE), [said(T, ALL)]).reasons == {Reason.NO_ANALYTICS}
    assert fate(event(US), [said(T, NONE)]).reasons == {Reason.NO_ANALYTICS}
    assert fate(event(DE), [said(T - 5, ALL), said(T - 5, NONE)]).reasons == {Reason.NO_ANALYTICS}


@pytest.mark.parametrize(
    ("consent", "odd"),
    [
        (Answers(None, True, True), Irregular.HALF_FILLED),
        (Answers(None, None, None), Irregular.HALF_FILLED),
        (Answers("true", True, True), Irregular.NOT_BOOLEAN),
        (Answers(1, True, True), Irregular.NOT_BOOLEAN),
    ],
)
def test_an_odd_object_allows_only_what_it_says_plainly_and_is_counted(consent, odd):
    dropped = fate(event(US, consent))
    assert dropped.reasons == {Reason.NO_ANALYTICS}
    assert dropped.irregular == {odd}


def test_object_and_history_must_both_allow():
    once = [said(T - 1, True, False, True)]
    stored = fate(event(consent=Answers(True, True, False)), once)
    assert (stored.answers, stored.irregular) == (Answers(True, False, False), {Irregular.CONTRADICTS_HISTORY})
    assert fate(event(consent=ALL), [said(T - 1, NONE)]).reasons == {Reason.NO_ANALYTICS}
    assert fate(event(DE, ALL)).irregular == frozenset()  # the market's default is no history


def test_a_childs_row_is_stripped_and_an_undescribed_one_waits_a_day():
    assert fate(event(consent=ALL), described=KIDS).is_stripped
    assert not fate(event(consent=ALL)).is_stripped
    waiting = fate(event(consent=ALL, read=T + 7), described=[])
    assert (waiting.is_stripped, waiting.waits_until_ms) == (False, T + 7 + DAY)
    assert fate(event(consent=NONE, name="auth.login_failed"), described=KIDS).is_stripped
    assert fate(event(US, profile=None), described=[]).waits_until_ms is None


def test_the_catalogue_concerns_nobody():
    of_nobody = replace(event(user=None, profile=None, name="title.added"), is_of_catalogue=True)
    assert fate(of_nobody).is_stored
    assert built(of_nobody, Purpose.AD_TARGETING) == set()
    assert fate(replace(of_nobody, user="u")).reasons == {Reason.NO_ANALYTICS}


# In features and training.


@pytest.mark.parametrize(
    ("consent", "allowed"),
    [
        (ALL, {Purpose.ANALYTICS, Purpose.PERSONALIZATION, Purpose.AD_TARGETING, Purpose.CONTENT_SAFETY}),
        (Answers(True, True, False), {Purpose.ANALYTICS, Purpose.PERSONALIZATION, Purpose.CONTENT_SAFETY}),
        (Answers(True, False, True), {Purpose.ANALYTICS}),
        (Answers(False, True, True), set()),
    ],
)
def test_each_purpose_asks_its_own_answers(consent, allowed):
    one = event(consent=consent)
    assert {purpose for purpose in Purpose if not built(one, purpose)} == allowed


def test_the_essential_purpose_asks_no_consent_but_takes_essential_events_only():
    assert built(event(consent=NONE, name="session.created"), Purpose.ESSENTIAL) == set()
    assert built(event(consent=ALL), Purpose.ESSENTIAL) == {Reason.NOT_ESSENTIAL}


def test_an_essential_event_enters_a_feature_only_with_consent():
    login = event(name="auth.login_succeeded")
    assert built(login, Purpose.PERSONALIZATION) == {Reason.NO_ANALYTICS, Reason.NO_PERSONALIZATION}
    assert built(login, Purpose.PERSONALIZATION, [said(0, ALL)]) == set()


def test_a_withdrawal_reaches_back_and_a_permission_does_not():
    given_once = said(0, ALL)
    gone = said(T + 1, True, False, True)
    again = said(T + 2, ALL)
    one = event()
    assert built(one, Purpose.PERSONALIZATION, [given_once, gone]) == {Reason.WITHDRAWN}
    assert built(one, Purpose.ANALYTICS, [given_once, gone]) == set()
    assert built(one, Purpose.PERSONALIZATION, [given_once, gone, again]) == set()
    assert built(one, Purpose.PERSONALIZATION, [given_once, gone, again], at=T + 2) == {Reason.WITHDRAWN}
    between = event(at=T + 1, read=T + 1)
    assert built(between, Purpose.PERSONALIZATION, [given_once, gone, again]) == {Reason.NO_PERSONALIZATION}
    assert built(one, Purpose.ANALYTICS, [said(T + 1, ALL)]) == {Reason.NO_ANALYTICS}
    assert built(one, Purpose.PERSONALIZATION, [given_once, said(LATER + 1, NONE)]) == set()


def test_withdrawn_analytics_ends_personalization_too():
    history = [said(0, ALL), said(T + 1, False, True, True)]
    assert built(event(), Purpose.PERSONALIZATION, history) == {Reason.WITHDRAWN}


def test_a_published_aggregate_keeps_what_was_allowed_at_its_boundary():
    history = [said(0, ALL), said(T + 100, NONE)]
    ask = Purpose.PERSONALIZATION
    assert built(event(), ask, history, use=aggregate(20, T + 99)) == set()
    assert built(event(), ask, history, use=aggregate(20, T + 100)) == {Reason.WITHDRAWN}
    assert built(event(), ask, history, use=aggregate(19, T + 99)) == {Reason.WITHDRAWN}
    assert built(event(), ask, use=aggregate(20, T + 99)) == {Reason.NO_ANALYTICS, Reason.NO_PERSONALIZATION}


def test_a_childs_row_is_in_large_aggregates_and_anonymous_safety_sets_only():
    one = event(consent=ALL)
    large, small = aggregate(20, LATER), aggregate(19, LATER)
    found = {
        (purpose, use.form, use.viewers)
        for purpose in Purpose
        for use in (PER_PERSON, ANONYMOUS, large, small)
        if not built(one, purpose, described=KIDS, use=use)
    }
    assert found == {
        (Purpose.ANALYTICS, "aggregate", 20),
        (Purpose.PERSONALIZATION, "aggregate", 20),
        (Purpose.CONTENT_SAFETY, "aggregate", 20),
        (Purpose.CONTENT_SAFETY, "anonymous", 0),
    }
    login = event(consent=NONE, name="auth.login_failed")
    assert built(login, Purpose.ESSENTIAL, described=KIDS) == {Reason.KIDS}
    assert built(login, Purpose.ESSENTIAL, described=KIDS, use=large) == set()
    refusing = event(consent=Answers(True, False, True))
    assert built(refusing, Purpose.CONTENT_SAFETY, described=KIDS, use=ANONYMOUS) == {Reason.NO_PERSONALIZATION}


def test_a_child_found_later_is_a_child_before_and_a_grown_up_one_only_after():
    one = event(consent=ALL)
    found_later = [*ADULT, Description("p", "u", True, T + 5)]
    grew_up = [*KIDS, Description("p", "u", False, T + 5)]
    assert built(one, Purpose.ANALYTICS, described=found_later) == {Reason.KIDS}
    assert built(one, Purpose.ANALYTICS, described=found_later, at=T + 4) == set()
    assert built(one, Purpose.ANALYTICS, described=grew_up) == {Reason.KIDS}
    assert built(event(consent=ALL, at=T + 6, read=T + 6), Purpose.ANALYTICS, described=grew_up) == set()
    assert built(event(consent=ALL, at=T + 5, read=T + 5), Purpose.ANALYTICS, described=grew_up) == {Reason.KIDS}


def test_an_undescribed_row_waits_and_is_then_a_childs_for_good():
    one = event(consent=ALL, read=T + 10)
    until = T + 10 + DAY
    large = aggregate(20, T + 1)
    assert built(one, Purpose.ANALYTICS, described=[], use=large, at=until - 1) == {Reason.UNDESCRIBED}
    assert built(one, Purpose.ANALYTICS, described=[], use=large, at=until) == set()
    assert built(one, Purpose.ANALYTICS, described=[], at=until) == {Reason.KIDS}
    just_in_time, too_late = Description("p", "u", False, until - 1), Description("p", "u", False, until)
    assert built(one, Purpose.ANALYTICS, described=[just_in_time]) == set()
    assert built(one, Purpose.ANALYTICS, described=[too_late]) == {Reason.KIDS}


def test_a_withdrawal_reaches_a_childs_row_until_its_ids_are_gone():
    history = [said(0, ALL), said(T + 5, NONE)]
    large = aggregate(20, LATER)
    assert built(event(), Purpose.ANALYTICS, history, KIDS, large) == set()
    read_later = event(read=T + 10)
    assert built(read_later, Purpose.ANALYTICS, history, KIDS, large) == set()
    assert built(read_later, Purpose.ANALYTICS, history, ADULT, large) == {Reason.WITHDRAWN}
    waited = event(read=T)
    after_the_day = [said(0, ALL), said(T + DAY, NONE)]
    assert built(waited, Purpose.ANALYTICS, after_the_day, [], large) == {Reason.WITHDRAWN}
    assert built(waited, Purpose.ANALYTICS, [said(0, ALL), said(T + DAY + 1, NONE)], [], large) == set()
    found_before = [*ADULT, Description("p", "u", True, T + 4)]
    found_after = [*ADULT, Description("p", "u", True, T + 6)]
    assert built(event(), Purpose.ANALYTICS, history, found_before, large) == set()
    assert built(event(), Purpose.ANALYTICS, history, found_after, large) == {Reason.WITHDRAWN}


def test_a_row_without_a_user_is_a_row_of_its_profiles_user():
    nameless = event(US, ALL, user=None)
    assert built(nameless, Purpose.ANALYTICS) == set()
    assert built(nameless, Purpose.ANALYTICS, [said(T + 1, NONE)]) == {Reason.WITHDRAWN}
    assert fate(nameless, [said(T - 1, NONE)]).reasons == {Reason.NO_ANALYTICS}


def test_a_left_table_row_obeys_the_same_rules():
    row = left_row("u", "p", T, DE)
    assert built(row, Purpose.PERSONALIZATION, [said(0, ALL)]) == set()
    assert built(row, Purpose.PERSONALIZATION, [said(0, ALL), said(T + 1, NONE)]) == {Reason.WITHDRAWN}
    assert built(row, Purpose.PERSONALIZATION, [said(0, ALL)], KIDS) == {Reason.KIDS}


def test_children_are_counted_by_their_busiest_day():
    assert certain_viewers(["a", "b"], {1: ["x"], 2: ["y"], 3: ["z"]}) == 3
    assert certain_viewers(["a", "a"], {1: ["x", "y"], 2: ["y"]}) == 3
    assert certain_viewers([], {}) == 0


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="before the server received it"):
        event(at=T, read=T - 1)
    with pytest.raises(ValueError, match="before the event was read"):
        built(event(read=T + 5), Purpose.ANALYTICS, at=T)
    for boundary in (T, LATER + 1):
        with pytest.raises(ValueError, match="boundary"):
            built(event(), Purpose.ANALYTICS, use=aggregate(20, boundary))


# When serving.


def test_serving_is_personal_only_for_an_adult_who_allows_it():
    assert served([said(0, ALL)]).fallback is None
    assert served([said(0, ALL)]).may_be_logged
    assert served(market=US).fallback is None
    assert served(market=None).fallback is Fallback.NON_PERSONAL
    refused = served([said(0, True, False, True)])
    assert (refused.fallback, refused.reasons) == (Fallback.NON_PERSONAL, {Reason.NO_PERSONALIZATION})
    assert refused.may_be_logged


def test_serving_says_that_consent_was_withdrawn_and_logs_nothing_without_analytics():
    answer = served([said(0, ALL), said(5, NONE)])
    assert answer.fallback is Fallback.NON_PERSONAL
    assert answer.reasons == {Reason.NO_ANALYTICS, Reason.NO_PERSONALIZATION, Reason.WITHDRAWN}
    assert not answer.may_be_logged
    essential = served([said(0, NONE)], purpose=Purpose.ESSENTIAL)
    assert (essential.fallback, essential.may_be_logged) == (None, False)


@pytest.mark.parametrize(("described", "reason"), [(KIDS, Reason.KIDS), ([], Reason.UNDESCRIBED)])
@pytest.mark.parametrize("purpose", Purpose)
def test_a_child_and_an_undescribed_profile_get_titles_for_children(described, reason, purpose):
    answer = served([said(0, ALL)], described, purpose)
    assert (answer.fallback, answer.reasons, answer.may_be_logged) == (Fallback.KIDS_TITLES, {reason}, False)


def test_serving_asks_the_profile_as_it_is_now():
    grew_up = [*KIDS, Description("p", "u", False, T)]
    assert served([said(0, ALL)], grew_up, at=T + 1).fallback is None
    assert served([said(0, ALL)], grew_up, at=T).fallback is Fallback.KIDS_TITLES
    assert served([said(0, ALL)], [*ADULT, Description("p", "u", True, T)], at=T).fallback is Fallback.KIDS_TITLES


def test_a_request_needs_a_purpose_and_a_viewer():
    with pytest.raises(ValueError, match="no purpose"):
        when_serving("u", "p", [], [], ADULT, T, US)
    assert when_serving(None, None, [Purpose.ANALYTICS], [], [], T, US).reasons == {Reason.NOBODY}


def test_of_several_purposes_all_must_be_allowed():
    purposes = [Purpose.PERSONALIZATION, Purpose.AD_TARGETING]
    answer = when_serving("u", "p", purposes, [said(0, True, True, False)], ADULT, T, US)
    assert answer.reasons == {Reason.NO_AD_TARGETING}


def test_the_consent_of_the_callers_token_is_asked_too():
    answer = when_serving("u", "p", [Purpose.PERSONALIZATION], [said(0, ALL)], ADULT, T, US, Answers(True, False, True))
    assert answer.reasons == {Reason.NO_PERSONALIZATION}


# The matrix and the histories.


def test_the_full_matrix_has_every_cell_once_and_both_answers_everywhere():
    layers = Counter()
    allowed = Counter()
    labels = set()
    for scenario in scenarios.full_matrix():
        labels.add(scenario.label)
        for case in scenarios.cases(scenario, ESSENTIAL):
            cell = (case.layer, case.purpose)
            layers[cell] += 1
            allowed[cell] += _is_allowed(case)
    assert len(labels) == scenarios.SCENARIOS == 7_488
    assert sum(layers.values()) == scenarios.CASES == 232_128
    assert set(layers.values()) == {7_488}
    assert len(layers) == 1 + 5 * 6
    assert all(0 < allowed[cell] < layers[cell] for cell in layers)


def _is_allowed(case):
    if case.layer is scenarios.Layer.INGEST:
        return case.expected.is_stored
    if case.layer is scenarios.Layer.SERVING:
        return case.expected.fallback is None
    return case.expected.allowed


@settings(deadline=None, derandomize=True)
@given(scenarios.worlds(max_events=1), st.sampled_from(Purpose), st.sampled_from([PER_PERSON, ANONYMOUS]))
def test_no_refusal_ever_allows_more(world, purpose, use):
    (one,) = world.events

    def allowed(told, described=world.descriptions):
        return in_build(one, purpose, use, told, described, world.built_ms, ESSENTIAL).allowed

    before = allowed(world.statements)
    for at in {one.at_ms, one.ingested_ms, world.built_ms}:
        assert allowed([*world.statements, Statement("anna", at, NONE), Statement("ben", at, NONE)]) <= before
    if one.profile is not None and use is PER_PERSON:
        child = Description(one.profile, "anna", True, world.built_ms)
        assert not allowed(world.statements, [*world.descriptions, child])


@settings(deadline=None, derandomize=True)
@given(scenarios.worlds(max_events=1), st.data())
def test_what_was_not_stored_is_in_no_build(world, data):
    (one,) = world.events
    if at_ingest(one, world.statements, world.descriptions, ESSENTIAL).is_stored or one.at_ms == world.built_ms:
        return
    use = aggregate(20, data.draw(scenarios.boundaries(one, world.built_ms)))
    for purpose in Purpose:
        verdict = in_build(one, purpose, use, world.statements, world.descriptions, world.built_ms, ESSENTIAL)
        assert not verdict.allowed
