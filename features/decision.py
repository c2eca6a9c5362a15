"""The one place that decides whether a person's row may be stored, used or answered with, and for what.

Four questions; every station asks the one that is its own, and none has a rule of its own (spec 8.1, 8.2, 8.5):

    resolve        what did this person allow when the event was received?        (at the door, once an event)
    may_be_stored  is the event kept at all?                                       (at the door)
    decide         may this row be used for this purpose, as of now? Else why not  (features, training sets, quality)
    *_refusal      may this person be answered with what is theirs, now?           (serving)

The rules in force, in the order in which a row meets them; the first that refuses gives the reason:

    not essential         for ESSENTIAL there are events of the enumerated list, of whoever they are, and no others
    kids profile          never in anything about a person; a profile nobody has described may be a child's, and what
                          was done before a profile was known to be a child's was done by a child. For CONTENT_SAFETY a
                          child's row is admitted once it leads to nobody: without an id, and without the token of the
                          day. Whatever says nothing about anybody counts children in crowds, but never for ads
    refused on the event  the event itself said no to what the purpose requires
    withdrawn since       the person's latest consent, as known at the instant of the decision, says no to either
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.columns import milliseconds
from features.consent import ANSWERED, NO, NOT_SAID, YES, ConsentHistory, answers_of, market_default, opt_out
from features.distinct import codes_of, encoded, is_one_of
from features.errors import FeatureError
from features.profiles import NEVER, PERSON_IDS, VIEWER_TOKEN, ProfileRegistry
from features.pseudonyms import Pseudonyms
from features.purposes import Purpose

Flags = NDArray[np.bool_]

CONSENT_COLUMNS: Mapping[Purpose, str] = {purpose: f"consent_{purpose}" for purpose in ANSWERED}
DECISION_COLUMNS = ("user_id", "profile_id", "event_timestamp", "is_kids", *CONSENT_COLUMNS.values())
"""What `decide` reads of rows. Those that have no profile_id concern no profile; those without a time are of now."""

# What a person must have allowed before their rows serve a purpose. Of those who refuse analytics nothing but
# essential events is kept, and nothing is made from them (spec 8.2), so analytics is in every one of them. Who refuses
# personalization is in no training row of any model, those for ads and for content safety included (spec 8.1).
_NEEDS: Mapping[Purpose, tuple[Purpose, ...]] = {
    Purpose.ANALYTICS: (Purpose.ANALYTICS,),
    Purpose.PERSONALIZATION: (Purpose.ANALYTICS, Purpose.PERSONALIZATION),
    Purpose.AD_TARGETING: (Purpose.ANALYTICS, Purpose.PERSONALIZATION, Purpose.AD_TARGETING),
    Purpose.CONTENT_SAFETY: (Purpose.ANALYTICS, Purpose.PERSONALIZATION),
}


class Exclusion(StrEnum):
    """Why a row may not be used; counted in every report and manifest."""

    NOT_ESSENTIAL = "not_essential"
    KIDS_PROFILE = "kids_profile"
    REFUSED_ON_EVENT = "refused_on_event"
    WITHDRAWN_SINCE = "withdrawn_since"


_REASONS = tuple(Exclusion)
_ALLOWED = -1


class PurposeNotDecidableError(FeatureError):
    """The purpose asks for no consent, so nothing about people is made for it."""

    def __init__(self, purpose: Purpose) -> None:
        allowed = ", ".join(_NEEDS)
        super().__init__(f"no rule admits people's rows for the purpose {str(purpose)!r}; declare one of {allowed}")


@dataclass(frozen=True)
class Registries:
    """What is known of people: who allowed what, whose profile is a child's, and which events are essential."""

    consents: ConsentHistory
    profiles: ProfileRegistry
    essential_events: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Decision:
    """For each row: may it be used, and if not, why."""

    codes: NDArray[np.int8]  # the place of the reason in `Exclusion`, or -1 for a row that may be used; shape (n,)

    @cached_property
    def allowed(self) -> Flags:
        """Which rows may be used, shape (n,)."""
        allowed: Flags = self.codes == _ALLOWED
        return allowed

    @cached_property
    def excluded(self) -> dict[str, int]:
        """How many rows may not, by reason."""
        counts = np.bincount(self.codes[~self.allowed], minlength=len(_REASONS)).tolist()
        return {str(reason): count for reason, count in zip(_REASONS, counts, strict=True) if count}

    @property
    def reasons(self) -> pa.DictionaryArray:
        """Why each row may not be used; null where it may."""
        indices = pa.array(self.codes.astype(np.int32), mask=self.allowed)
        return pa.DictionaryArray.from_arrays(indices, pa.array([str(reason) for reason in _REASONS]))


