"""What must happen to one event, in each layer, and why: the rules of privacy, read a second time.

Written from the spec's section 8 (with 2.2 and 3.1), the design's section 5 (with 3 and 4) and the list of essential
events alone, without having read the code that decides. Loops over short lists; no tables. A verdict names every reason
that applies, because the text orders none: an implementation has to give one of them.

Where the text leaves a choice, the stricter reading is taken:

C1  An answer left out of a consent object, in an event or in `consent.changed`, is a refusal; earlier answers do not
    stand in for it. So is an object without any answer: it is an object, not its absence, also in the US.
C2  Only the boolean true allows. "true", 1 and "yes" are refusals.
C3  Object and history differ: each answer must be allowed by both. The market's default is not history: without any
    statement the object alone speaks.
C4  "Known at t" at the very millisecond: a statement at t refuses already and allows not yet. Statements of one user
    at one instant: the strictest of each answer. A profile is a child's at the instant it becomes or ceases to be one;
    a description at t ends the waiting at t ("ingest reads `user.events` first").
C5  The market's default is opt-out for "US" alone: null, "us" and unknown markets are opt-in. The row's market counts.
C6  Personalization and ads also need analytics, at the event and now: an event without analytics is "never there".
C7  "No feature or training row of any model" is taken at its word: sets for ads and for content safety need
    personalization too (spec 8.1: it covers the training of models). No answer is named content safety.
C8  Withdrawn analytics is a withdrawal for every purpose but the essential one.
C9  Given again: "today's consent" decides (design 5, rebuilding), so rows from before the withdrawal are back; rows
    from between are not, as their own answer is a refusal. Consent given later never reaches back.
C10 A child's profile: described so when the event came, or at any time since. Grown up frees only later events.
C11 Undescribed: the row waits 24 hours from its own ingestion, in no build; at 24 h 0 ms it is a child's for good,
    since its ids are gone, whatever is said of the profile later. When serving, an undescribed profile is a child's.
C12 A child's row has no ids left, so a withdrawal reaches it only until they are taken: rows stripped at ingest
    carry what was known when the event came; rows stripped later carry what held when they were.
C13 Children and ads: never, in no form, aggregates included (spec 8.5: "ever, regardless of consent").
C14 Children's essential events are stripped like all their rows, and used in aggregates over at least k only.
C15 "After anonymization" means without the daily token too, which would tell one child's rows of a day together.
C16 Daily tokens of different days may be one child. A window of several days counts the children of its busiest day.
C17 An aggregate under k viewers keeps nothing from before a withdrawal: it is built like rows of persons.
C18 A row with a profile but no user is a row of whoever the profile was described for; all of them, if several.
C19 Logging an answer needs analytics; nothing is logged of a child's or an undescribed profile (spec 8.5: "no
    per-user storage").
C20 A row without a profile is the account holder's, an adult's. (The laxer reading: the text speaks of profiles only.)
C21 Only `consent.changed` changes the history: a refusal in a later event's object speaks of that event. (The laxer
    reading: the design keeps history from the events of `user.events`.)
C22 A profile is told by its id alone: a description counts whichever user it names.
C23 Tags say what was answered: without analytics, an essential event that allows personalization is not tagged.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from features.purposes import Purpose
from tests.privacy.facts import ALL, ANSWERS, NONE, Answers, Description, Event, Form, Statement, Use

DAY_MS = 24 * 60 * 60 * 1000
LEFT_ROW = "(left-table row)"

# Design 5: which answers a purpose needs; C6 adds analytics, C7 personalization. ESSENTIAL asks none (spec 8.1).
NEEDS: dict[Purpose, tuple[str, ...]] = {
    Purpose.ESSENTIAL: (),
    Purpose.ANALYTICS: ("analytics",),
    Purpose.PERSONALIZATION: ("analytics", "personalization"),
    Purpose.AD_TARGETING: ("analytics", "personalization", "ad_targeting"),
    Purpose.CONTENT_SAFETY: ("analytics", "personalization"),
}


class Reason(StrEnum):
    """Why not; the place of each rule follows it."""

    NO_ANALYTICS = "no_analytics"  # design 5, rows 1 and 3; spec 8.2, row 1
    NO_PERSONALIZATION = "no_personalization"  # design 5, rows 2 and 3; spec 8.2, row 2
    NO_AD_TARGETING = "no_ad_targeting"  # design 5, rows 3 and 5; spec 8.2, row 3
    WITHDRAWN = "withdrawn"  # design 5, row 4; spec 8.4, restriction: allowed at the event, refused since
    KIDS = "kids"  # design 5, row 6; spec 8.5
    UNDESCRIBED = "undescribed"  # design 5, "whose profile is it?"
    NOT_ESSENTIAL = "not_essential"  # design 5, "essential is an enumerated list"
    NOBODY = "nobody"  # a request that names no viewer has no personal answer


REFUSAL = dict(zip(ANSWERS, (Reason.NO_ANALYTICS, Reason.NO_PERSONALIZATION, Reason.NO_AD_TARGETING), strict=True))


class Irregular(StrEnum):
    """What is odd about an event's consent object, and has to be counted."""

    HALF_FILLED = "half_filled"
    NOT_BOOLEAN = "not_boolean"
    CONTRADICTS_HISTORY = "contradicts_history"


