"""Who may use what, one row and one question at a time: the privacy rules (spec 8.1, 8.2, 8.5) in plain Python.

It shares nothing with `features.decision`: no columns, no joins, only loops over lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Question = Literal["analytics", "personalization", "ad_targeting"]
QUESTIONS: tuple[Question, ...] = ("analytics", "personalization", "ad_targeting")

# What a purpose asks of the viewer. Whoever refuses analytics leaves no events behind, so it is part of every other.
NEEDS: dict[str, tuple[Question, ...]] = {
    "analytics": ("analytics",),
    "personalization": ("analytics", "personalization"),
    "ad_targeting": ("analytics", "personalization", "ad_targeting"),
}


@dataclass(frozen=True)
class Choices:
    """Answers to the three questions; None is a question without an answer."""

    analytics: bool | None = None
    personalization: bool | None = None
    ad_targeting: bool | None = None


@dataclass(frozen=True)
class Statement:
    """What a user said at an instant, in `consent.changed`."""

    user_id: str
    at_ms: int
    choices: Choices


@dataclass(frozen=True)
class Event:
    """As much of an event as the rules look at."""

    at_ms: int
    user_id: str | None
    market: str | None
    own: Choices
    is_kids: bool | None = False  # None: nobody has described the profile, which may be a child's


def latest(history: Sequence[Statement], user_id: str | None, at_ms: int) -> Choices:
    """What the user last said by `at_ms`, that instant included; no answers if they had said nothing.

    Of two statements of one instant nobody can tell which came later, so a no counts.
    """
    said = [one for one in history if one.user_id == user_id and one.at_ms <= at_ms]
    newest = [one.choices for one in said if one.at_ms == max(other.at_ms for other in said)]
    return Choices(**{question: all(getattr(one, question) for one in newest) for question in QUESTIONS if newest})


def allowed_when_received(event: Event, question: Question, history: Sequence[Statement]) -> bool:
    """The event's own answer, unless the latest known when it came was no; without one that; else the market's.

    An event that answers some questions and not this one is taken for a no.
    """
    own = getattr(event.own, question)
    known = getattr(latest(history, event.user_id, event.at_ms), question)
    if own is not None:
        return bool(own) and known is not False
    if event.own != Choices():
        return False
    if known is not None:
        return bool(known)
    return event.market == "US"


def withdrawn_by(event: Event, question: Question, history: Sequence[Statement], build_ms: int) -> bool:
    """True if the last thing the user said by `build_ms` is no; silence withdraws nothing."""
    return getattr(latest(history, event.user_id, build_ms), question) is False


def verdict(event: Event, purpose: str, history: Sequence[Statement], build_ms: int) -> str:
    """`allowed`, or the first reason against using the event for something about its person, as of `build_ms`."""
    if event.is_kids is not False:
        return "kids"
    if not all(allowed_when_received(event, question, history) for question in NEEDS[purpose]):
        return "refused"
    if any(withdrawn_by(event, question, history, build_ms) for question in NEEDS[purpose]):
        return "withdrawn"
    return "allowed"
