"""What the rules are tried on: the full matrix, one row for every combination, and random histories full of ties.

`full_matrix` gives scenarios whose users and profiles are all different, so that they can be poured into one table;
`cases` asks the oracle about one of them, in every layer, for every purpose.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from hypothesis import strategies as st

from features.purposes import Purpose
from tests.privacy import oracle
from tests.privacy.facts import (
    ALL,
    ANONYMOUS,
    ANSWERS,
    PER_PERSON,
    Answers,
    Description,
    Event,
    Statement,
    Use,
    aggregate,
)
from tests.privacy.oracle import DAY_MS

MINUTE_MS = 60 * 1000
HOUR_MS = 60 * MINUTE_MS

EVENT_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z
INGESTED_MS = EVENT_MS + MINUTE_MS
EARLY_BOUNDARY_MS = EVENT_MS + 30 * MINUTE_MS  # before anything changes
WITHDRAWN_MS = EVENT_MS + HOUR_MS
GIVEN_AGAIN_MS = EVENT_MS + 2 * HOUR_MS
CHANGED_PROFILE_MS = EVENT_MS + 3 * HOUR_MS
SOON_MS = EVENT_MS + 12 * HOUR_MS  # a build within the day an undescribed profile's rows wait
LATE_MS = EVENT_MS + 30 * DAY_MS
LONG_BEFORE_MS = EVENT_MS - 10 * DAY_MS
K = 20

COMBINATIONS = tuple(Answers(*answers) for answers in product((True, False, None), repeat=3))
MARKETS = ("US", "DE", None)
NAMES = ("playback.started", "auth.login_succeeded")  # what needs consent, and what is essential


class Carrier(StrEnum):
    """Where a combination of answers stands."""

    OBJECT = "object"  # a client event's own consent object; statements allow all
    STATEMENT = "statement"  # what the viewer said long before a server event without an object
    NOWHERE = "nowhere"  # neither: a server event of a viewer who was never asked


class History(StrEnum):
    """What the viewer said."""

    NEVER_ASKED = "never_asked"
    REFUSED_FROM_THE_START = "refused_from_the_start"
    WITHDRAWN_SINCE = "withdrawn_since"
    GIVEN_AGAIN = "given_again"


class Profile(StrEnum):
    """Whose profile it turns out to be."""

    ADULT = "adult"
    KIDS = "kids"
    UNDESCRIBED_YET = "undescribed_yet"  # built before its rows' day of waiting is over
    UNDESCRIBED = "undescribed"
    CHILD_LATER = "child_later"
    GREW_UP = "grew_up"


class Layer(StrEnum):
    """Who asks."""

    INGEST = "ingest"
    PER_PERSON = "per_person"
    ANONYMOUS = "anonymous"
    AGGREGATE_BEFORE = "aggregate_before"  # its boundary lies before anything changed
    AGGREGATE = "aggregate"  # its boundary is the build
    SMALL_AGGREGATE = "small_aggregate"  # like AGGREGATE_BEFORE, over one viewer less than k
    SERVING = "serving"


@dataclass(frozen=True)
class Scenario:
    """One viewer's whole story, and one event of theirs. `label` says which cell of the matrix it is."""

    label: str
    event: Event
    statements: tuple[Statement, ...]
    descriptions: tuple[Description, ...]
    built_ms: int


@dataclass(frozen=True)
class Case:
    """A scenario in one layer for one purpose (None at ingest, which knows none), and what must happen."""

    scenario: Scenario
    layer: Layer
    purpose: Purpose | None
    expected: oracle.Fate | oracle.Verdict | oracle.Served


