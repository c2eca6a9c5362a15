"""Consent: every combination of what the event says, what was said before and since, the market and the profile."""

from collections import Counter
from dataclasses import replace
from itertools import product

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.consent import ConsentHistory, market_default
from features.decision import (
    PurposeNotDecidableError,
    Registries,
    decide,
    decide_for_aggregates,
    decided_otherwise,
    required_consents,
    resolve,
)
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from tests.features.consent_oracle import (
    NEEDS,
    QUESTIONS,
    Choices,
    Event,
    Statement,
    allowed_when_received,
    latest,
    verdict,
    withdrawn_by,
)

TIMESTAMP = pa.timestamp("ms", tz="UTC")
REASONS = {"kids": "kids_profile", "refused": "refused_on_event", "withdrawn": "withdrawn_since"}

RECEIVED_MS = 1_000_000
BUILD_MS = 2_000_000
YES, NO = Choices(True, True, True), Choices(False, False, False)
OWN = [Choices(*answers) for answers in product([None, True, False], repeat=3)]
SAID = {
    "nothing": [],
    "yes before": [(10, YES)],
    "no before": [(10, NO)],
    "only ads refused": [(10, Choices(True, True, False))],
    "only analytics refused": [(10, Choices(False, True, True))],
    "yes at the very instant": [(RECEIVED_MS, YES)],
    "no at the very instant": [(RECEIVED_MS, NO)],
    "yes, then no before the event": [(10, YES), (20, NO)],
    "yes, no since": [(10, YES), (RECEIVED_MS + 1, NO)],
    "yes, no since, yes again": [(10, YES), (RECEIVED_MS + 1, NO), (RECEIVED_MS + 2, YES)],
    "yes, no and yes again before": [(10, YES), (20, NO), (30, YES)],
    "yes known only later": [(RECEIVED_MS + 1, YES)],
    "no known only later": [(RECEIVED_MS + 1, NO)],
    "no at the instant of the build": [(10, YES), (BUILD_MS, NO)],
    "no after the build": [(10, YES), (BUILD_MS + 1, NO)],
    "yes only after the build": [(BUILD_MS + 1, YES)],
}
MARKETS = ["US", "GB", "us", "", None]
CONSENT_PURPOSES = [Purpose.ANALYTICS, Purpose.PERSONALIZATION, Purpose.AD_TARGETING]
NO_PROFILES = pa.table({"profile_id": [], "is_kids": [], "event_timestamp": pa.array([], TIMESTAMP)})


def events_table(events):
    return pa.table(
        {
            "user_id": pa.array([event.user_id for event in events], pa.string()),
            "market": pa.array([event.market for event in events], pa.string()),
            "event_timestamp": pa.array([event.at_ms for event in events], TIMESTAMP),
            "is_kids": pa.array([event.is_kids for event in events], pa.bool_()),
            **{
                f"consent_{question}": pa.array([getattr(event.own, question) for event in events], pa.bool_())
                for question in QUESTIONS
            },
        }
    )


def known(history):
    return Registries(history, ProfileRegistry.of(NO_PROFILES))


def history_of(statements, unit="us"):
    return ConsentHistory.of(consents_table(list(statements), unit))


def consents_table(statements, unit="us"):
    return pa.table(
        {
            "user_id": pa.array([one.user_id for one in statements], pa.string()),
            "event_timestamp": pa.array([one.at_ms for one in statements], TIMESTAMP).cast(
                pa.timestamp(unit, tz="UTC")
            ),
            **{
                f"allows_{question}": pa.array([getattr(one.choices, question) for one in statements], pa.bool_())
                for question in QUESTIONS
            },
        }
    )


def matrix():
    """Every combination, each with a user of its own so that no history touches another's."""
    events, statements = [], []
    for number, (own, said, market, is_kids) in enumerate(product(OWN, SAID, MARKETS, [False, True, None])):
        user = f"user-{number}"
        events.append(Event(RECEIVED_MS, user, market, own, is_kids))
        statements.append([Statement(user, at_ms, choices) for at_ms, choices in SAID[said]])
    return events, statements


def check(events, statements, build_ms):
    """`resolve` and `decide` against the oracle; `statements[i]` are those that may concern `events[i]`."""
    history = history_of({one: None for few in statements for one in few})
    resolved = resolve(events_table(events), history).events
    cases = list(zip(events, statements, strict=True))
    for question in QUESTIONS:
        expected = [allowed_when_received(event, question, said) for event, said in cases]
        assert resolved[f"consent_{question}"].to_pylist() == expected
    for purpose in CONSENT_PURPOSES:
        decision = decide(resolved, purpose, known(history), build_ms)
        verdicts = [verdict(event, str(purpose), said, build_ms) for event, said in cases]
        assert decision.allowed.tolist() == [one == "allowed" for one in verdicts]
        assert decision.excluded == {REASONS[one]: n for one, n in Counter(verdicts).items() if one != "allowed"}


def test_the_whole_matrix():
    events, statements = matrix()
    check(events, statements, BUILD_MS)


def test_the_matrix_holds_every_verdict():
    events, statements = matrix()
    for purpose in CONSENT_PURPOSES:
        verdicts = {
            verdict(event, str(purpose), said, BUILD_MS) for event, said in zip(events, statements, strict=True)
        }
        assert verdicts == {"allowed", *REASONS}


answers = st.sampled_from([None, True, False])
instants = st.integers(-3, 6)
users = st.sampled_from(["a", "b", "c", None])
some_events = st.lists(
    st.builds(Event, instants, users, st.sampled_from(MARKETS), st.builds(Choices, answers, answers, answers), answers),
    max_size=12,
)
some_statements = st.lists(
    st.builds(Statement, st.sampled_from("abc"), instants, st.builds(Choices, *[st.booleans()] * 3)), max_size=12
)


