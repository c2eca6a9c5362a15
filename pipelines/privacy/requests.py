"""Who asked to be erased and is not yet: the rows of `privacy.erasures`.

A request goes by its mark: the tombstone of the user. Its rows are all pseudonyms that are known of the user, so that
an erasure that was interrupted can be gone on with, from any machine, when nothing else tells any more what to look
for. They are the last that is deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.distinct import codes_of, encoded
from features.pseudonyms import Pseudonymizer
from pipelines.erased import USER, Tombstones, request_rows
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_all
from pipelines.privacy.person import Person

ERASURES = "privacy.erasures"
_FIELDS = {
    USER: "user_ids",
    "profile": "profile_ids",
    "session": "session_ids",
    "nameless session": "nameless",
    "token": "tokens",
}


@dataclass(frozen=True)
class Request:
    """One user's. `mark`: the user's tombstone."""

    mark: str
    asked_at: datetime
    asked_by: str
    person: Person


@dataclass(frozen=True)
class Requests:
    """Several, to be done in one pass. Travels to Ray tasks."""

    by_mark: Mapping[str, Request]

    @property
    def person(self) -> Person:
        """Everybody as one."""
        return Person.merged(one.person for one in self.by_mark.values())

    def whose(self) -> "Whose":
        """Tells whose a row is."""
        marks = list(self.by_mark)
        owners: dict[str, dict[str, int]] = {}
        for number, mark in enumerate(marks):
            for column, ids in self.by_mark[mark].person.ids.items():
                owners.setdefault(column, {}).update(dict.fromkeys(ids, number))
        return Whose(
            tuple(marks),
            {
                column: (pa.array(list(of), pa.string()), np.fromiter(of.values(), np.int64))
                for column, of in owners.items()
            },
        )


@dataclass(frozen=True)
class Whose:
    """Of which request each row is: (ids, request of each) by column."""

    marks: tuple[str, ...]
    ids: Mapping[str, tuple[pa.Array, NDArray[np.int64]]]

    @property
    def columns(self) -> tuple[str, ...]:
        """What it looks at, where rows have it."""
        return tuple(self.ids)

    def __call__(self, rows: pa.Table) -> NDArray[np.int64]:
        """The number of the request, shape (n,); -1 for a row of nobody's."""
        found = np.full(rows.num_rows, -1, np.int64)
        for name, (ids, owners) in self.ids.items():
            if name in rows.column_names and not pa.types.is_null(rows[name].type):
                column = encoded(rows[name])
                places = pc.index_in(column.dictionary.cast(pa.string()), value_set=ids).fill_null(-1).to_numpy()
                of_values = np.append(np.where(places >= 0, owners[places], -1), -1)
                found = np.where(found >= 0, found, of_values[codes_of(column)])
        return found


def ask(
    lakehouse: Lakehouse, plain_ids: Sequence[str], asked_at: datetime, hasher: Pseudonymizer, stones: Tombstones,
    made: lineage.Run,
) -> list[str]:  # fmt: skip
    """Put users on record who ask to be erased; the marks of all, those included that were on record already."""
    marks = {stones.mark(USER, user): user for user in plain_ids}
    known = set(pending(lakehouse))
    new = [user for mark, user in marks.items() if mark not in known]
    _append(lakehouse, request_rows(new, [asked_at] * len(new), "reel privacy erase", hasher, stones), made)
    return list(marks)


def pending(lakehouse: Lakehouse) -> dict[str, Request]:
    """All on record, by mark, with what is known of each."""
    rows = read_all(lakehouse.existing(ERASURES), tables.ERASURES).to_pylist()
    found: dict[str, Request] = {}
    ids: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        mark = row["request"]
        known = found.get(mark)
        if known is None or row["asked_at"] < known.asked_at:
            found[mark] = Request(mark, row["asked_at"], row["asked_by"], Person())
        ids.setdefault(mark, {}).setdefault(_FIELDS[row["kind"]], set()).add(row["pseudonym"])
    return {mark: replace(one, person=_person(ids[mark])) for mark, one in found.items()}


def _person(ids: Mapping[str, set[str]]) -> Person:
    user, profile, session, nameless, token = (frozenset(ids.get(name, ())) for name in _FIELDS.values())
    return Person(user, profile, session, nameless, token)


def record(lakehouse: Lakehouse, found: Iterable[Request], made: lineage.Run) -> None:
    """Put on record what was found of people beyond what is there."""
    known = {mark: one.person for mark, one in pending(lakehouse).items()}
    rows = [
        {
            "request": one.mark,
            "asked_at": one.asked_at,
            "asked_by": one.asked_by,
            "kind": kind,
            "pseudonym": pseudonym,
        }
        for one in found
        for kind, name in _FIELDS.items()
        for pseudonym in sorted(getattr(one.person, name) - getattr(known.get(one.mark, Person()), name))
    ]
    _append(lakehouse, pa.Table.from_pylist(rows, schema=tables.ERASURES), made)


def _append(lakehouse: Lakehouse, rows: pa.Table, made: lineage.Run) -> None:
    table = lakehouse.table(tables.erasures())
    if rows.num_rows:
        facts = made.facts(lineage.Inputs())
        made.wrote(commit_files(table, write_files(TableFiles.of(table), rows), None, facts))