def stories(user: str, history: History, said: Answers, changed: Collection[str]) -> tuple[Statement, ...]:
    """The statements of a history that starts from `said` and refuses the answers in `changed`."""
    refused = replace(said, **dict.fromkeys(changed, False))
    if history is History.NEVER_ASKED:
        return ()
    if history is History.REFUSED_FROM_THE_START:
        return (Statement(user, LONG_BEFORE_MS, refused),)
    withdrawn = (Statement(user, LONG_BEFORE_MS, said), Statement(user, WITHDRAWN_MS, refused))
    return withdrawn if history is History.WITHDRAWN_SINCE else (*withdrawn, Statement(user, GIVEN_AGAIN_MS, said))


def described(profile: str, user: str, kind: Profile) -> tuple[Description, ...]:
    """The descriptions of one profile."""
    was_kids = kind in (Profile.KIDS, Profile.GREW_UP)
    first = Description(profile, user, was_kids, LONG_BEFORE_MS)
    if kind in (Profile.UNDESCRIBED, Profile.UNDESCRIBED_YET):
        return ()
    if kind in (Profile.ADULT, Profile.KIDS):
        return (first,)
    return first, Description(profile, user, not was_kids, CHANGED_PROFILE_MS)


def consents() -> Iterator[tuple[Carrier, History, Answers | None, tuple[str, ...]]]:
    """(carrier, history, combination, answers that change): 27 combinations in both carriers, then single answers."""
    yield Carrier.NOWHERE, History.NEVER_ASKED, None, ()
    for combination, history in product(COMBINATIONS, History):
        yield Carrier.OBJECT, history, combination, ANSWERS
        if history is not History.NEVER_ASKED:
            yield Carrier.STATEMENT, history, combination, ANSWERS
    changes = [history for history in History if history is not History.NEVER_ASKED]
    for carrier, history, answer in product((Carrier.OBJECT, Carrier.STATEMENT), changes, ANSWERS):
        yield carrier, history, ALL, (answer,)


def full_matrix() -> Iterator[Scenario]:
    """Every consent x market x profile x name of an event: 208 x 3 x 6 x 2 = 7,488 scenarios, always the same."""
    for number, (consent, market, kind, name) in enumerate(product(consents(), MARKETS, Profile, NAMES)):
        carrier, history, combination, changed = consent
        user, profile = f"user-{number}", f"profile-{number}"
        said = combination if carrier is Carrier.STATEMENT and combination is not None else ALL
        in_object = combination if carrier is Carrier.OBJECT else None
        yield Scenario(
            label=f"{carrier} {history} {combination} changed={','.join(changed)} {market} {kind} {name}",
            event=Event(
                name, carrier is Carrier.OBJECT, EVENT_MS, INGESTED_MS, user, profile, market, consent=in_object
            ),
            statements=stories(user, history, said, changed),
            descriptions=described(profile, user, kind),
            built_ms=SOON_MS if kind is Profile.UNDESCRIBED_YET else LATE_MS,
        )


SCENARIOS = 208 * 3 * 6 * 2
CASES = SCENARIOS * (1 + 6 * 5)


def uses(built_ms: int) -> dict[Layer, Use]:
    """What each layer of a build makes of the row."""
    return {
        Layer.PER_PERSON: PER_PERSON,
        Layer.ANONYMOUS: ANONYMOUS,
        Layer.AGGREGATE_BEFORE: aggregate(K, EARLY_BOUNDARY_MS),
        Layer.AGGREGATE: aggregate(K, built_ms),
        Layer.SMALL_AGGREGATE: aggregate(K - 1, EARLY_BOUNDARY_MS),
    }


def cases(scenario: Scenario, essential: Collection[str]) -> Iterator[Case]:
    """What must happen to one scenario: 1 case at ingest, 5 purposes in each of 5 builds and when serving."""
    event, statements, descriptions = scenario.event, scenario.statements, scenario.descriptions
    yield Case(scenario, Layer.INGEST, None, oracle.at_ingest(event, statements, descriptions, essential))
    for purpose in Purpose:
        for layer, use in uses(scenario.built_ms).items():
            verdict = oracle.in_build(event, purpose, use, statements, descriptions, scenario.built_ms, essential, k=K)
            yield Case(scenario, layer, purpose, verdict)
        served = oracle.when_serving(
            event.user, event.profile, [purpose], statements, descriptions, scenario.built_ms, event.market
        )
        yield Case(scenario, Layer.SERVING, purpose, served)


