"""What every column of every table tells of a person.

A column of an event is what the contract says of it (`personal` in its schema). The columns that Reel adds are named
here, each of them: a table or a column that nobody has classified is seen by nobody (`privacy.access`).
"""

from collections.abc import Mapping
from enum import StrEnum

import pyarrow as pa

from features.groups import GROUPS
from pipelines.contract.events import Contract
from pipelines.feature_statistics.record import statistics_table
from pipelines.feature_tables import Target
from pipelines.lakehouse import tables
from pipelines.quality.record import checks_table
from pipelines.silver.targets import targets


class Kind(StrEnum):
    """What a column may tell of a person; the first tells nothing."""

    OPEN = "open"
    IDENTIFIER = "identifier"
    """The pseudonym of a person or of what is theirs alone: a session, a device, a chain of playbacks."""
    LINK = "link"
    """It leads to one message, playback or request, which others know by the same name."""
    ADDRESS = "address"
    FREE_TEXT = "free_text"
    SEALED = "sealed"
    """Encrypted, and may hold anything."""


Columns = Mapping[str, Kind]

IDENTIFIERS = ("viewer_token", "chain")
LINKS = (
    "event_id", "playback_id", "trace_id", "headers", "partition", "offset",
    "request_id", "notification_id", "recording_id", "ad_break_id",
)  # fmt: skip
SEALED = ("encrypted_value", "encrypted_key", "encrypted_headers")
OPEN = (
    "cluster_id", "topic", "ingested_at", "reason", "schema_id", "is_kids", "profile_described",
    *tables.ENRICHED.names, *tables.CONTENT.names, "content_type", "subscription_tier", "channel_name", "is_orphan",
    "client_timestamp_reliable", "announced_by", "chain_first_at", "chain_last_at", "first_event_at", "started_at",
    "last_event_at", "is_ended", "event_count", "watch_ms", "stall_count", "stall_ms", "mean_bitrate_kbps",
    "bitrate_switch_count", "error_count", "number", "record",
)  # fmt: skip
"""Of the columns that Reel adds, those that tell of no person by themselves."""


def classified(contract: Contract) -> dict[str, Columns]:
    """Every table that Reel makes, with the kind of each of its columns that somebody has classified."""
    known = {name: Kind.OPEN for event in contract.events for name in event.arrow.names}
    known |= {c.name: Kind(c.personal) for e in contract.events for c in e.columns if c.personal in set(Kind)}
    known |= dict.fromkeys(OPEN, Kind.OPEN)
    known |= dict.fromkeys(IDENTIFIERS, Kind.IDENTIFIER) | dict.fromkeys(LINKS, Kind.LINK)
    known |= dict.fromkeys(SEALED, Kind.SEALED)
    specs = [
        tables.bronze_events(contract, "day"),
        tables.quarantine_events(),
        tables.profiles(),
        tables.consents(),
        tables.audit_log(),
        tables.silver_playback_sessions("day"),
        *(target.spec for target in targets(contract, "day")),
    ]
    found = {spec.name: _kinds(spec.schema, known) for spec in specs}
    for target in (Target(group, entity) for group in GROUPS for entity in group.entities):
        # What a group declares is about its entity: without its key a row is nobody's.
        declared = [target.spec(1), target.tile_spec(1)]
        found |= {spec.name: dict.fromkeys(spec.schema.names, Kind.OPEN) | _keys(spec.schema) for spec in declared}
    for spec in (statistics_table(), checks_table(), tables.consistency()):
        found[spec.name] = dict.fromkeys(spec.schema.names, Kind.OPEN)
    return found


def _kinds(schema: pa.Schema, known: Columns) -> Columns:
    return {name: known[name] for name in schema.names if name in known}


def _keys(schema: pa.Schema) -> dict[str, Kind]:
    return {name: Kind.IDENTIFIER for name in ("user_id", "profile_id", "session_id") if name in schema.names}
