"""Settings: one typed tree, read from a YAML file and `REEL_` environment variables, checked before any work.

    file         `--config`, else `REEL_CONFIG`, else configs/local.yaml of the project
    environment  REEL_KAFKA_BOOTSTRAP_SERVERS overrides kafka.bootstrap_servers, and so on for every key
    secrets      only from the environment or from a file that nobody else can read (mode 0600)

A relative path in a file is relative to the project's root, so that a command means the same in every folder.
"""

import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipelines.errors import UsageError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _of_project(path: Path) -> Path:
    return (PROJECT_ROOT / path).resolve()


ProjectPath = Annotated[Path, AfterValidator(_of_project)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class SettingsError(UsageError):
    """A setting is wrong; the message names the key, what was received and what is allowed."""


class _Section(BaseModel):
    """A group of settings. What may hold a password is left out of representations and messages (`repr=False`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class KafkaSettings(_Section):
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


class RegistrySettings(_Section):
    """Where schema ids are resolved."""

    url: str | None = Field(default=None, description="Confluent-compatible registry; null means a file under work_dir")


class LakehouseSettings(_Section):
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
    buckets: Count = Field(default=4, description="how many ways keyed work (features, deduplication) is cut")


class MlflowSettings(_Section):
    """Where runs and models are kept."""

    tracking_uri: str | None = Field(default=None, description="null means SQLite under work_dir")


class OnlineStoreSettings(_Section):
    """Where features are answered from."""

    url: str | None = Field(
        default=None, description="lmdb:///absolute/path or redis://…; null means LMDB under work_dir"
    )


class RaySettings(_Section):
    """Where the work runs."""

    address: str | None = Field(default=None, description="a cluster's address; null starts Ray on this machine")
    num_cpus: Count | None = Field(default=None, description="processors of a local Ray; null means all")
    object_store_mb: Count = Field(default=1024, description="shared memory of a local Ray, MB")


class PrivacySettings(_Section):
    """Salts, keys and thresholds (spec 8)."""

    salt_file: ProjectPath | None = Field(default=None, description="salts, oldest first, one a line; mode 0600")
    quarantine_key_file: ProjectPath | None = Field(
        default=None, description="key that encrypts quarantined bytes; mode 0600"
    )
    undescribed_profile_hours: Seconds = Field(
        default=24, description="after this long a profile nobody has described is treated as a child's"
    )


class IngestSettings(_Section):
    """How Kafka is read."""

    messages_per_task: Count = Field(default=100_000, description="messages one task reads at most")
    messages_per_commit: Count = Field(default=1_000_000, description="messages one commit carries at most")
    batch_seconds: Seconds = Field(
        default=10, description="when following: a batch begins this long after the one before it, or when it is full"
    )


class TrainingSettings(_Section):
    """How models are trained."""

    workers: Count = 1
    use_gpu: bool = False
    seed: int = 17
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    recommendation: dict[str, int | float | str] = Field(
        default_factory=dict, description="hyperparameters of the recommender, over its defaults"
    )


class ServingSettings(_Section):
    """How features and predictions are answered."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    as_of: Literal["watermark", "now"] = Field(
        default="watermark", description="watermark: as of the newest event in the store (replays); now: the wall clock"
    )


class Settings(_Section):
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
    training: TrainingSettings = TrainingSettings()
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
    "REEL_SHARED_DATA",
    "REEL_LOG_LEVEL",
    "REEL_FAULT_SEEDS",
}


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the settings.

    Raises SettingsError naming the key at fault: an unknown one with its nearest known neighbour, a wrong
    value with what was received.
    """
    path = path or Path(environ.get("REEL_CONFIG", PROJECT_ROOT / "configs" / "local.yaml"))
    tree = _with_known_keys(Settings, _read_yaml(path), source=str(path))
    _apply_environment(tree, environ)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_explained(path, error.errors()[0])) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"no configuration file at {path}; name one with --config or REEL_CONFIG") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        where = str(error).replace("\n", " ")
        raise SettingsError(f"{path} is not valid YAML: {where}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must hold a mapping of settings; received a {type(tree).__name__}")
    return tree


def _with_known_keys(model: type[BaseModel], tree: Mapping[Any, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """The tree, all of whose keys are known; a section with nothing below its name is an empty one."""
    known: dict[str, Any] = {}
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        if field is None:
            raise SettingsError(
                f"{source}: unknown key '{prefix}{key}'{_nearest(str(key), model.model_fields, prefix)}; "
                f"known here: {', '.join(model.model_fields)}"
            )
        section = _section(field)
        if section is not None and (value is None or isinstance(value, Mapping)):
            value = _with_known_keys(section, value or {}, source, f"{prefix}{key}.")
        known[str(key)] = value
    return known


def _apply_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    fields = {_variable(key): (key, field) for key, field in _leaves(Settings).items()}
    for name, text in environ.items():
        if not name.startswith("REEL_") or name in _OTHER_VARIABLES:
            continue
        if name not in fields:
            nearest = _nearest(name, [*fields, *_OTHER_VARIABLES])
            raise SettingsError(f"unknown environment variable {name}{nearest}; unset it or mend its name")
        (*sections, leaf), field = fields[name]
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        if isinstance(node, dict):  # else the file has something else there, which is refused with the rest
            node[leaf] = _parsed(name, text, field)


def _parsed(name: str, text: str, field: FieldInfo) -> Any:
    """A variable's text as a value: null where that is allowed, YAML for lists and mappings, else left as it is."""
    kinds = {typing.get_origin(part) or part for part in (field.annotation, *typing.get_args(field.annotation))}
    if text == "null" and types.NoneType in kinds:
        return None
    if not kinds & {dict, tuple}:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(
            f"{name} is not valid YAML; write a list as [a, b] and a mapping as {{key: value}}"
        ) from None


def _explained(path: Path, error: ErrorDetails) -> str:
    """What is wrong, in one line, with the variable that can mend it: Pydantic's location goes on into lists."""
    location, leaves = error["loc"], _leaves(Settings)
    key = next((key for key in leaves if location[: len(key)] == key), None)
    received = "" if key is not None and not leaves[key].repr else f"; received {error['input']!r}"
    mend = "" if key is None else f", or its variable {_variable(key)}"
    name = ".".join(map(str, location))
    return f"{path}: {name}: {error['msg'].lower()}{received}; mend that key there{mend}"


def _leaves(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], FieldInfo]:
    """Every key that holds a value, by its path."""
    found: dict[tuple[str, ...], FieldInfo] = {}
    for name, field in model.model_fields.items():
        section = _section(field)
        found |= {(*prefix, name): field} if section is None else _leaves(section, (*prefix, name))
    return found


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _variable(key: tuple[str, ...]) -> str:
    return "REEL_" + "_".join(key).upper()


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""