class Whose(StrEnum):
    """Whose row it is, as far as is known."""

    ADULT = "adult"
    CHILD = "child"
    WAITING = "waiting"


class Fallback(StrEnum):
    """What is answered instead of a personal answer (design 5, last column)."""

    NON_PERSONAL = "non_personal"
    KIDS_TITLES = "kids_titles"  # popular titles of a kids' rating


@dataclass(frozen=True)
class Verdict:
    """Whether a build may use the event: only if no reason speaks against it."""

    reasons: frozenset[Reason]

    @property
    def allowed(self) -> bool:
        """No reason speaks against it."""
        return not self.reasons


@dataclass(frozen=True)
class Fate:
    """What ingest does: drops it for `reasons`, or stores it.

    `is_stripped`: user, profile, device and session ids are gone.
    `waits_until_ms`: the profile is undescribed; it is stripped then unless described before (C11).
    """

    reasons: frozenset[Reason]
    answers: Answers
    tags: frozenset[str] = frozenset()
    is_stripped: bool = False
    waits_until_ms: int | None = None
    irregular: frozenset[Irregular] = frozenset()

    @property
    def is_stored(self) -> bool:
        """Nothing made ingest drop it."""
        return not self.reasons


@dataclass(frozen=True)
class Served:
    """Personal, if `fallback` is None; else the answer says `reasons`. `may_be_logged`: as this viewer's prediction."""

    fallback: Fallback | None
    reasons: frozenset[Reason]
    may_be_logged: bool


def essential_names() -> frozenset[str]:
    """The enumerated list (design 5, first point after the table)."""
    path = Path(__file__).parents[2] / "configs" / "essential_events.yaml"
    return frozenset(yaml.safe_load(path.read_text())["essential_events"])


def market_default(market: str | None) -> Answers:
    """Opt-out in the US, opt-in everywhere else (spec 8.1, design 5 row 3, C5)."""
    return ALL if market == "US" else NONE


def strictest(heard: Collection[Answers]) -> Answers:
    """Each answer allowed only if all who were heard allow it."""
    return Answers(*(all(one.allows(answer) for one in heard) for answer in ANSWERS))


def spoken(statements: Iterable[Statement], user: str, at_ms: int) -> tuple[list[Answers], list[Answers]]:
    """The latest answers from before `at_ms`, and those of that very millisecond (C4)."""
    own = [one for one in statements if one.user == user and one.at_ms <= at_ms]
    last_ms = max((one.at_ms for one in own if one.at_ms < at_ms), default=None)
    return [one.answers for one in own if one.at_ms == last_ms], [one.answers for one in own if one.at_ms == at_ms]


def viewers(event: Event, descriptions: Iterable[Description], now_ms: int) -> list[str]:
    """Whose consent is asked: the row's user, else those its profile was described for (C18)."""
    if event.user is not None:
        return [event.user]
    described = [one for one in descriptions if one.profile == event.profile and one.at_ms <= now_ms]
    return sorted({one.user for one in described})


def answers_at_event(
    event: Event, statements: Iterable[Statement], descriptions: Iterable[Description], now_ms: int
) -> Answers:
    """What held when the event came (design 5, row 3; spec 8.2).

    The event's own object with the latest statement known then, and where there is neither, the market's default.
    """
    heard = [] if event.consent is None else [event.consent]
    is_known = event.consent is not None
    for user in viewers(event, descriptions, now_ms):
        before, at_once = spoken(statements, user, event.at_ms)
        heard += before + at_once
        if not before and event.consent is None:
            heard.append(market_default(event.market))
        is_known = True
    return strictest(heard if is_known else [market_default(event.market)])


