"""Looking features up: consent is asked, the store read once, what it gives valued, and a share of it logged."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, Field

from features.declarations import FeatureGroup
from features.entities import entity as known_entity
from features.packing import Values
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving import feature_values as online
from serving.consent_gate import ConsentGate, Person
from serving.errors import StoreUnavailableError
from serving.feature_log import STREAM, FeatureLog, ServedFeatures
from serving.online_store import OnlineStore
from serving.reasons import Reason
from serving.settings import ServingSettings
from serving.store_reader import META, WATERMARK, StoreReader, watermark_of
from serving.watch import measures

Entity = Literal["user_id", "profile_id", "content_id", "channel_id", "platform", "cdn_region"]
"""What can be asked about. Of a session nobody can tell here whose it is, so it cannot be asked for consent."""


_MOST_AT_ONCE = 32
"""Values of one request that are read and worked out on the event loop; more than that, in a thread."""


class FeatureRow(BaseModel):
    """The features of one key."""

    key: str = Field(description="the key as it was asked for", examples=["profile-17"])
    found: bool = Field(description="whether the store knows anything of the key that may be shown")
    values: dict[str, Any] = Field(
        description="by feature; null where there is no value",
        examples=[{"completion_rate": 0.82, "preferred_content_type": "vod"}],
    )
    age_ms: int | None = Field(default=None, description="as_of less its last event", examples=[41_250])
    reason: Reason | None = Field(default=None, description="why nothing is shown")


@dataclass(frozen=True)
class Question:
    """Groups of one entity, and the keys that they are asked for."""

    groups: Sequence[FeatureGroup]
    entity: Entity
    keys: Sequence[str]


@dataclass(frozen=True)
class GroupFound:
    """What is known of a question's keys for one of its groups, and for each key why nothing is shown."""

    values: Values
    reasons: Sequence[Reason | None]

    def rows(self, keys: Sequence[str]) -> list[FeatureRow]:
        """A row for each key."""
        names = list(self.values.columns)
        of_keys = zip(*self.values.columns.values(), strict=True)
        return [
            FeatureRow(
                key=key,
                found=reason is None and age_ms is not None,
                values=dict(zip(names, row, strict=True)),
                age_ms=None if age_ms is None else max(age_ms, 0),  # of a value that is newer than `as_of` it is less
                reason=reason,
            )
            for key, row, age_ms, reason in zip(keys, of_keys, self.values.ages_ms, self.reasons, strict=True)
        ]


@dataclass(frozen=True)
class _Packed:
    """What the store gave for a question: for each key why it is refused, and for each group the packed values.

    `names`: for each group, under which name each value was found.
    """

    refusals: Sequence[Reason | None]
    values: Sequence[Sequence[bytes | None]]
    names: Sequence[Sequence[str | None]]


@dataclass(frozen=True)
class _Read:
    """What one look-up in the store gave; `stream`: how far the stream says it has come."""

    as_of_ms: int | None
    packed: Sequence[_Packed]
    stream: bytes | None


