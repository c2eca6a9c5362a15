"""Settings: one typed tree, read from a YAML file and `REEL_` environment variables, checked before any work.

    file         `--config`, else `REEL_CONFIG`, else configs/local.yaml of the project
    environment  REEL_KAFKA_BOOTSTRAP_SERVERS overrides kafka.bootstrap_servers, and so on for every key
    secrets      only from the environment or from a file that nobody else can read (mode 0600)

A relative path in a file is relative to the project's root, so that a command means the same in every folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipelines.configuration import read_tree
from pipelines.settings_section import PROJECT_ROOT, Count, Days, Hour, Hours, ProjectPath, Seconds, Section, Share
from pipelines.settings_serving import ServingSettings


class KafkaSettings(Section):
    """Where events come from."""

    bootstrap_servers: str | None = Field(
        default=None, description="host:port[,host:port]; null means the local broker of `make kafka`"
    )
    topics: tuple[str, ...] = Field(default=(), description="topics to ingest; empty means every topic of the contract")
    partitions: Count = Field(default=4, description="partitions of a topic that Reel creates")
    timeout_s: Seconds = Field(default=10, description="how long an unreachable broker is tried")
    stall_s: Seconds = Field(default=60, description="how long one read may go without a message before it fails")
    client: dict[str, str] = Field(
        default_factory=dict, description="further librdkafka settings (security.*)", repr=False
    )


class RegistrySettings(Section):
    """Where schema ids are resolved."""

    url: str | None = Field(default=None, description="Confluent-compatible registry; null means a file under work_dir")


class LakehouseSettings(Section):
    """The Iceberg catalog and how finely its tables are cut."""

    catalog: Literal["sql", "rest"] = "sql"
    uri: str | None = Field(default=None, description="catalog address; null means SQLite under work_dir")
    warehouse: str | None = Field(default=None, description="where data files go; null means work_dir/warehouse")
    properties: dict[str, str] = Field(
        default_factory=dict, description="further catalog and S3 properties", repr=False
    )
    event_partition: Literal["hour", "day", "month"] = Field(
        default="day", description="time partition of bronze and silver events; an import of years wants month"
    )
    buckets: Count = Field(
        default=4,
        description="how many ways keyed work (features, deduplication) is cut; best 2, 4, 8, 16, …",
    )
    bronze_retention_days: Days = Field(default=90, description="rows of bronze, counted from ingestion (spec 4.4)")
    silver_retention_days: Days = Field(default=365, description="rows of silver, counted from ingestion (spec 4.4)")
    quarantine_retention_days: Days = Field(default=7, description="sealed messages, counted from ingestion")
    audit_retention_days: Days = Field(default=2557, description="records of the audit log: seven years (spec 8.3)")
    target_file_mb: Count = Field(default=128, description="small files are put together up to this size")
    target_file_rows: Count = Field(
        default=1_000_000, description="and up to so many rows, which bounds the memory this takes"
    )
    snapshot_keep_hours: Hours = Field(
        default=24, description="a reader has this long to finish; then what was replaced or deleted loses its bytes"
    )
    snapshots_at_least: Count = Field(default=10, description="newest snapshots that are kept whatever their age")
    snapshots_at_most: Count = Field(
        default=100, description="older appends leave the history, whatever their age, unless a station needs them"
    )
    orphan_age_hours: Annotated[float, Field(ge=1)] = Field(
        default=24, description="files no snapshot names are deleted when older; a batch being written must be younger"
    )


class MlflowSettings(Section):
    """Where runs and models are kept."""

    tracking_uri: str | None = Field(default=None, description="null means SQLite under work_dir")


class OnlineStoreSettings(Section):
    """Where features are answered from."""

    url: str | None = Field(
        default=None, description="lmdb:///absolute/path or redis://…; null means LMDB under work_dir"
    )


class RaySettings(Section):
    """Where the work runs."""

    address: str | None = Field(default=None, description="a cluster's address; null starts Ray on this machine")
    num_cpus: Count | None = Field(default=None, description="processors of a local Ray; null means all")
    object_store_mb: Count = Field(default=512, description="shared memory of a local Ray, MB")


class PrivacySettings(Section):
    """Salts, keys and thresholds (spec 8)."""

    salt_file: ProjectPath | None = Field(default=None, description="salts, oldest first, one a line; mode 0600")
    quarantine_key_file: ProjectPath | None = Field(
        default=None, description="key that encrypts quarantined bytes; mode 0600"
    )
    tombstone_key_file: ProjectPath | None = Field(
        default=None, description="key that tombstones of erased people are made with; mode 0600; never to be changed"
    )
    receipt_key_file: ProjectPath | None = Field(
        default=None, description="key that receipts of erasures are signed with; mode 0600"
    )
    erasure_batch_hours: Hours = Field(
        default=24, description="users deleted in Kafka wait so long at most, so that many are erased in one pass"
    )
    undescribed_profile_hours: Seconds = Field(
        default=24, description="after this long a profile nobody has described is treated as a child's"
    )
    principal: str | None = Field(
        default=None, description="who the audit log says runs this, as a service account; null means the system's user"
    )
    access_file: ProjectPath = Field(
        default=Path("configs/access.yaml"), description="who may see what: roles, layers, kinds of columns"
    )
    audit_minutes: Annotated[float, Field(ge=0)] = Field(
        default=5, description="how often a run that goes on, as ingest --follow, is put on the audit log"
    )
    audit_heads_file: ProjectPath | None = Field(
        default=None,
        description="where `reel privacy audit --verify` notes how far the log has come; keep it where those who can "
        "write to the warehouse cannot; null means work_dir/audit.heads",
    )
    least_viewers: Count = Field(
        default=20, description="children count in aggregates only in crowds of so many viewers (k)"
    )

    @property
    def undescribed_profile_ms(self) -> int:
        """`undescribed_profile_hours` in milliseconds."""
        return int(self.undescribed_profile_hours * 3_600_000)


class IngestSettings(Section):
    """How Kafka is read."""

    messages_per_task: Count = Field(default=100_000, description="messages one task reads at most")
    messages_per_commit: Count = Field(default=1_000_000, description="messages one commit carries at most")
    batch_seconds: Seconds = Field(
        default=10, description="when following: a batch begins this long after the one before it, or when it is full"
    )


class StreamSettings(Section):
    """How features are kept up to date from Kafka (`reel stream`)."""

    actors: Count = Field(default=1, description="Ray actors among which partitions, people and entities are shared")
    batch_ms: Annotated[float, Field(gt=0)] = Field(
        default=100, description="a batch begins this long after the one before it, or when that is done"
    )
    batch_messages: Count = Field(default=50_000, description="messages a batch takes at most")
    checkpoint_seconds: Seconds = Field(default=10, description="how much is read again at most after a crash")
    folder: ProjectPath | None = Field(
        default=None, description="where checkpoints lie; null means work_dir/stream; all actors must see it"
    )
    traces_url: str | None = Field(
        default=None, description="who collects traces (OTLP over HTTP), as http://host:4318/v1/traces; null: nobody"
    )
    traced: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.001, description="the share of traces, chosen by their ids, whose messages' spans are sent there"
    )


class TableMapping(Section):
    """Which columns of a source's table are which of the contract's; those of the same name need no saying."""

    columns: dict[str, str | None] = Field(
        default_factory=dict,
        description="contract column: the table's column, a.b for a field of a struct, null to leave it out",
    )
    constants: dict[str, str | bool | int | float] = Field(
        default_factory=dict, description="contract column: one value for all rows, such as source: SERVER"
    )


class SourceSettings(Section):
    """An Iceberg catalog whose tables others fill with events, one row an event."""

    catalog: Literal["sql", "rest"]
    name: str | None = Field(
        default=None, description="what a SQL catalog's rows are filed under; null means as it is called here"
    )
    uri: str = Field(description="the catalog's address, such as postgresql+psycopg2://… or http://…", repr=False)
    warehouse: str | None = Field(default=None, description="where the catalog keeps files, if it must be told")
    properties: dict[str, str] = Field(
        default_factory=dict, description="further catalog and S3 properties", repr=False
    )
    tables: dict[str, TableMapping] = Field(
        default_factory=dict, description="namespace.table: how its columns are to be read; needed only if they differ"
    )


class EnrichmentSettings(Section):
    """What the addresses of events are looked up in; without a database its columns are null."""

    city_database: ProjectPath | None = Field(
        default=None, description="MaxMind City database (.mmdb), at this path on every machine"
    )
    isp_database: ProjectPath | None = Field(
        default=None, description="MaxMind ISP database (.mmdb), at this path on every machine"
    )


class QualitySettings(Section):
    """When data is good enough (spec 11.1); a threshold the spec does not name says what Reel takes."""

    as_of: Literal["watermark", "now"] = Field(
        default="watermark", description="watermark: judged at the newest event (replays); now: at the wall clock"
    )
    window_hours: Count = Field(default=24, description="the newest hours that are looked at")
    max_reject_share: Share = Field(default=0.01, description="of a topic's messages, set aside for one kind of reason")
    max_unreliable_clock_share: Share = Field(
        default=0.05, description="of client timestamps, more than 5 minutes (spec) off the server's"
    )
    duplicate_window_hours: Count = Field(default=1, description="an event id again within this is a duplicate (spec)")
    max_duplicate_share: Share = Field(default=0.01, description="of a topic's events, duplicates before cleaning")
    max_missing_share: Share = Field(default=0, description="of an event's rows, null in a property it requires")
    max_orphan_share: Share = Field(
        default=0, description="of references to contents and channels, ids that neither catalogue nor schedule knows"
    )
    max_volume_change: Annotated[float, Field(gt=0)] = Field(
        default=0.5, description="of an hour's events, against the same hour last week, as a share of that (spec)"
    )
    min_volume_events: Count = Field(
        default=100, description="hours with fewer events in both weeks are not compared, because of chance"
    )
    max_silence_minutes: Annotated[float, Field(gt=0)] = Field(
        default=5, description="since a topic's last event, in production hours (spec)"
    )
    max_silence_minutes_by_topic: dict[str, float] = Field(
        default_factory=dict, description="instead of max_silence_minutes for topics that are seldom written to"
    )
    production_hours: tuple[Hour, Hour] = Field(
        default=(0, 24), description="hours of the day, UTC, from and until, in which silence matters"
    )


class LineageSettings(Section):
    """Who is told, in OpenLineage's language, which run read and wrote what; nobody unless an address is given."""

    openlineage_url: str | None = Field(
        default=None, description="a receiver's address, such as http://marquez:5000", repr=False
    )
    openlineage_file: ProjectPath | None = Field(
        default=None, description="a file that events are appended to, beside the address or alone"
    )
    namespace: str = Field(default="reel", description="what the stations' jobs are filed under")