@dataclass(frozen=True)
class Resolved:
    """Events with their three consent columns filled in, and of which what was said had to be read strictly."""

    events: pa.Table
    read_strictly: Mapping[str, Flags]  # how -> which events, shape (n,)


def counted(flags: Mapping[str, Flags]) -> dict[str, int]:
    """How many rows each flag, shape (n,), is set for, by its name; without those that are set for none."""
    counts = {name: int(each.sum()) for name, each in flags.items()}
    return {name: count for name, count in counts.items() if count}


def required_consents(purpose: Purpose) -> tuple[Purpose, ...]:
    """Everything a person must have allowed before their rows serve `purpose`; analytics is always among it.

    Raises PurposeNotDecidableError for a purpose for which no row of people is used.
    """
    if purpose not in _NEEDS:
        raise PurposeNotDecidableError(purpose)
    return _NEEDS[purpose]


def resolve(events: pa.Table, history: ConsentHistory, people: Pseudonyms | None = None) -> Resolved:
    """The events with what their people allowed.

    The event's own consent object holds; without one, the latest consent known at its event_timestamp; without that,
    the market's default. Where an object answers some questions only, the others are refused; where it allows what the
    latest known consent refuses, the refusal holds. Both are counted, as events.

    `events` needs market, event_timestamp and the consent columns, and user_id (hashed) unless `people` says whose
    they are under every salt.
    """
    own = np.stack([answers_of(events[column]) for column in CONSENT_COLUMNS.values()], axis=1)
    people = Pseudonyms.of(events["user_id"]) if people is None else people
    is_asked = (own != NOT_SAID).any(axis=1)
    is_half = is_asked & (own == NOT_SAID).any(axis=1)
    said = np.where(is_half[:, np.newaxis] & (own == NOT_SAID), NO, own)
    looked_up = ~is_asked | history.may_refuse(people)
    contradicts = np.zeros(events.num_rows, dtype=bool)
    if looked_up.any():
        instants_ms = milliseconds(events["event_timestamp"])[looked_up]
        known = history.latest(people.filter(looked_up), instants_ms)
        was_said = said[looked_up]
        contradicts[looked_up] = ((was_said == YES) & (known == NO)).any(axis=1)
        said[looked_up] = np.where(was_said == NOT_SAID, known, np.where(known == NO, NO, was_said))
    if (said == NOT_SAID).any():
        said = np.where(said == NOT_SAID, opt_out(events["market"])[:, np.newaxis], said)
    if contradicts.any() or not is_asked.all() or is_half.any():
        for place, column in enumerate(CONSENT_COLUMNS.values()):
            allowed = pa.array(said[:, place] == YES)
            events = events.set_column(events.column_names.index(column), pa.field(column, pa.bool_()), allowed)
    return Resolved(events, {"consent_half_filled": is_half, "consent_contradicted": contradicts})


def may_be_stored(events: pa.Table, is_essential: Flags) -> Flags:
    """Which events (as `resolve` left them, some of them essential) may be kept, shape (n,).

    Of somebody who refuses analytics only essential events are. Events of the catalogue and of machines are nobody's;
    a client's are somebody's, logged in or not.
    """
    kept: Flags = is_essential | ~concerns_somebody(events) | _booleans(events["consent_analytics"], missing=False)
    return kept


def concerns_somebody(events: pa.Table) -> Flags:
    """Which events are a person's, shape (n,)."""
    of_client = is_one_of(events["source"], frozenset({"CLIENT"}))
    somebodys: Flags = of_client | _present(events["user_id"]) | _present(events["profile_id"])
    return somebodys