class FeatureLookup:
    """Asks the consent gate, then the online store, and values what they give. All look-ups of features come here."""

    def __init__(
        self,
        store: StoreReader,
        pseudonymizer: Pseudonymizer,
        settings: ServingSettings,
        log: FeatureLog | None = None,
    ) -> None:
        self._store = store
        self._pseudonymizer = pseudonymizer
        self._gate = ConsentGate(pseudonymizer)
        self._as_of = settings.as_of
        self._log = log

    async def rows(
        self, group: FeatureGroup, entity: Entity, keys: Sequence[str], purpose: Purpose, market: str | None
    ) -> tuple[int | None, list[FeatureRow]]:
        """The instant of the values, and a row for each key."""
        as_of_ms, (rows,) = await self.rows_of([group], entity, keys, purpose, market)
        return (None if is_degraded(rows) else as_of_ms), rows

    async def rows_of(
        self, groups: Sequence[FeatureGroup], entity: Entity, keys: Sequence[str], purpose: Purpose, market: str | None
    ) -> tuple[int | None, list[list[FeatureRow]]]:
        """The instant of the values, and for each group a row for each key."""
        as_of_ms, (found,) = await self.answers([Question(groups, entity, keys)], purpose, market)
        return as_of_ms, [one.rows(keys) for one in found]

    async def answers(
        self, questions: Sequence[Question], purpose: Purpose, market: str | None
    ) -> tuple[int | None, list[list[GroupFound]]]:
        """The instant of the values, and for each question what is found for its groups; in one look-up."""
        drawn = [self._log.drawn(len(one.keys)) if self._log is not None else () for one in questions]
        is_logged = any(len(places) for places in drawn)
        is_short = sum(len(one.groups) * len(one.keys) for one in questions) <= _MOST_AT_ONCE
        try:
            read = await self._store.read(partial(self._read, questions, purpose, market, is_logged), is_short=is_short)
        except StoreUnavailableError as error:
            reason = Reason.of(error)
            nothing = [[_nothing(group, one.keys, reason) for group in one.groups] for one in questions]
            self._keep(questions, drawn, nothing, _Read(self._instant_without_store(), [], None))
            return None, nothing
        as_of_ms, packed = read.as_of_ms, read.packed
        # Valuing is arithmetic and has no part in the store's budget. What is long must not stop the event loop, and
        # what is short is over before a thread has begun.
        value = partial(_valued, questions, packed, as_of_ms or 0)
        answers = value() if is_short else await asyncio.to_thread(value)
        for one, of_groups in zip(questions, answers, strict=True):
            for group, found in zip(one.groups, of_groups, strict=True):
                measures.served(group.name, found.values)
        self._keep(questions, drawn, answers, read)
        return as_of_ms, answers

    def _keep(
        self,
        questions: Sequence[Question],
        drawn: Sequence[Sequence[int]],
        answers: Sequence[Sequence[GroupFound]],
        read: _Read,
    ) -> None:
        """Log the keys that were drawn, but for those of people who are refused. Never waits."""
        if self._log is None:
            return
        for place, (one, places, of_groups) in enumerate(zip(questions, drawn, answers, strict=True)):
            packed = read.packed[place] if read.packed else None
            for key in places:
                if packed is None or packed.refusals[key] is None:
                    self._log.add(self._served(one, key, of_groups, read, packed))

    def _served(
        self, one: Question, key: int, of_groups: Sequence[GroupFound], read: _Read, packed: _Packed | None
    ) -> list[ServedFeatures]:
        plain = one.keys[key]
        is_personal = known_entity(one.entity).is_personal
        about = self._gate.hashes(Person(**{one.entity: plain})) if is_personal else None
        newest = self._pseudonymizer.hash(plain) if is_personal else plain
        rows = []
        for number, (group, found) in enumerate(zip(one.groups, of_groups, strict=True)):
            reason = found.reasons[key]
            rows.append(
                ServedFeatures(
                    group,
                    one.entity,
                    newest if packed is None else packed.names[number][key] or newest,
                    about,
                    {name: column[key] for name, column in found.values.columns.items()},
                    found.values.ages_ms[key],
                    read.as_of_ms,
                    None if packed is None else packed.values[number][key],
                    None if reason is None else str(reason),
                    read.stream,
                )
            )
        return rows

    def _instant_without_store(self) -> int | None:
        """What would have been asked for while the store says nothing: the clock's instant is known without it."""
        return time.time_ns() // 1_000_000 if self._as_of == "now" else None

    def _read(
        self,
        questions: Sequence[Question],
        purpose: Purpose,
        market: str | None,
        is_logged: bool,
        store: OnlineStore,
    ) -> _Read:
        now_ms = time.time_ns() // 1_000_000
        refusals = self._refusals(questions, purpose, market, store)
        names = [self._stored_names(one, refused) for one, refused in zip(questions, refusals, strict=True)]
        wanted = [
            (group.stored_as(one.entity), [name for few in of_keys for name in few])
            for one, of_keys in zip(questions, names, strict=True)
            for group in one.groups
        ]
        # One read, so that the watermark and what the stream promises are those of the values.
        (watermark, stream), *found = store.get_groups([(META, [WATERMARK, STREAM]), *wanted])
        values = iter(found)
        packed = []
        for one, refused, of_keys in zip(questions, refusals, names, strict=True):
            theirs = [_first_found(next(values), of_keys, with_names=is_logged) for _ in one.groups]
            packed.append(_Packed(refused, [few for few, _ in theirs], [under for _, under in theirs]))
        return _Read(now_ms if self._as_of == "now" else watermark_of(watermark), packed, stream)

    def _refusals(
        self, questions: Sequence[Question], purpose: Purpose, market: str | None, store: OnlineStore
    ) -> list[Sequence[Reason | None]]:
        """For each question, and each of its keys, why nothing may be read. Of all people consent is asked at once."""
        asked: list[tuple[Person, set[Purpose]]] = []
        for one in questions:
            if known_entity(one.entity).is_personal:
                purposes = {purpose, *(group.purpose for group in one.groups)}
                asked += [(Person(**{one.entity: key}), purposes) for key in one.keys]
        found = iter(self._gate.refusals_by_purposes(store, asked, market))
        return [[next(found) if known_entity(one.entity).is_personal else None for _ in one.keys] for one in questions]

    def _stored_names(self, one: Question, refusals: Sequence[Reason | None]) -> list[Sequence[str]]:
        """For each key, the names that something may be stored under, none if it is refused."""
        if not known_entity(one.entity).is_personal:
            return [(key,) for key in one.keys]
        hashed = self._pseudonymizer.candidates
        return [() if refusal else hashed(key) for key, refusal in zip(one.keys, refusals, strict=True)]


def _first_found(
    values: Sequence[bytes | None], names: Sequence[Sequence[str]], *, with_names: bool
) -> tuple[list[bytes | None], list[str | None]]:
    """For each key, the value under the first of its names that has one, and, if wanted, that name.

    `values` are those of all names in a row.
    """
    flat = iter(values)
    of_keys = [[next(flat) for _ in few] for few in names]
    found = [next((value for value in few if value is not None), None) for few in of_keys]
    if not with_names:
        return found, []
    under = [
        next((name for name, value in zip(few, theirs, strict=True) if value is not None), None)
        for few, theirs in zip(names, of_keys, strict=True)
    ]
    return found, under


def _valued(questions: Sequence[Question], packed: Sequence[_Packed], at_ms: int) -> list[list[GroupFound]]:
    return [
        [
            _found(group, one.keys, values, of_one.refusals, at_ms)
            for group, values in zip(one.groups, of_one.values, strict=True)
        ]
        for one, of_one in zip(questions, packed, strict=True)
    ]


def _found(
    group: FeatureGroup,
    keys: Sequence[str],
    values: Sequence[bytes | None],
    refusals: Sequence[Reason | None],
    at_ms: int,
) -> GroupFound:
    try:
        return GroupFound(online.columns(group, values, at_ms, as_newest=True), refusals)
    except StoreUnavailableError as error:
        return _nothing(group, keys, Reason.of(error))


def _nothing(group: FeatureGroup, keys: Sequence[str], reason: Reason) -> GroupFound:
    return GroupFound(online.columns(group, [None] * len(keys), 0), [reason] * len(keys))


def is_degraded(rows: Sequence[FeatureRow]) -> bool:
    """Whether something failed, and values are missing for that reason."""
    return any(row.reason is not None and row.reason.is_degraded for row in rows)