@settings(deadline=None)
@given(events=some_events, statements=some_statements, build_ms=instants)
def test_any_history(events, statements, build_ms):
    check(events, [statements] * len(events), build_ms)


@settings(deadline=None)
@given(events=some_events, statements=some_statements)
def test_published_aggregates_ask_only_what_each_event_allowed(events, statements):
    resolved = resolve(events_table(events), history_of(statements)).events
    for purpose in CONSENT_PURPOSES:
        decision = decide_for_aggregates(resolved, purpose, known(history_of(statements)), 0).decision
        assert decision.allowed.tolist() == [
            event.is_kids is not None
            and all(allowed_when_received(event, question, statements) for question in NEEDS[purpose])
            for event in events
        ]


@settings(deadline=None)
@given(statements=some_statements, order=st.randoms(use_true_random=False))
def test_the_order_in_which_a_history_is_read_does_not_matter(statements, order):
    shuffled = statements.copy()
    order.shuffle(shuffled)
    asked = [(user, instant) for user in "abcd" for instant in range(-4, 8)]
    series = pl.Series([user for user, _ in asked]), pl.Series([instant for _, instant in asked])
    known = history_of(shuffled).as_known_at(*series)
    expected = [latest(statements, user, instant) for user, instant in asked]
    assert known.rows() == [(one.analytics, one.personalization, one.ad_targeting) for one in expected]


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_timestamps_of_kafka_and_of_iceberg_mean_the_same(unit):
    statements = [Statement("a", RECEIVED_MS + 1, NO)]
    event = Event(RECEIVED_MS, "a", "US", Choices())
    table = events_table([event, replace(event, at_ms=RECEIVED_MS + 1)])
    table = table.set_column(2, "event_timestamp", table["event_timestamp"].cast(pa.timestamp(unit, tz="UTC")))
    assert resolve(table, history_of(statements, unit)).events["consent_analytics"].to_pylist() == [True, False]


def test_a_table_of_several_chunks_keeps_its_order():
    events = [Event(at_ms, user, market, Choices()) for at_ms, user, market in product([5, 1], "ab", ["US", "GB"])]
    statements = [Statement("a", 3, NO), Statement("b", 3, YES)]
    table = pa.concat_tables([events_table(events[:3]), events_table([]), events_table(events[3:])])
    assert table["market"].num_chunks > 1
    resolved = resolve(table, history_of(statements)).events
    assert resolved["consent_personalization"].to_pylist() == [
        allowed_when_received(event, "personalization", statements) for event in events
    ]


def test_resolving_touches_nothing_but_the_consent_columns():
    events, statements = matrix()
    table = events_table(events)
    resolved = resolve(table, history_of([one for few in statements for one in few])).events
    assert resolved.column_names == table.column_names
    for name in ("user_id", "market", "event_timestamp", "is_kids"):
        assert resolved[name].equals(table[name])


def test_no_rows_and_no_history():
    empty = events_table([])
    resolved = resolve(empty, history_of([])).events
    assert resolved.num_rows == 0
    decision = decide(resolved, Purpose.PERSONALIZATION, known(history_of([])), BUILD_MS)
    assert decision.allowed.tolist() == []
    assert decision.excluded == {}


def test_nothing_about_people_is_made_for_what_asks_no_consent():
    with pytest.raises(PurposeNotDecidableError, match=r"essential.*declare one of analytics, personalization"):
        required_consents(Purpose.ESSENTIAL)


def test_only_the_united_states_are_opt_out():
    assert market_default("US")
    assert not any(market_default(market) for market in ("GB", "DE", "us", "USA", "", None))


SALTS = ("an old salt", "the newest salt")


@settings(deadline=None)
@given(events=some_events, statements=some_statements, old=st.lists(st.booleans(), min_size=12, max_size=12))
def test_a_history_under_several_salts_is_one_history(events, statements, old):
    hasher = Pseudonymizer(SALTS)
    stored = [
        replace(one, user_id=hasher.candidates(one.user_id)[is_old])  # newest salt first
        for one, is_old in zip(statements, old, strict=False)
    ]
    table = events_table(events)
    resolved = resolve(table, history_of(stored), hasher.pseudonyms(table["user_id"])).events
    for question in QUESTIONS:
        expected = [allowed_when_received(event, question, statements) for event in events]
        assert resolved[f"consent_{question}"].to_pylist() == expected


@given(st.lists(st.tuples(st.sampled_from("abc"), instants, st.booleans(), st.booleans()), max_size=8), st.data())
def test_who_has_given_or_withdrawn_since_is_found(said, data):
    now = [Statement(user, at_ms, Choices(one, other, True)) for user, at_ms, one, other in dict.fromkeys(said)]
    before = now[: data.draw(st.integers(0, len(now)))]
    before_ms = data.draw(instants)
    now_ms = before_ms + data.draw(st.integers(0, 4))

    def refuses(user, history, at_ms):
        event = Event(-9, user, "US", YES, is_kids=False)
        return any(withdrawn_by(event, one, history, at_ms) for one in NEEDS["personalization"])

    expected = {user for user in "abc" if refuses(user, before, before_ms) != refuses(user, now, now_ms)}
    then, later = known(history_of(before)), known(history_of(now))
    assert decided_otherwise(then, before_ms, later, now_ms, Purpose.PERSONALIZATION) == (expected, set())