def irregularities(
    event: Event, statements: Iterable[Statement], descriptions: Iterable[Description]
) -> frozenset[Irregular]:
    """What is odd about the event's own object (C1, C2, C3)."""
    if event.consent is None:
        return frozenset()
    given = [getattr(event.consent, answer) for answer in ANSWERS]
    history = []
    for user in viewers(event, descriptions, event.ingested_ms):
        before, at_once = spoken(statements, user, event.at_ms)
        history += before + at_once
    found = set()
    if any(one is None for one in given):
        found.add(Irregular.HALF_FILLED)
    if any(one is not None and not isinstance(one, bool) for one in given):
        found.add(Irregular.NOT_BOOLEAN)
    if history and strictest(history) != strictest([event.consent]):
        found.add(Irregular.CONTRADICTS_HISTORY)
    return frozenset(found)


def whose(event: Event, descriptions: Iterable[Description], now_ms: int) -> Whose:
    """Whose row it is, as known at `now_ms` (design 5, "whose profile is it?"; C10, C11, C20)."""
    if event.profile is None:
        return Whose.ADULT
    known = [one for one in descriptions if one.profile == event.profile and one.at_ms <= now_ms]
    deadline_ms = event.ingested_ms + DAY_MS
    if not any(one.at_ms < deadline_ms for one in known):
        return Whose.WAITING if now_ms < deadline_ms else Whose.CHILD
    last_ms = max((one.at_ms for one in known if one.at_ms < event.at_ms), default=None)
    if any(one.is_kids for one in known if one.at_ms == last_ms or one.at_ms >= event.at_ms):
        return Whose.CHILD
    return Whose.ADULT


def stripped_ms(event: Event, descriptions: Sequence[Description], now_ms: int) -> int | None:
    """When the row lost its ids (design 5, row 6, and "found to be a child's later"); None: it has them at `now_ms`."""
    turns = {event.ingested_ms, event.ingested_ms + DAY_MS, *(one.at_ms for one in descriptions)}
    for turn_ms in sorted(turns):
        if event.ingested_ms <= turn_ms <= now_ms and whose(event, descriptions, turn_ms) is Whose.CHILD:
            return turn_ms
    return None


def at_ingest(
    event: Event, statements: Sequence[Statement], descriptions: Sequence[Description], essential: Collection[str]
) -> Fate:
    """What is written of an event (design 5, column "at ingest"; spec 8.2, column "collector")."""
    if event.concerns_nobody:
        return Fate(frozenset(), ALL)
    answers = answers_at_event(event, statements, descriptions, event.ingested_ms)
    irregular = irregularities(event, statements, descriptions)
    if event.name not in essential and not answers.allows("analytics"):
        return Fate(frozenset({Reason.NO_ANALYTICS}), answers, irregular=irregular)
    owner = whose(event, descriptions, event.ingested_ms)
    return Fate(
        frozenset(),
        answers,
        tags=frozenset(f"no_{one}" for one in ("personalization", "ad_targeting") if not answers.allows(one)),
        is_stripped=owner is Whose.CHILD,
        waits_until_ms=event.ingested_ms + DAY_MS if owner is Whose.WAITING else None,
        irregular=irregular,
    )


def is_large(use: Use, k: int) -> bool:
    """An aggregate over at least k viewers."""
    return use.form is Form.AGGREGATE and use.viewers >= k


def child_may_be_in(purpose: Purpose, use: Use, k: int) -> bool:
    """Design 5, row 6, and spec 8.5: large aggregates, anonymous rows for content safety, never ads (C13, C14, C15)."""
    if purpose is Purpose.AD_TARGETING:
        return False
    return is_large(use, k) or (use.form is Form.ANONYMOUS and purpose is Purpose.CONTENT_SAFETY)


def refused_since(
    event: Event, statements: Sequence[Statement], descriptions: Sequence[Description], decided_ms: int, built_ms: int
) -> set[str]:
    """The answers refused at `decided_ms` by the latest statement (design 5, row 4; C4, C12)."""
    gone_ms = stripped_ms(event, descriptions, built_ms)
    if gone_ms == event.ingested_ms:
        return set()
    asked_ms = decided_ms if gone_ms is None else min(decided_ms, gone_ms)
    latest: list[Answers] = []
    for user in viewers(event, descriptions, built_ms):
        before, at_once = spoken(statements, user, asked_ms)
        latest += before + at_once
    return {answer for answer in ANSWERS if not all(one.allows(answer) for one in latest)}


