"""What every actor must know whoever's events it has: people, who is erased, and the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from features.consent import ConsentHistory
from features.decision import Registries, decided_otherwise
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.contract.essential import essential_events
from pipelines.contract.events import Contract
from pipelines.door import Door
from pipelines.enrichment import Enricher
from pipelines.erased import USER, Tombstones
from pipelines.lakehouse import tables
from pipelines.silver.enrichment import Knowledge
from pipelines.silver.histories import History
from pipelines.stream.shelves import Theirs

PROFILES, CONSENTS, ERASURES, STONES, TITLES = (
    "privacy.profiles", "privacy.consents", "privacy.erasures", "privacy.tombstones", "silver.titles"
)  # fmt: skip
SCHEMAS = {
    PROFILES: tables.PROFILES,
    CONSENTS: tables.CONSENTS,
    ERASURES: tables.ERASURES,
    STONES: tables.TOMBSTONES,
    TITLES: tables.TITLE_HISTORY,
}
Tables = Mapping[str, pa.Table]

# Features are made for people who allow this; every event group has it as its purpose. Sessions and their quality are
# made for those who allow analytics.
PURPOSE = Purpose.PERSONALIZATION
PURPOSES = (PURPOSE, Purpose.ANALYTICS)


def as_stones(asked: pa.Table) -> pa.Table:
    """Requests to be erased, rows of `privacy.erasures`, as tombstones: nobody can be told from these.

    So they may stay in a checkpoint when the request is done.
    """
    each = asked.group_by("request").aggregate([("asked_at", "min")])
    columns = [pa.repeat(USER, each.num_rows), each["request"], each["asked_at_min"]]
    return pa.Table.from_arrays(columns, schema=tables.TOMBSTONES)


@dataclass
class Known:
    """Tables of people and titles, as they are now, and what follows from them. `asked_ms`: when consent was asked.

    Whoever asks to be erased is known by the tombstone.
    """

    contract: Contract
    hasher: Pseudonymizer
    tombstone_key: bytes = field(repr=False)
    enricher: Enricher
    tables: dict[str, pa.Table]
    asked_ms: int
    registries: Registries = field(init=False)
    erased: Tombstones = field(init=False, repr=False)
    knowledge: Knowledge = field(init=False)

    def __post_init__(self) -> None:
        self._look(SCHEMAS)

    @property
    def door(self) -> Door:
        """The door, for people as they are known now."""
        return Door(self.hasher, self.registries, self.enricher, self.erased)

    def hear(self, news: Tables, now_ms: int) -> dict[Purpose, Theirs]:
        """Learn new rows of some tables; of titles, all rows there are now.

        Returns whose rows are to be forgotten for each purpose: who withdrew consent to it, is deleted, or turns out to
        be a child.
        """
        before, before_ms = self.registries, self.asked_ms
        for name, rows in news.items():
            if name == ERASURES:  # whom it is about is forgotten with their rows
                continue
            self.tables[name] = rows if name == TITLES else pa.concat_tables([self.tables[name], rows]).combine_chunks()
        self._look(news)
        self.asked_ms = now_ms
        found = {}
        for purpose in PURPOSES:
            users, profiles = set[str](), set[str]()
            if {PROFILES, CONSENTS} & set(news):
                users, profiles = decided_otherwise(before, before_ms, self.registries, now_ms, purpose)
            if ERASURES in news:
                users |= set(news[ERASURES]["pseudonym"].to_pylist())
            found[purpose] = Theirs(*(pa.array(sorted(some), pa.string()) for some in (users, profiles)))
        return found

    def _look(self, changed: Mapping[str, object]) -> None:
        if {PROFILES, CONSENTS} & set(changed):
            self.registries = Registries(
                ConsentHistory.of(self.tables[CONSENTS]),
                ProfileRegistry.of(self.tables[PROFILES]),
                essential_events(self.contract),
            )
        if STONES in changed:
            self.erased = Tombstones.of(self.tombstone_key, self.tables[STONES], tables.ERASURES.empty_table())
        if TITLES in changed:
            nobody = History.of(tables.SUBSCRIPTIONS.empty_table(), "user_id")
            self.knowledge = Knowledge(History.of(self.tables[TITLES], "content_id"), nobody)
