"""A person as the tables know them: every pseudonym under which a row may be theirs."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.distinct import codes_of, encoded

_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Person:
    """One person, or several at once. `people.find_people` makes one from a plain user id.

    user_ids     hashes of the user under every live salt, whether or not a row has them: what else is kept of a person
                 outside the lakehouse (online store, training sets) is looked up by them
    profile_ids  hashes of the profiles
    session_ids  hashes of sessions in which nobody else was seen
    nameless     those of the sessions in which some event named neither user nor profile
    tokens       daily tokens of the kids' profiles among them
    is_known     whether a row of the lakehouse names the user under any salt
    """

    user_ids: frozenset[str] = _NOBODY
    profile_ids: frozenset[str] = _NOBODY
    session_ids: frozenset[str] = _NOBODY
    nameless: frozenset[str] = _NOBODY
    tokens: frozenset[str] = _NOBODY
    is_known: bool = False

    @classmethod
    def merged(cls, people: Iterable["Person"]) -> "Person":
        """All of them as one, so that whatever is theirs is found in one pass."""
        some = list(people)
        return cls(
            _NOBODY.union(*(one.user_ids for one in some)),
            _NOBODY.union(*(one.profile_ids for one in some)),
            _NOBODY.union(*(one.session_ids for one in some)),
            _NOBODY.union(*(one.nameless for one in some)),
            _NOBODY.union(*(one.tokens for one in some)),
            any(one.is_known for one in some),
        )

    @cached_property
    def ids(self) -> dict[str, tuple[str, ...]]:
        """What to look for in which column, sorted; a column of which there is nothing to look for is left out."""
        by_column = {
            "user_id": self.user_ids,
            "profile_id": self.profile_ids,
            "session_id": self.session_ids,
            # Aggregates count the viewers of all other profiles by the profile's own hash.
            "viewer_token": self.profile_ids | self.tokens,
        }
        return {name: tuple(sorted(ids)) for name, ids in by_column.items() if ids}

    def mask(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Which rows are theirs, shape (n,), by whichever of the id columns the rows have."""
        theirs = np.zeros(rows.num_rows, dtype=bool)
        for name, ids in self._value_sets.items():
            if name not in rows.column_names or pa.types.is_null(rows[name].type):
                continue
            column = encoded(rows[name])
            is_sought = pc.is_in(column.dictionary, value_set=ids.cast(column.dictionary.type))
            theirs |= np.append(np.asarray(is_sought), False)[codes_of(column)]
        return theirs

    @cached_property
    def _value_sets(self) -> dict[str, pa.Array]:
        return {name: pa.array(ids, pa.string()) for name, ids in self.ids.items()}