def in_build(
    event: Event,
    purpose: Purpose,
    use: Use,
    statements: Sequence[Statement],
    descriptions: Sequence[Description],
    built_ms: int,
    essential: Collection[str],
    k: int = 20,
) -> Verdict:
    """Whether a feature, set or aggregate built at `built_ms` may use the event (design 5, "in features and training").

    A large aggregate keeps what was allowed at its boundary (row 4); everything else asks as of the build. Whether the
    row is a child's is asked as of the build always.
    """
    if built_ms < event.ingested_ms:
        raise ValueError(f"built at {built_ms}, before the event was read at {event.ingested_ms}")
    if use.boundary_ms is not None and not event.at_ms < use.boundary_ms <= built_ms:
        raise ValueError(f"boundary {use.boundary_ms} is not in ({event.at_ms}, {built_ms}], from event to build")
    if event.concerns_nobody:
        return Verdict(frozenset())
    reasons = set()
    owner = whose(event, descriptions, built_ms)
    if owner is Whose.WAITING:
        reasons.add(Reason.UNDESCRIBED)
    if owner is Whose.CHILD and not child_may_be_in(purpose, use, k):
        reasons.add(Reason.KIDS)
    if purpose is Purpose.ESSENTIAL and event.name not in essential:
        reasons.add(Reason.NOT_ESSENTIAL)
    then = answers_at_event(event, statements, descriptions, built_ms)
    decided_ms = use.boundary_ms if is_large(use, k) and use.boundary_ms is not None else built_ms
    since = refused_since(event, statements, descriptions, decided_ms, built_ms)
    for answer in NEEDS[purpose]:
        if not then.allows(answer):
            reasons.add(REFUSAL[answer])
        elif answer in since:
            reasons.add(Reason.WITHDRAWN)
    return Verdict(frozenset(reasons))


def left_row(user: str | None, profile: str | None, at_ms: int, market: str | None) -> Event:
    """A left-table or negative row as an event to ask about: "the same rules as positives" (design 5)."""
    return Event(LEFT_ROW, False, at_ms, at_ms, user, profile, market)


def certain_viewers(adults: Collection[str], tokens_by_day: Mapping[int, Collection[str]]) -> int:
    """How many viewers an aggregate is surely over: all adults, and the children of the busiest day (C16)."""
    return len(set(adults)) + max((len(set(tokens)) for tokens in tokens_by_day.values()), default=0)


def was_withdrawn(statements: Iterable[Statement], user: str, answer: str, now_ms: int) -> bool:
    """Whether the user's latest statement refuses what an earlier one allowed."""
    before, at_once = spoken(statements, user, now_ms)
    is_refused = not all(one.allows(answer) for one in before + at_once)
    earlier = [one for one in statements if one.user == user and one.at_ms < now_ms]
    return is_refused and any(one.answers.allows(answer) for one in earlier)


def when_serving(
    user: str | None,
    profile: str | None,
    purposes: Collection[Purpose],
    statements: Sequence[Statement],
    descriptions: Sequence[Description],
    now_ms: int,
    market: str | None,
    consent: Answers | None = None,
) -> Served:
    """What a request gets (design 5, column "when serving"). `consent`: the caller's token's object, if it has one.

    The reasons include WITHDRAWN where the latest statement refuses what an earlier one allowed.
    A request without a purpose is refused (design 5: "if none says one, it is refused").
    """
    if not purposes:
        raise ValueError("a request that declares no purpose is refused")
    if user is None and profile is None:
        return Served(Fallback.NON_PERSONAL, frozenset({Reason.NOBODY}), False)
    asked = Event("(request)", True, now_ms, now_ms, user, profile, market, consent)
    owner = whose(asked, descriptions, now_ms)
    answers = answers_at_event(asked, statements, descriptions, now_ms)
    refused = [one for one in ANSWERS if any(one in NEEDS[each] for each in purposes) and not answers.allows(one)]
    reasons = {REFUSAL[answer] for answer in refused}
    asked_users = viewers(asked, descriptions, now_ms)
    if any(was_withdrawn(statements, one, answer, now_ms) for one in asked_users for answer in refused):
        reasons.add(Reason.WITHDRAWN)
    if owner is not Whose.ADULT:
        reasons.add(Reason.KIDS if owner is Whose.CHILD else Reason.UNDESCRIBED)
        return Served(Fallback.KIDS_TITLES, frozenset(reasons), False)
    fallback = Fallback.NON_PERSONAL if reasons else None
    return Served(fallback, frozenset(reasons), answers.allows("analytics"))
