"""The lakehouse's tables: name, columns and partitions of each, in the order of the road."""

from dataclasses import dataclass

import pyarrow as pa

from pipelines.contract.events import Contract

TIMESTAMP = pa.timestamp("us", tz="UTC")  # Iceberg's own resolution; values are whole milliseconds


@dataclass(frozen=True)
class TableSpec:
    """One Iceberg table. `partition` lists (column, transform): hour, day, month, identity or bucket[N]."""

    name: str
    schema: pa.Schema
    partition: tuple[tuple[str, str], ...] = ()


ORIGIN = pa.schema(
    [
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("ingested_at", TIMESTAMP, nullable=False),
    ]
)

# What came with the message: the trace it belongs to (spec 11.2), and every header in order, repeated keys included.
CARRIED = pa.schema(
    [
        pa.field("trace_id", pa.string()),
        pa.field("headers", pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))),
    ]
)

# What the address and the agent tell, worked out before both are cut (spec 3.2). Null where nothing is known.
ENRICHED = pa.schema(
    [
        pa.field("geo_country", pa.string()),
        pa.field("geo_region", pa.string()),
        pa.field("geo_city", pa.string()),
        pa.field("time_zone", pa.string()),
        pa.field("isp", pa.string()),
        pa.field("device_class", pa.string()),
    ]
)

# What a person is known by in every table: pseudonyms, and the token that aggregates count viewers by.
VIEWER = pa.schema(
    [
        pa.field("viewer_token", pa.string()),
        pa.field("is_kids", pa.bool_()),
        pa.field("profile_described", pa.bool_()),
    ]
)

QUARANTINE = pa.schema(
    [
        *ORIGIN,
        pa.field("reason", pa.string(), nullable=False),
        pa.field("schema_id", pa.int32()),
        pa.field("encrypted_value", pa.binary(), nullable=False),
        pa.field("encrypted_key", pa.binary()),
    ]
)

PROFILES = pa.schema(
    [
        pa.field("profile_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("is_kids", pa.bool_(), nullable=False),
        pa.field("maturity_rating", pa.string()),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
    ]
)

CONSENTS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("profile_id", pa.string()),
        pa.field("allows_analytics", pa.bool_(), nullable=False),
        pa.field("allows_personalization", pa.bool_(), nullable=False),
        pa.field("allows_ad_targeting", pa.bool_(), nullable=False),
        pa.field("market", pa.string()),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
    ]
)

TITLES = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("content_type", pa.string()),
        pa.field("genres", pa.list_(pa.string())),
        pa.field("runtime_ms", pa.int64()),
        pa.field("maturity_rating", pa.string()),
        pa.field("series_id", pa.string()),
        pa.field("episode_number", pa.int32()),
    ]
)

_PLAYBACK_COLUMNS = [
    "event_id",
    "event_name",
    "event_timestamp",
    "client_timestamp",
    "user_id",
    "profile_id",
    "session_id",
    "device_id",
    "playback_id",
    "content_id",
    "content_type",
    "position_ms",
    "start_time_ms",
    "total_duration_ms",
    "completion_percent",
    "stop_reason",
    "bitrate_kbps",
    "initial_bitrate_kbps",
    "rebuffer_duration_ms",
    "pause_duration_ms",
    "from_position_ms",
    "to_position_ms",
    "seek_method",
    "error_category",
    "cdn",
    "market",
    "platform",
    "device_type",
    "app_version",
    "consent_analytics",
    "consent_personalization",
    "consent_ad_targeting",
]

# Never stored: the full address and the agent are for enrichment in memory only (spec 8.3).
_TRANSPORT_COLUMNS = {"user_agent"}


def bronze_events(contract: Contract, event_partition: str) -> TableSpec:
    """Everything received, once: the columns of every event, unique by (cluster, topic, partition, offset)."""
    columns: dict[str, pa.Field] = {}
    for event in contract.events:
        for field in event.arrow:
            if field.name not in _TRANSPORT_COLUMNS:
                columns.setdefault(field.name, pa.field(field.name, stored_type(field.type)))
    # `profile.updated` has an `is_kids` of its own, which means the same.
    columns |= {field.name: field for field in (*VIEWER, *ENRICHED, *CARRIED)}
    return TableSpec(
        "bronze.events",
        pa.schema([*ORIGIN, *columns.values()]),
        (("event_timestamp", event_partition), ("event_name", "identity")),
    )


def quarantine_events() -> TableSpec:
    """Messages that could not be read, encrypted, with the reason and where they came from."""
    return TableSpec("quarantine.events", QUARANTINE, (("ingested_at", "day"),))


def profiles() -> TableSpec:
    """The profile registry: who is a child. Access restricted: it alone holds a kids' profile's hash."""
    return TableSpec("privacy.profiles", PROFILES)


def consents() -> TableSpec:
    """Who allowed what, and when it became known."""
    return TableSpec("privacy.consents", CONSENTS)


def silver_playback(bronze: TableSpec, event_partition: str) -> TableSpec:
    """Playback events, valid, pseudonymous and unique by event id."""
    known = {field.name: field for field in bronze.schema}
    fields = [
        *(known[name] for name in _PLAYBACK_COLUMNS),
        pa.field("client_timestamp_reliable", pa.bool_()),
        pa.field("viewer_token", pa.string()),
        pa.field("is_kids", pa.bool_()),
        pa.field("time_zone", pa.string()),
        *(known[name] for name in ("topic", "partition", "offset")),
    ]
    return TableSpec("silver.playback", pa.schema(fields), (("event_timestamp", event_partition),))


def silver_titles() -> TableSpec:
    """Titles as announced by the catalogue; a later row of a title supersedes an earlier one."""
    return TableSpec("silver.titles", TITLES)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type a column has in Iceberg: its timestamps are of microseconds."""
    return TIMESTAMP if pa.types.is_timestamp(kind) else kind