def decide(rows: pa.Table, purpose: Purpose, known: Registries, at_ms: int) -> Decision:
    """Which `rows` may be used for `purpose`, and why the others may not.

    `rows` needs is_kids, user_id and the consent columns of what the purpose requires (as `resolve` left them; null
    is a refusal); profile_id and event_timestamp, where they have them, are asked about too. For ESSENTIAL it needs
    event_name, for CONTENT_SAFETY whatever ids the rows have. `at_ms` is the instant of the decision: consent withdrawn
    by then excludes a person's earlier rows too, and so does a profile known by then to be a child's. A row without a
    user is of whose profile it is.
    """
    kids = _kids(rows, known, at_ms)
    if purpose is Purpose.CONTENT_SAFETY:
        kids &= _leads_to_somebody(rows)
    return _decided(rows, kids, purpose, known, at_ms)


def decide_for_aggregates(rows: pa.Table, purpose: Purpose, known: Registries, at_ms: int) -> tuple[Decision, Flags]:
    """Which `rows` may count in aggregates over many viewers, and which of all rows are a child's, shape (n,).

    As `decide`, but for children: theirs count in crowds (`features.crowds`), and never for ads. Those of a profile
    that nobody has described, which may be a child's and cannot be told from others, do not.
    """
    is_child = _kids(rows, known, at_ms)
    kept_out = is_child if purpose is Purpose.AD_TARGETING else ~_present(rows["is_kids"])
    return _decided(rows, kept_out, purpose, known, at_ms), is_child


def may_be_counted(rows: pa.Table, nobodys: frozenset[str]) -> Flags:
    """Which rows may enter counts of how the platform works, which tell of nobody, shape (n,).

    Those of whoever allowed analytics, and of the `nobodys` events, which concern no person. Needs event_name, and
    consent_analytics where the rows have it.
    """
    counted = is_one_of(rows["event_name"], nobodys)
    if CONSENT_COLUMNS[Purpose.ANALYTICS] in rows.column_names:
        counted = counted | _booleans(rows[CONSENT_COLUMNS[Purpose.ANALYTICS]], missing=False)
    return counted


class Refusal(StrEnum):
    """Why a person is not answered with what is theirs."""

    UNKNOWN_VIEWER = "unknown_viewer"
    KIDS_PROFILE = "kids_profile"
    CONSENT_REFUSED = "consent_refused"
    CONSENT_UNKNOWN = "consent_unknown"


def profile_refusal(is_described: bool, is_kids: bool | None) -> Refusal | None:
    """Why nothing personal is read for a profile, if so: nobody has described it, or it is, or may be, a child's."""
    if not is_described:
        return Refusal.UNKNOWN_VIEWER
    return Refusal.KIDS_PROFILE if is_kids is not False else None


def consent_refusal(
    answers: Mapping[Purpose, bool | None], purposes: Collection[Purpose], market: str | None
) -> Refusal | None:
    """Why a user may not be answered with what is theirs for all of `purposes`; None if they may.

    `answers`: what the user's latest consent says; a purpose that is missing, or None, was never asked about, and then
    the default of the user's market holds, which without a market is no.

    Raises PurposeNotDecidableError.
    """
    said = [answers.get(consent) for consent in {one for purpose in purposes for one in required_consents(purpose)}]
    if any(answer is False for answer in said):
        return Refusal.CONSENT_REFUSED
    if all(answer is True for answer in said) or market_default(market):
        return None
    return Refusal.CONSENT_UNKNOWN


def decided_otherwise(
    before: Registries, before_ms: int, now: Registries, now_ms: int, purpose: Purpose
) -> tuple[set[str], set[str]]:
    """(users, profiles) of whom `decide` says something else `now`, as of `now_ms`, than it said before."""
    users, profiles = now.consents.people, now.profiles.people
    needs = required_consents(purpose)
    refuse = [_say_no(users, needs, known.consents, at_ms) for known, at_ms in ((before, before_ms), (now, now_ms))]
    kids = [known.profiles.child_until_ms(profiles, at_ms) for known, at_ms in ((before, before_ms), (now, now_ms))]
    return (
        set(users.filter(pa.array(refuse[0] != refuse[1])).to_pylist()),
        set(profiles.filter(pa.array(kids[0] != kids[1])).to_pylist()),
    )