@dataclass(frozen=True)
class World:
    """A small platform's whole history, and when a build looks at it. Every event was read by `built_ms`."""

    statements: tuple[Statement, ...]
    descriptions: tuple[Description, ...]
    events: tuple[Event, ...]
    built_ms: int


USERS = ("anna", "ben")
PROFILES = ("anna-1", "anna-2", "ben-1")
# Few instants, so that ties are common, and the milliseconds to both sides of each edge.
INSTANTS = tuple(
    EVENT_MS + around + off for around in (0, MINUTE_MS, HOUR_MS, DAY_MS, 2 * DAY_MS) for off in (-1, 0, 1)
)
ODD = ("true", "false", "", 0, 1)

instants = st.sampled_from(INSTANTS)
markets = st.sampled_from(("US", "DE", "us", "", None))
answers = st.builds(Answers, *[st.sampled_from((True, True, True, False, False, None, *ODD))] * 3)
regular_answers = st.builds(Answers, *[st.booleans()] * 3)


@st.composite
def a_statement(draw: st.DrawFn) -> Statement:
    """Mostly regular; sometimes half-filled or with what is no boolean."""
    return Statement(
        draw(st.sampled_from(USERS)), draw(instants), draw(st.one_of(regular_answers, answers)), draw(markets)
    )


@st.composite
def a_description(draw: st.DrawFn) -> Description:
    """A profile of its own user, at any instant."""
    profile = draw(st.sampled_from(PROFILES))
    return Description(profile, profile.split("-")[0], draw(st.booleans()), draw(instants))


@st.composite
def an_event(draw: st.DrawFn) -> Event:
    """A client's or a server's, of a viewer with or without a profile, or of nobody; read 0 ms to 2 days later."""
    profile = draw(st.sampled_from((*PROFILES, None)))
    user = draw(st.sampled_from(USERS)) if profile is None else profile.split("-")[0]
    is_client = draw(st.booleans())
    at_ms = draw(instants)
    event = Event(
        name=draw(st.sampled_from(NAMES)),
        is_client=is_client,
        at_ms=at_ms,
        ingested_ms=at_ms + draw(st.sampled_from((0, 1, MINUTE_MS, DAY_MS - 1, DAY_MS, 2 * DAY_MS))),
        user=user,
        profile=profile,
        market=draw(markets),
        consent=draw(st.one_of(st.none(), regular_answers, answers)) if is_client else None,
    )
    if draw(st.integers(0, 9)) == 0:
        return replace(event, name="title.added", user=None, profile=None, consent=None, is_of_catalogue=True)
    if draw(st.integers(0, 9)) == 0:
        return replace(event, user=None)
    return event


@st.composite
def worlds(draw: st.DrawFn, min_events: int = 1, max_events: int = 8) -> World:
    """Two users, three profiles, and a build at the last reading, at an edge after it or a month later."""
    happened = draw(st.lists(an_event(), min_size=min_events, max_size=max_events))
    last_ms = max(event.ingested_ms for event in happened)
    return World(
        statements=tuple(draw(st.lists(a_statement(), max_size=6))),
        descriptions=tuple(draw(st.lists(a_description(), max_size=6))),
        events=tuple(happened),
        built_ms=last_ms + draw(st.sampled_from((0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 1, 30 * DAY_MS))),
    )


@st.composite
def boundaries(draw: st.DrawFn, event: Event, built_ms: int) -> int:
    """A boundary of an aggregate with this event: after it, not after the build. Needs `event.at_ms < built_ms`."""
    edges = [one for one in (event.at_ms + 1, *INSTANTS, built_ms) if event.at_ms < one <= built_ms]
    return draw(st.sampled_from(edges))
