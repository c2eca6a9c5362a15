"""What recommendations know of a viewer: read in one look-up of the online store, after the consent gate has spoken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from features.groups import GROUPS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from features.selection import Selection, select
from models.ranker.features import SESSION_FEATURES, VIEWER_FEATURES
from serving import feature_values as online
from serving.consent_gate import ConsentGate, Person
from serving.online_store import OnlineStore
from serving.reasons import Reason
from serving.store_reader import read_as_of_ms

HISTORY = USER_VIEWING_HISTORY.stored_as("profile_id")
SELECTIONS: Mapping[str, Selection] = {
    one.group.stored_as(one.entity): one
    for one in select((*VIEWER_FEATURES, *SESSION_FEATURES), ("profile_id", "session_id"), GROUPS)
}
"""What the cascade's ranker is told, by the name that it is stored under."""
# What is stored is of whole groups, and is read by whole declarations.
_DECLARED = {name: next(group for group in GROUPS if group.name == one.group.name) for name, one in SELECTIONS.items()}
_PURPOSES = {Purpose.PERSONALIZATION, *(group.purpose for group in _DECLARED.values())}


@dataclass(frozen=True)
class Found:
    """What the store has of a viewer; `packed`, by the name it is stored under, is read only without a refusal."""

    as_of_ms: int | None
    refusal: Reason | None
    packed: Mapping[str, bytes]

    def features(self) -> dict[str, Any]:
        """The ranker's columns that are known, at `as_of_ms`. Raises StoreUnavailableError if they cannot be read."""
        known: dict[str, Any] = {}
        for name, packed in self.packed.items():
            (valued,) = online.value(_DECLARED[name], [packed], self.as_of_ms or 0)
            columns = SELECTIONS[name].columns
            known |= {columns[feature]: value for feature, value in valued.values.items() if feature in columns}
        return {column: value for column, value in known.items() if value is not None}


@dataclass(frozen=True)
class Viewers:
    """Reads them."""

    gate: ConsentGate
    pseudonymizer: Pseudonymizer
    as_of: Literal["watermark", "now"]

    def look_up(
        self, viewer: Person, session_id: str | None, market: str | None, names: Sequence[str], store: OnlineStore
    ) -> Found:
        """What is stored under `names` of the viewer's profile and session, if the viewer allows it.

        Raises StoreUnavailableError.
        """
        as_of_ms = read_as_of_ms(store, self.as_of)
        (refusal,) = self.gate.refusals(store, [viewer], _PURPOSES, market)
        if refusal is not None or as_of_ms is None:
            return Found(as_of_ms, refusal, {})
        keys = {"profile_id": viewer.profile_id, "session_id": session_id}
        hashes = {entity: self.pseudonymizer.candidates(key) for entity, key in keys.items() if key is not None}
        wanted = [(name, hashes[entity]) for name in names if (entity := SELECTIONS[name].entity) in hashes]
        first = (next((one for one in some if one is not None), None) for some in store.get_groups(wanted))
        packed = {name: value for (name, _), value in zip(wanted, first, strict=True) if value is not None}
        return Found(as_of_ms, None, packed)
