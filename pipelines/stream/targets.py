"""What the stream makes, and of what: every group that is valued at every event, and sessions with their quality."""

import pyarrow as pa

from features.declarations import FeatureGroup
from features.entities import entity
from features.finished_playbacks import FINISHED_PLAYBACKS
from features.groups import GROUPS
from features.purposes import Purpose
from features.source import EVENT_NAME, Source
from features.windows import Cadence
from pipelines.contract.events import Contract
from pipelines.feature_logs import silver_schemas
from pipelines.feature_tables import Target, declared
from pipelines.stream.shelves import ShelfName

GROUPS_STREAMED: tuple[FeatureGroup, ...] = tuple(group for group in GROUPS if group.cadence is Cadence.EVENT)
TARGETS = tuple(Target(group, entity) for group in GROUPS_STREAMED for entity in group.entities)
# What rows of a source are used for: features, and sessions with their quality.
USED_FOR: dict[Source, Purpose] = {group.source: group.purpose for group in GROUPS_STREAMED}
USED_FOR |= {FINISHED_PLAYBACKS: Purpose.ANALYTICS}
SOURCES: tuple[Source, ...] = tuple(USED_FOR)
SHELVES = {source.name: ShelfName.of(source, purpose) for source, purpose in USED_FOR.items()}
EVENTS = frozenset(name for source in SOURCES for name in source.events)
TABLES = tuple(dict.fromkeys(name for source in SOURCES for name in source.reads))

DECLARED = " ".join(declared(group) for group in GROUPS_STREAMED)
SHELF_NAMES = tuple(dict.fromkeys(SHELVES.values()))
PURPOSES_OF = {name: tuple(dict.fromkeys(purpose for source, purpose in USED_FOR.items() if name in source.reads))
               for name in TABLES}  # fmt: skip
SETTLING_MS = min(one.group.delay for one in TARGETS if not entity(one.entity).is_personal) // 8
"""How long rows of entities that are no people wait for older ones to come; well within the delay of their values."""
LONGEST_DELAY_MS = max(group.delay for group in GROUPS_STREAMED)


def schemas_of(contract: Contract, event_partition: str) -> dict[str, pa.Schema]:
    """The columns of silver that some source reads, by table."""
    silver = silver_schemas(contract, event_partition)
    found = {}
    for name in TABLES:
        columns = dict.fromkeys(one for source in SOURCES for one in (*source.reads.get(name, ()), EVENT_NAME))
        found[name] = pa.schema([(one, silver[name].field(one).type) for one in columns])
    return found
