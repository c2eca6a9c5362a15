"""Opening the door: the rules of the contract, and what the registries say of people."""

import pyarrow as pa

from features.consent import ConsentHistory
from features.decision import Registries
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from pipelines.contract.essential import essential_events
from pipelines.contract.events import Contract
from pipelines.door import Door
from pipelines.enrichment import Enricher
from pipelines.erased import Tombstones


def open_door(
    contract: Contract,
    hasher: Pseudonymizer,
    enricher: Enricher,
    *,
    profiles: pa.Table,
    consents: pa.Table,
    erased: Tombstones,
) -> Door:
    """The door for people known by `profiles` and `consents` (rows of `privacy.profiles` and `privacy.consents`)."""
    return Door(
        hasher,
        Registries(ConsentHistory.of(consents), ProfileRegistry.of(profiles), essential_events(contract)),
        enricher,
        erased,
    )
