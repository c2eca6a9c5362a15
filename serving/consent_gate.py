"""May this person's data be used for this purpose, now? Asked before anything personal is read (spec 8.1, 8.5).

The first rule that refuses gives the reason:

    purpose          nothing about a person is served for a purpose that has no consent of its own
    profile          one that nobody described may be a child's; a child's is never looked at further
    owner            a profile asked for together with a user must be that user's
    consent          the user's, for every purpose involved; never asked: the market's default

Somebody may be known under several salts. What was said before a new one came stands under the older ones only, so
all of it is read, and the stricter holds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from features.decision import CONSENT_COLUMNS, consent_refusal, profile_refusal
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving.online_store import OnlineStore
from serving.reasons import Reason
from serving.store_reader import read_groups

PROFILES, CONSENTS = "profiles", "consents"
_ALLOWS = {purpose: f"allows_{purpose}" for purpose in CONSENT_COLUMNS}  # as records have it


@dataclass(frozen=True)
class Person:
    """Whom a caller asks about, by plain ids: a profile, a user, or a profile of a user."""

    user_id: str | None = None
    profile_id: str | None = None


@dataclass(frozen=True)
class Hashes:
    """Every hash under which a person may be stored, newest salt first."""

    profile: tuple[str, ...] | None
    user: tuple[str, ...] | None


_NOBODY = Hashes(profile=None, user=None)


class ConsentGate:
    """Decides for many people at once with two reads: their profiles, then the consents of whose they are."""

    def __init__(self, pseudonymizer: Pseudonymizer) -> None:
        self._pseudonymizer = pseudonymizer

    def refusals(
        self, store: OnlineStore, people: Sequence[Person], purposes: Collection[Purpose], market: str | None
    ) -> list[Reason | None]:
        """For each person: None if `purposes`, and the analytics they rest on, are all allowed, else why not.

        `market` decides for those who were never asked; without one they are not asked for granted.
        """
        return refusals_of(store, [self.hashes(person) for person in people], purposes, market)

    def refusals_by_purposes(
        self, store: OnlineStore, asked: Sequence[tuple[Person, Collection[Purpose]]], market: str | None
    ) -> list[Reason | None]:
        """`refusals` where what is asked for is not the same of everybody; in as many reads."""
        return _refusals(store, [(self.hashes(person), purposes) for person, purposes in asked], market)

    def hashes(self, person: Person) -> Hashes:
        """What stands for the person here."""
        hashed = self._pseudonymizer.candidates
        return Hashes(
            profile=None if person.profile_id is None else hashed(person.profile_id),
            user=None if person.user_id is None else hashed(person.user_id),
        )


def refusals_of(
    store: OnlineStore, hashes: Sequence[Hashes], purposes: Collection[Purpose], market: str | None
) -> list[Reason | None]:
    """The same of people whose plain ids are not known any more."""
    return _refusals(store, [(person, purposes) for person in hashes], market)


def _refusals(
    store: OnlineStore, asked: Sequence[tuple[Hashes, Collection[Purpose]]], market: str | None
) -> list[Reason | None]:
    """In the first read the profiles, and the consents of whoever is asked about without one; in the second the rest.

    Of whom nothing is permitted nothing is read.
    """
    is_decidable = [set(purposes) <= CONSENT_COLUMNS.keys() for _, purposes in asked]
    people = [person if is_asked else _NOBODY for (person, _), is_asked in zip(asked, is_decidable, strict=True)]
    profiles, consents = _all_records(
        store,
        [
            (PROFILES, [person.profile or () for person in people]),
            (CONSENTS, [person.user or () if person.profile is None else () for person in people]),
        ],
    )
    refused = [
        _profile_refusal(person, known) if person.profile is not None else None
        for person, known in zip(people, profiles, strict=True)
    ]
    owners = [
        () if reason or person.profile is None else person.user or _owners(known)
        for person, known, reason in zip(people, profiles, refused, strict=True)
    ]
    (of_owners,) = _all_records(store, [(CONSENTS, owners)]) if any(owners) else (owners,)
    known_consents = [theirs or owners for theirs, owners in zip(consents, of_owners, strict=True)]
    return [
        (reason or _consent_refusal(known, purposes, market)) if is_asked else Reason.PURPOSE_NOT_PERMITTED
        for (_, purposes), is_asked, reason, known in zip(asked, is_decidable, refused, known_consents, strict=True)
    ]


def _all_records(store: OnlineStore, wanted: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> list[list[list[Any]]]:
    """For each group, and each list of hashes, the records of those that have one; in one read."""
    flat = [(group, [entity for entities in candidates for entity in entities]) for group, candidates in wanted]
    found = [iter(records) for records in read_groups(store, flat)]
    return [
        [[record for record in [next(records) for _ in entities] if record is not None] for entities in candidates]
        for records, (_, candidates) in zip(found, wanted, strict=True)
    ]


def _profile_refusal(person: Hashes, known: Sequence[Any]) -> Reason | None:
    is_adults = bool(known) and all(profile.get("is_kids") is False for profile in known)
    refusal = profile_refusal(bool(known), None if not known else not is_adults)
    if refusal is not None:
        return Reason(refusal)
    if person.user is not None and set(_owners(known)) - set(person.user):
        return Reason.PROFILE_OF_ANOTHER_USER
    return None


def _owners(profiles: Sequence[Any]) -> tuple[str, ...]:
    """The hashes of the users whose profiles they are, whose consent counts where a caller names no user."""
    owners = (profile.get("user_id") for profile in profiles)
    return tuple(dict.fromkeys(owner for owner in owners if owner is not None))


def _consent_refusal(known: Sequence[Any], purposes: Collection[Purpose], market: str | None) -> Reason | None:
    answers = {one: _stricter([consent.get(name) for consent in known]) for one, name in _ALLOWS.items()}
    refusal = consent_refusal(answers, purposes, market)
    return None if refusal is None else Reason(refusal)


def _stricter(answers: Sequence[Any]) -> bool | None:
    is_allowed = None
    for answer in answers:
        if answer is False:
            return False
        is_allowed = is_allowed or answer is True or None
    return is_allowed
