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

# By what a row is somebody's. A household may share a device, so that a device alone makes no row anybody's.
PERSON_COLUMNS = ("user_id", "profile_id", "session_id", "viewer_token")

QUARANTINE = pa.schema(
    [
        *ORIGIN,
        pa.field("reason", pa.string(), nullable=False),
        pa.field("schema_id", pa.int32()),
        pa.field("encrypted_value", pa.binary(), nullable=False),
        pa.field("encrypted_key", pa.binary()),
        pa.field("encrypted_headers", pa.binary()),
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

# Who ran what, and what came of it: one record a row, in the form that its digest is taken of.
AUDIT_LOG = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("ingested_at", TIMESTAMP, nullable=False),
        pa.field("record", pa.string(), nullable=False),
    ]
)

# Who was erased: HMACs, from which nobody can be told. They stay, so that a replay of Kafka brings nobody back.
TOMBSTONES = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("mark", pa.string(), nullable=False),
        pa.field("erased_at", TIMESTAMP, nullable=False),
    ]
)

# Who is to be erased: a row for each pseudonym that is known of them. Gone when the erasure is done.
ERASURES = pa.schema(
    [
        pa.field("request", pa.string(), nullable=False),  # the mark of the user's tombstone
        pa.field("asked_at", TIMESTAMP, nullable=False),
        pa.field("asked_by", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("pseudonym", pa.string(), nullable=False),
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

# The catalogue's history (spec 3.1, `catalog.changes`): every row says all that is known of a title from then on.
TITLE_HISTORY = pa.schema(
    [
        *TITLES,
        pa.field("is_available", pa.bool_()),
        pa.field("available_markets", pa.list_(pa.string())),
        pa.field("available_until", TIMESTAMP),
        pa.field("announced_by", pa.string()),
    ]
)

# What an account subscribed to from then on, by the hash of its user.
SUBSCRIPTIONS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("subscription_tier", pa.string()),
        pa.field("valid_until", TIMESTAMP),
        pa.field("change_reason", pa.string()),
    ]
)

# What the catalogue said of an event's content at the time of the event (spec 3.2, 4.4).
CONTENT = pa.schema(
    [
        pa.field("content_title", pa.string()),
        pa.field("content_genres", pa.list_(pa.string())),
        pa.field("content_series_id", pa.string()),
        pa.field("content_episode_number", pa.int32()),
        pa.field("content_runtime_ms", pa.int64()),
        pa.field("content_maturity_rating", pa.string()),
    ]
)

PLAYBACK_SESSIONS = pa.schema(
    [
        pa.field("chain", pa.int64(), nullable=False),
        pa.field("chain_first_at", TIMESTAMP, nullable=False),
        pa.field("chain_last_at", TIMESTAMP, nullable=False),
        pa.field("playback_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("profile_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("device_id", pa.string()),
        pa.field("viewer_token", pa.string()),
        pa.field("is_kids", pa.bool_()),
        pa.field("subscription_tier", pa.string()),
        pa.field("consent_analytics", pa.bool_()),
        pa.field("consent_personalization", pa.bool_()),
        pa.field("consent_ad_targeting", pa.bool_()),
        pa.field("market", pa.string()),
        pa.field("platform", pa.string()),
        pa.field("device_type", pa.string()),
        pa.field("app_version", pa.string()),
        pa.field("connection_type", pa.string()),
        *ENRICHED,
        pa.field("content_id", pa.string()),
        pa.field("content_type", pa.string()),
        *CONTENT,
        pa.field("channel_name", pa.string()),
        pa.field("first_event_at", TIMESTAMP, nullable=False),
        pa.field("started_at", TIMESTAMP),
        pa.field("last_event_at", TIMESTAMP, nullable=False),
        pa.field("is_ended", pa.bool_(), nullable=False),
        pa.field("event_count", pa.int64(), nullable=False),
        pa.field("watch_ms", pa.int64(), nullable=False),
        pa.field("position_ms", pa.int64()),
        pa.field("total_duration_ms", pa.int64()),
        pa.field("completion_percent", pa.float64()),
        pa.field("stop_reason", pa.string()),
        pa.field("start_time_ms", pa.int64()),
        pa.field("cdn", pa.string()),
        pa.field("stall_count", pa.int64(), nullable=False),
        pa.field("stall_ms", pa.int64(), nullable=False),
        pa.field("mean_bitrate_kbps", pa.float64()),
        pa.field("bitrate_switch_count", pa.int64(), nullable=False),
        pa.field("error_count", pa.int64(), nullable=False),
        pa.field("error_category", pa.string()),
    ]
)

# Never stored: the full address and the agent are for enrichment in memory only (spec 8.3).
_TRANSPORT_COLUMNS = {"user_agent"}
# A truncated address has told what it can by then.
BRONZE_ONLY_COLUMNS = {*_TRANSPORT_COLUMNS, "ip"}


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


def consistency() -> TableSpec:
    """`quality.consistency`: how far served features agree with the batch's, one row for each group, entity, feature
    and run. `identical` to `different` count values, `reasons` (JSON) those that are not exact.
    """
    counts = ("identical", "close", "missing", "extra", "different")
    schema = pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("group", "entity", "feature")),
            *(pa.field(name, pa.int64(), nullable=False) for name in counts),
            pa.field("exact_share", pa.float64()),
            pa.field("smape", pa.float64()),
            pa.field("reasons", pa.string(), nullable=False),
            pa.field("measured_at", TIMESTAMP, nullable=False),
        ]
    )
    return TableSpec("quality.consistency", schema, (("measured_at", "month"),))


