"""May this person's data be used for this purpose, now? Asked before anything personal is read (spec 8.1, 8.5).

The first rule that refuses gives the reason:

    purpose          nothing about a person is served for a purpose that has no consent of its own
    profile          one that nobody described may be a child's; a child's is never looked at further
    owner            a profile asked for together with a user must be that user's
    consent          the user's, for every purpose involved; never asked: the market's default
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from features.decision import CONSENT_COLUMNS, consent_refusal, profile_refusal
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving.online_store import OnlineStore
from serving.reasons import Reason
from serving.store_reader import read_records

PROFILES, CONSENTS = "profiles", "consents"


@dataclass(frozen=True)
class Person:
    """Whom a caller asks about, by plain ids: a profile, a user, or a profile of a user."""

    user_id: str | None = None
    profile_id: str | None = None


@dataclass(frozen=True)
class _Hashes:
    """Every hash under which a person may be stored, newest salt first."""

    profile: tuple[str, ...] | None
    user: tuple[str, ...] | None


class ConsentGate:
    """Decides for many people at once with two reads: their profiles, then their users' consents."""

    def __init__(self, pseudonymizer: Pseudonymizer) -> None:
        self._pseudonymizer = pseudonymizer

    def refusals(
        self, store: OnlineStore, people: Sequence[Person], purposes: Collection[Purpose], market: str | None
    ) -> list[Reason | None]:
        """For each person: None if `purposes`, and the analytics they rest on, are all allowed, else why not.

        `market` decides for those who were never asked; without one they are not asked for granted.
        """
        if not set(purposes) <= CONSENT_COLUMNS.keys():
            return [Reason.PURPOSE_NOT_PERMITTED] * len(people)
        hashes = [self._hashes(person) for person in people]
        profiles = first_records(store, PROFILES, [person.profile or () for person in hashes])
        refused = [
            _profile_refusal(person, profile) if person.profile is not None else None
            for person, profile in zip(hashes, profiles, strict=True)
        ]
        owners = [
            () if reason else _owner(person, profile)
            for person, profile, reason in zip(hashes, profiles, refused, strict=True)
        ]
        consents = first_records(store, CONSENTS, owners)
        return [
            reason or _consent_refusal(consent, purposes, market)
            for reason, consent in zip(refused, consents, strict=True)
        ]

    def _hashes(self, person: Person) -> _Hashes:
        hashed = self._pseudonymizer.candidates
        return _Hashes(
            profile=None if person.profile_id is None else hashed(person.profile_id),
            user=None if person.user_id is None else hashed(person.user_id),
        )


def first_records(store: OnlineStore, group: str, candidates: Sequence[Sequence[str]]) -> list[Any]:
    """For each list of hashes, the record of the first that has one, in one read."""
    found = iter(read_records(store, group, [entity for entities in candidates for entity in entities]))
    records = [[next(found) for _ in entities] for entities in candidates]
    return [next((record for record in few if record is not None), None) for few in records]


def _profile_refusal(person: _Hashes, profile: Any) -> Reason | None:
    refusal = profile_refusal(profile is not None, None if profile is None else profile.get("is_kids"))
    if refusal is not None:
        return Reason(refusal)
    owner = profile.get("user_id")
    if person.user is not None and owner is not None and owner not in person.user:
        return Reason.PROFILE_OF_ANOTHER_USER
    return None


def _owner(person: _Hashes, profile: Any) -> tuple[str, ...]:
    """The hashes of the user whose consent counts: the profile's own, else the one the caller named."""
    owner = None if profile is None else profile.get("user_id")
    if owner is not None and (person.user is None or owner not in person.user):
        return (owner,)
    return person.user or ()


def _consent_refusal(consent: Any, purposes: Collection[Purpose], market: str | None) -> Reason | None:
    answers = {} if consent is None else {one: consent.get(f"allows_{one}") for one in CONSENT_COLUMNS}
    refusal = consent_refusal(answers, purposes, market)
    return None if refusal is None else Reason(refusal)
