"""Who may have personal features: today's consent, asked of every row of the left table.

Rows of the left table are never dropped by a join, so a row of somebody who may not be used keeps its place and gets no
personal feature: all of them are null, their ages too, and the reason is counted. What says nothing about a person
(popularity of a title) stays. A training set leaves such rows out; `reason` says of each which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.columns import take
from features.decision import CONSENT_COLUMNS, Exclusion, Registries, decide
from features.distinct import codes_of, encoded
from features.errors import SelectionError
from features.pseudonyms import Pseudonyms
from features.purposes import Purpose
from features.selection import Selection
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.viewing import KnownPeople

USER, PROFILE = "user_id", "profile_id"
_REASONS = [str(Exclusion.KIDS_PROFILE), str(Exclusion.WITHDRAWN_SINCE)]


@dataclass(frozen=True)
class People:
    """What is known of people now, and by which columns the left table names them."""

    known: Registries
    user_columns: tuple[str, ...]
    profile_columns: tuple[str, ...]
    purpose: Purpose
    at_ms: int

    @classmethod
    def of(
        cls,
        lakehouse: Lakehouse,
        selections: Sequence[Selection],
        left_columns: Sequence[str],
        keys: Mapping[str, str],
        purpose: Purpose,
        at_ms: int,
    ) -> "People | None":
        """As known at `at_ms`; None where nothing personal is asked for.

        Raises:
            SelectionError: features of a session or a device are asked for, of which nobody can tell whose it is.
        """
        personal = [one for one in selections if one.is_personal]
        if not personal:
            return None
        users = _columns(USER, personal, left_columns, keys)
        profiles = _columns(PROFILE, personal, left_columns, keys)
        if not users and not profiles:
            raise SelectionError(
                f"{personal[0].name}: whose {personal[0].entity} is it? the rows need {USER} or {PROFILE} beside it, "
                "so that consent can be asked"
            )
        return cls.named(lakehouse, users, profiles, purpose, at_ms)

    @classmethod
    def named(
        cls, lakehouse: Lakehouse, users: tuple[str, ...], profiles: tuple[str, ...], purpose: Purpose, at_ms: int
    ) -> "People":
        """As known at `at_ms`, of rows that name people in these columns."""
        return cls(KnownPeople.now(lakehouse).known, users, profiles, purpose, at_ms)

    @property
    def columns(self) -> list[str]:
        """The left table's columns that are read."""
        return [*self.user_columns, *self.profile_columns]

    def reasons(self, part: pa.Table) -> tuple[pa.Array, dict[str, int]]:
        """Why each row of a part gets no personal feature (text, null: it does), and how many rows for which reason.

        A row of which one person may not be used gets none, whoever else it names. A profile that nobody has
        described may be a child's (design of consent), and has no feature of its own yet.
        """
        refused = np.full(part.num_rows, -1, dtype=np.int64)
        for column in self.profile_columns:
            names = encoded(part[column].cast(pa.string()))
            is_kids, is_described = self.known.profiles.describe_each(
                Pseudonyms.of(names), np.full(part.num_rows, self.at_ms)
            )
            kids = (codes_of(names) >= 0) & (is_kids | ~is_described)
            owners = self.known.profiles.owners_of(names.dictionary)
            self._note(refused, take(owners, codes_of(names).astype(np.int64)), kids)
        for column in self.user_columns:
            self._note(refused, part[column].cast(pa.string()), np.zeros(part.num_rows, dtype=np.bool_))
        counts = np.bincount(refused[refused >= 0], minlength=len(_REASONS))
        counted = {reason: int(count) for reason, count in zip(_REASONS, counts, strict=True) if count}
        return take(pa.array(_REASONS, pa.string()), refused), counted

    def _note(self, refused: NDArray[np.int64], users: pa.Array | pa.ChunkedArray, kids: NDArray[np.bool_]) -> None:
        """Note by its place in `_REASONS` why a row is refused that is not yet; `features.decision` decides."""
        yes = pa.array(np.ones(len(kids), dtype=np.bool_))
        rows = pa.table({"is_kids": pa.array(kids), USER: users} | dict.fromkeys(CONSENT_COLUMNS.values(), yes))
        allowed = decide(rows, self.purpose, self.known, self.at_ms).allowed
        is_open = refused < 0
        refused[is_open & ~allowed] = _REASONS.index(Exclusion.WITHDRAWN_SINCE)
        refused[is_open & kids] = _REASONS.index(Exclusion.KIDS_PROFILE)


def _columns(
    entity: str, personal: Sequence[Selection], left_columns: Sequence[str], keys: Mapping[str, str]
) -> tuple[str, ...]:
    """The left table's columns that hold such an id: those that features are asked for by, and the rows' own."""
    asked_by = [column for one in personal if one.entity == entity for column in one.key_columns]
    own = [name for name in (keys.get(entity, entity), entity) if name in left_columns]
    return tuple(dict.fromkeys([*asked_by, *own]))