AUDIT = "privacy.audit"


def audit_log() -> TableSpec:
    """The audit log, cut by month; `ingested_at` is when a record was made, which retention goes by."""
    return TableSpec(AUDIT, AUDIT_LOG, (("ingested_at", "month"),))


def tombstones() -> TableSpec:
    """Who was erased, known by HMACs alone. Every commit to it is also a mark in time: see `lakehouse.erasures`."""
    return TableSpec("privacy.tombstones", TOMBSTONES)


def erasures() -> TableSpec:
    """Who asked to be erased and is not yet."""
    return TableSpec("privacy.erasures", ERASURES)


def silver_domain(contract: Contract, domain: str, event_partition: str) -> TableSpec:
    """The events of one domain, valid, pseudonymous, unique by event id, with what is known of content and viewer.

    Columns: the envelope, those of the domain's events, the viewer's token, what address and agent tell, the content
    and the subscription as they were at `event_timestamp`, and where the row came from. Events that concern no person
    (the catalogue's own) are not told about content or viewer.
    """
    events = [event for event in contract.events if event.domain == domain]
    stored = {
        column.name: pa.field(column.name, stored_type(column.arrow))
        for event in events
        for column in event.columns
        if column.name not in BRONZE_ONLY_COLUMNS
    }
    added = [VIEWER.field("viewer_token"), VIEWER.field("is_kids"), *ENRICHED]
    concerns_people = any(event.consent_category != "none" for event in events)
    if concerns_people:
        added.append(pa.field("subscription_tier", pa.string()))
    if concerns_people and "content_id" in stored:
        added += [pa.field("content_type", pa.string()), *CONTENT, pa.field("is_orphan", pa.bool_())]
    if concerns_people and stored.keys() & {"content_id", "channel_id"}:
        added.append(pa.field("channel_name", pa.string()))
    origin = [ORIGIN.field(name) for name in ("topic", "partition", "offset", "ingested_at")]
    added += [pa.field("client_timestamp_reliable", pa.bool_()), CARRIED.field("trace_id"), *origin]
    # An event's own column stands where one of the same name would be added: `session.created` states the tier.
    columns = {**stored, **{field.name: field for field in added if field.name not in stored}}
    cut_by = ["content_type"] if "content_type" in columns else []
    cut_by += ["platform"] if concerns_people else []
    partition = (("event_timestamp", silver_cut(event_partition)), *((name, "identity") for name in cut_by))
    return TableSpec(f"silver.{domain}", pa.schema(list(columns.values())), partition)


def silver_titles() -> TableSpec:
    """The catalogue's history; a later row of a title supersedes an earlier one."""
    return TableSpec("silver.titles", TITLE_HISTORY)


def silver_subscriptions() -> TableSpec:
    """Who subscribed to what, and since when; a later row of a user supersedes an earlier one."""
    return TableSpec("silver.subscriptions", SUBSCRIPTIONS)


def silver_playback_sessions(event_partition: str) -> TableSpec:
    """One row a playback. `chain` brings playbacks together whose events decide on each other."""
    cut = (("first_event_at", silver_cut(event_partition)), ("content_type", "identity"), ("platform", "identity"))
    return TableSpec("silver.playback_sessions", PLAYBACK_SESSIONS, cut)


def silver_cut(event_partition: str) -> str:
    """Silver is cut by day where bronze is cut by hour (spec 4.4), else as bronze is."""
    return "day" if event_partition == "hour" else event_partition


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type a column has in Iceberg: its timestamps are of microseconds."""
    return TIMESTAMP if pa.types.is_timestamp(kind) else kind
