"""Finding people: from plain user ids to every pseudonym under which their rows stand in any table.

    1. a user's hash under every live salt
    2. every row that names the user tells profiles and sessions
    3. every row that names one of these tells whose else they are, and of a profile further sessions
    4. of kids' profiles, whose rows have no id, the tokens of every day of which there are events

A profile is its registered user's; one that nobody registered, and a session, is the person's if all rows that have it
agree. What also stands on another person's rows is left out: a row that names the person is theirs all the same.

Whoever has the salts can link a token to its profile, so that kids' rows are found too. After the salt was changed, a
child's rows are found under it once the profile was described under it, which every `profile.updated` does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa
from pyiceberg.table import Table

from features.pseudonyms import Pseudonymizer
from features.windows import DAY_MS
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import live_files, lower_instant_ms, upper_instant_ms
from pipelines.privacy.person import Person
from pipelines.privacy.whereabouts import id_columns, rows_of, tables_of_people, whereabouts

REGISTRY, EVENTS = "privacy.profiles", "bronze.events"
_TIMES = ("event_timestamp", "first_event_at")  # of the events that a row is of


class Link(NamedTuple):
    """Ids that stand together on some row of a table."""

    table: str
    user_id: str | None
    profile_id: str | None
    session_id: str | None


def find_people(lakehouse: Lakehouse, hasher: Pseudonymizer, plain_ids: Iterable[str]) -> dict[str, Person]:
    """Each plain user id's person. One that no row names under any salt is not known: they have their hashes alone."""
    return find_hashed(lakehouse, hasher, {plain: frozenset(hasher.candidates(plain)) for plain in plain_ids})


def find_hashed(lakehouse: Lakehouse, hasher: Pseudonymizer, users: Mapping[str, frozenset[str]]) -> dict[str, Person]:
    """Each person of whom only the user's hashes are known, under whatever name they are given here."""
    tables = tables_of_people(lakehouse)
    named = links(tables, Person(user_ids=frozenset().union(*users.values())))
    near = named | links(tables, Person(profile_ids=_all(named, "profile_id"), session_ids=_all(named, "session_id")))
    # A profile's rows need not name its user, so their sessions may not have been looked at.
    further = _all(near, "session_id") - _all(named, "session_id")
    owners = _Owners.of(near | links(tables, Person(session_ids=further)))
    return _with_tokens(tables, hasher, {plain: owners.person(hashes) for plain, hashes in users.items()})


@dataclass(frozen=True)
class _Owners:
    """Who stands with whom on the rows that were seen."""

    users: frozenset[str]
    profiles_of_user: Mapping[str, frozenset[str]]
    users_of_profile: Mapping[str, frozenset[str]]  # the registry's where it has any
    sessions_of: Mapping[str, frozenset[str]]  # of a user or profile
    people_of_session: Mapping[str, frozenset[str]]  # users and profiles
    nameless: frozenset[str]  # sessions of events that named neither

    @classmethod
    def of(cls, seen_together: Iterable[Link]) -> "_Owners":
        """By all rows that were seen."""
        some = list(seen_together)
        pairs = [(one.user_id, one.profile_id) for one in some]
        registered = [(one.profile_id, one.user_id) for one in some if one.table == REGISTRY]
        seen = [(one.profile_id, one.user_id) for one in some]
        in_session = [(who, one.session_id) for one in some for who in (one.user_id, one.profile_id)]
        return cls(
            _all(some, "user_id"),
            _gathered(pairs),
            {**_gathered(seen), **_gathered(registered)},
            _gathered(in_session),
            _gathered((session, who) for who, session in in_session),
            frozenset(
                one.session_id
                for one in some
                if one.table == EVENTS and one.session_id and one.user_id is None and one.profile_id is None
            ),
        )

    def person(self, user_ids: frozenset[str]) -> Person:
        """Everything that is a user's alone."""
        near = frozenset().union(*(self.profiles_of_user.get(user, ()) for user in user_ids))
        profiles = frozenset(one for one in near if self.users_of_profile[one] <= user_ids)
        who = user_ids | profiles
        sessions = frozenset().union(*(self.sessions_of.get(one, ()) for one in who))
        alone = frozenset(one for one in sessions if self.people_of_session[one] <= who)
        known = not user_ids.isdisjoint(self.users)
        return Person(user_ids, profiles, alone, alone & self.nameless, is_known=known)


def links(tables: Mapping[str, Table], person: Person) -> set[Link]:
    """The distinct ids of all rows that have one of the person's."""
    if not person.ids:
        return set()
    return {Link(name, *ids) for name, table in tables.items() for ids in _distinct_ids(table, person)}


def _distinct_ids(table: Table, person: Person) -> Iterator[tuple[str | None, ...]]:
    columns = [name for name in id_columns(table) if name in Link._fields]
    for rows in rows_of(whereabouts(table, person), person, columns):
        texts = pa.table({name: rows[name].cast(pa.string()) for name in columns})
        distinct = texts.group_by(columns).aggregate([])
        of = {name: distinct[name].to_pylist() for name in columns}
        yield from zip(*(of.get(name, [None] * len(distinct)) for name in Link._fields[1:]), strict=True)


def _with_tokens(tables: Mapping[str, Table], hasher: Pseudonymizer, people: Mapping[str, Person]) -> dict[str, Person]:
    """The same people with the tokens of their kids' profiles; one that nobody described was treated as a child's."""
    is_kids = _is_kids(tables, Person.merged(people.values()))
    children = {plain: [one for one in who.profile_ids if is_kids.get(one, True)] for plain, who in people.items()}
    days = _days(tables) if any(children.values()) else set()
    keyed = [Pseudonymizer((salt,)) for salt in hasher.salts]

    def tokens(profiles: Iterable[str]) -> frozenset[str]:
        return frozenset(one.daily_token(child, day) for child in profiles for one in keyed for day in days)

    return {plain: replace(who, tokens=tokens(children[plain])) for plain, who in people.items()}


def _is_kids(tables: Mapping[str, Table], people: Person) -> dict[str, bool]:
    """Of each registered profile whether it was ever described as a child's."""
    if REGISTRY not in tables or not people.profile_ids:
        return {}
    profiles = Person(profile_ids=people.profile_ids)
    found: dict[str, bool] = {}
    for rows in rows_of(whereabouts(tables[REGISTRY], profiles), profiles, ["profile_id", "is_kids"]):
        for one in rows.to_pylist():
            found[one["profile_id"]] = found.get(one["profile_id"], False) or one["is_kids"]
    return found


def _days(tables: Mapping[str, Table]) -> set[int]:
    """The days (since the epoch, UTC) of which there may be events with a token."""
    days: set[int] = set()
    for table in tables.values():
        columns = table.schema().column_names
        times = [name for name in _TIMES if name in columns] if "viewer_token" in columns else []
        for file in live_files(table) if times else ():
            for name in times:
                first_ms, last_ms = lower_instant_ms(table, file, name), upper_instant_ms(table, file, name)
                if first_ms is not None and last_ms is not None:
                    days.update(range(first_ms // DAY_MS, last_ms // DAY_MS + 1))
    return days


def _all(links: Iterable[Link], name: str) -> frozenset[str]:
    return frozenset(id_ for one in links if (id_ := getattr(one, name)) is not None)


def _gathered(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, frozenset[str]]:
    """What stands beside each; a missing one stands beside nothing."""
    found: dict[str, set[str]] = {}
    for one, other in pairs:
        if one is not None and other is not None:
            found.setdefault(one, set()).add(other)
    return {one: frozenset(others) for one, others in found.items()}