def _decided(rows: pa.Table, kids: Flags, purpose: Purpose, known: Registries, at_ms: int) -> Decision:
    needed = _NEEDS.get(purpose, ())
    refused = np.zeros(rows.num_rows, dtype=bool)
    for consent in needed:
        refused |= ~_booleans(rows[CONSENT_COLUMNS[consent]], missing=False)
    verdicts = {
        Exclusion.KIDS_PROFILE: kids,
        Exclusion.REFUSED_ON_EVENT: refused,
        Exclusion.WITHDRAWN_SINCE: _said_no(rows, needed, known, at_ms),
    }
    if purpose is Purpose.ESSENTIAL:
        verdicts[Exclusion.NOT_ESSENTIAL] = ~is_one_of(rows["event_name"], known.essential_events)
    return Decision(_coded(verdicts))


def found_to_be_childrens(rows: pa.Table, known: Registries, at_ms: int) -> Flags:
    """Which rows are of a profile that is known at `at_ms` to have been a child's, then or since, shape (n,)."""
    if "profile_id" not in rows.column_names:
        return np.zeros(rows.num_rows, dtype=bool)
    profiles = encoded(rows["profile_id"])
    until_ms = np.append(known.profiles.child_until_ms(profiles.dictionary, at_ms), NEVER)
    if (until_ms == NEVER).all():
        return np.zeros(rows.num_rows, dtype=bool)
    happened_ms: int | NDArray[np.int64] = at_ms
    if "event_timestamp" in rows.column_names:
        happened_ms = milliseconds(rows["event_timestamp"])
    found: Flags = happened_ms <= until_ms[codes_of(profiles)]
    return found


def refused_by(rows: pa.Table, consent: Purpose, known: Registries, at_ms: int) -> Flags:
    """Which rows are of somebody whose latest answer by `at_ms` about one purpose is no, shape (n,)."""
    return _said_no(rows, (consent,), known, at_ms)


def _kids(rows: pa.Table, known: Registries, at_ms: int) -> Flags:
    """Which rows are a child's, or may be."""
    return _booleans(rows["is_kids"], missing=True) | found_to_be_childrens(rows, known, at_ms)


def _said_no(rows: pa.Table, consents: Sequence[Purpose], known: Registries, at_ms: int) -> Flags:
    """Which rows are of somebody who by `at_ms` says no to one of `consents`: its user, or its profile's."""

    def says_no(users: pa.Array) -> Flags:
        return _say_no(users, consents, known.consents, at_ms)

    found = _spread(rows["user_id"], says_no)
    if "profile_id" not in rows.column_names or not rows["user_id"].null_count:
        return found
    owners = _spread(rows["profile_id"], lambda profiles: _spread(known.profiles.owners_of(profiles), says_no))
    return found | (owners & ~_present(rows["user_id"]))


def _say_no(users: pa.Array, consents: Sequence[Purpose], history: ConsentHistory, at_ms: int) -> Flags:
    """Which of some distinct users, shape (users,)."""
    people = Pseudonyms(np.arange(len(users), dtype=np.int32), (users,))
    said = history.latest(people, np.full(len(users), at_ms))
    no: Flags = (said[:, [ANSWERED.index(consent) for consent in consents]] == NO).any(axis=1)
    return no


def _leads_to_somebody(rows: pa.Table) -> Flags:
    names = [name for name in (*PERSON_IDS, VIEWER_TOKEN) if name in rows.column_names]
    leads = np.zeros(rows.num_rows, dtype=bool)
    for name in names:
        leads |= _present(rows[name])
    return leads


def _coded(verdicts: Mapping[Exclusion, Flags]) -> NDArray[np.int8]:
    """The first reason of each row."""
    codes = np.full(len(next(iter(verdicts.values()))), _ALLOWED, dtype=np.int8)
    for reason in reversed(_REASONS):  # an earlier reason is written over a later one
        if reason in verdicts:
            codes[verdicts[reason]] = _REASONS.index(reason)
    return codes


def _spread(column: pa.Array | pa.ChunkedArray, of_distinct: Callable[[pa.Array], Flags]) -> Flags:
    """What is told of a column's distinct values, for every row; False where there is none."""
    texts = encoded(column)
    told = np.append(of_distinct(texts.dictionary), False)
    spread: Flags = told[codes_of(texts)]
    return spread


def _booleans(column: pa.ChunkedArray, *, missing: bool) -> Flags:
    filled: Flags = np.asarray(pc.fill_null(column, missing))
    return filled


def _present(column: pa.ChunkedArray) -> Flags:
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    present: Flags = np.asarray(column.is_valid())
    return present