class TrainingSettings(Section):
    """How models are trained."""

    workers: Count = 1
    use_gpu: bool = False
    seed: int = 17
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    models: dict[str, dict[str, int | float]] = Field(
        default_factory=dict, description="hyperparameters by model, over its defaults: {churn: {depth: 4}}"
    )


class ModelSettings(Section):
    """How one model is kept."""

    cadence_hours: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="how often it is trained anew; null means as the model's task says (spec 7.3)"
    )


class Settings(Section):
    """All of Reel's configuration."""

    environment: Literal["local", "production"] = "local"
    work_dir: ProjectPath = Path(".reel")
    schemas: ProjectPath = Path("configs/schemas")
    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    lakehouse: LakehouseSettings = LakehouseSettings()
    mlflow: MlflowSettings = MlflowSettings()
    online_store: OnlineStoreSettings = OnlineStoreSettings()
    ray: RaySettings = RaySettings()
    privacy: PrivacySettings = PrivacySettings()
    ingest: IngestSettings = IngestSettings()
    stream: StreamSettings = StreamSettings()
    sources: dict[str, SourceSettings] = Field(
        default_factory=dict, description="Iceberg catalogs to ingest from, by the name they are called by"
    )
    enrichment: EnrichmentSettings = EnrichmentSettings()
    quality: QualitySettings = QualitySettings()
    lineage: LineageSettings = LineageSettings()
    training: TrainingSettings = TrainingSettings()
    models: dict[str, ModelSettings] = Field(
        default_factory=dict, description="models by name: {recommendation: {cadence_hours: 6}}"
    )
    serving: ServingSettings = ServingSettings()

    @property
    def registry_location(self) -> str:
        """URL of the schema registry, or the path of the embedded one."""
        return self.registry.url or str(self.work_dir / "registry.db")

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking (and registry) address."""
        return self.mlflow.tracking_uri or f"sqlite:///{self.work_dir / 'mlflow.db'}"

    @property
    def online_store_url(self) -> str:
        """Address of the online store."""
        return self.online_store.url or f"lmdb://{self.work_dir / 'online'}"

    @property
    def stream_folder(self) -> Path:
        """Where the stream's checkpoint lies."""
        return self.stream.folder or self.work_dir / "stream"

    @property
    def predictions_folder(self) -> Path:
        """Where answers of models are logged."""
        return self.work_dir / "predictions"

    @property
    def served_features_folder(self) -> Path:
        """Where features that look-ups answered are logged."""
        return self.work_dir / "served_features"

    @property
    def ray_address(self) -> str | None:
        """The cluster to join, or None for a Ray of our own on this machine."""
        return self.ray.address

    @property
    def kafka_folder(self) -> Path:
        """Where the local broker keeps its jars, data and address."""
        return self.work_dir / "kafka"


# Read elsewhere, or by tests, but spelled like a setting.
_OTHER_VARIABLES = {
    "REEL_CONFIG",
    "REEL_SALT",
    "REEL_QUARANTINE_KEY",
    "REEL_TOMBSTONE_KEY",
    "REEL_TOKEN_SECRET",
    "REEL_RECEIPT_KEY",
    "REEL_SHARED_DATA",
    "REEL_LOG_LEVEL",
    "REEL_FAULT_SEEDS",
}


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the settings. Raises SettingsError (`pipelines.configuration`) naming the key at fault."""
    path = path or Path(environ.get("REEL_CONFIG", PROJECT_ROOT / "configs" / "local.yaml"))
    return read_tree(Settings, path, environ, _OTHER_VARIABLES)
