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
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.errors import UsageError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class SettingsError(UsageError):
    """A setting is wrong; the message names the key, what was received and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """Where events come from."""

    bootstrap_servers: str | None = Field(
        None, description="host:port[,host:port]; null means the local broker of `make kafka`"
    )
    topics: tuple[str, ...] = Field((), description="topics to ingest; empty means every topic of the contract")
    partitions: Count = Field(4, description="partitions of a topic that Reel creates")
    timeout_s: Seconds = Field(10, description="how long an unreachable broker is tried")
    stall_s: Seconds = Field(60, description="how long one read may go without a message before it fails")
    client: dict[str, str] = Field(default_factory=dict, description="further librdkafka settings (security.*)")


class RegistrySettings(_Section):
    """Where schema ids are resolved."""

    url: str | None = Field(None, description="Confluent-compatible registry; null means a file under work_dir")


class LakehouseSettings(_Section):
    """The Iceberg catalog and how finely its tables are cut."""

    catalog: Literal["sql", "rest"] = "sql"
    uri: str | None = Field(None, description="catalog address; null means SQLite under work_dir")
    warehouse: str | None = Field(None, description="where data files go; null means work_dir/warehouse")
    properties: dict[str, str] = Field(default_factory=dict, description="further catalog and S3 properties")
    event_partition: Literal["hour", "day", "month"] = Field(
        "day", description="time partition of bronze and silver events; an import of years wants month"
    )
    buckets: Count = Field(4, description="how many ways keyed work (features, deduplication) is cut")


class MlflowSettings(_Section):
    """Where runs and models are kept."""

    tracking_uri: str | None = Field(None, description="null means SQLite under work_dir")


class OnlineStoreSettings(_Section):
    """Where features are answered from."""

    url: str | None = Field(None, description="lmdb:///absolute/path or redis://…; null means LMDB under work_dir")


class RaySettings(_Section):
    """Where the work runs."""

    address: str | None = Field(None, description="a cluster's address; null starts Ray on this machine")
    num_cpus: Count | None = Field(None, description="processors of a local Ray; null means all")
    object_store_mb: Count = Field(1024, description="shared memory of a local Ray, MB")


class PrivacySettings(_Section):
    """Salts, keys and thresholds (spec 8)."""

    salt_file: Path | None = Field(None, description="salts, oldest first, one a line; mode 0600")
    quarantine_key_file: Path | None = Field(None, description="key that encrypts quarantined bytes; mode 0600")
    undescribed_profile_hours: Seconds = Field(
        24, description="after this long a profile nobody has described is treated as a child's"
    )


class IngestSettings(_Section):
    """How Kafka is read."""

    messages_per_task: Count = Field(100_000, description="messages one task reads at most")
    messages_per_commit: Count = Field(1_000_000, description="messages one commit carries at most")


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
        "watermark", description="watermark: as of the newest event in the store (replays); now: the wall clock"
    )


class Settings(_Section):
    """All of Reel's configuration."""

    environment: Literal["local", "production"] = "local"
    work_dir: Path = Path(".reel")
    schemas: Path = Path("configs/schemas")
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

    @model_validator(mode="after")
    def _absolute_paths(self) -> "Settings":
        for name in ("work_dir", "schemas"):
            object.__setattr__(self, name, (PROJECT_ROOT / getattr(self, name)).resolve())
        return self

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
}


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the settings.

    Raises SettingsError naming the key at fault: an unknown one with its nearest known neighbour, a wrong
    value with what was received.
    """
    path = path or Path(environ.get("REEL_CONFIG", PROJECT_ROOT / "configs" / "local.yaml"))
    tree = _read_yaml(path)
    _refuse_unknown(Settings, tree, source=str(path))
    _apply_environment(tree, environ)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{path}: {key}: {first['msg'].lower()}; received {first.get('input')!r}; "
            f"mend that key there, or its variable {_variable(key)}"
        ) from None


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


def _refuse_unknown(model: type[BaseModel], tree: Mapping[str, Any], source: str, prefix: str = "") -> None:
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        if field is None:
            raise SettingsError(
                f"{source}: unknown key '{prefix}{key}'{_nearest(str(key), model.model_fields, prefix)}; "
                f"known here: {', '.join(model.model_fields)}"
            )
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel) and isinstance(value, Mapping):
            _refuse_unknown(section, value, source, f"{prefix}{key}.")


def _apply_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    keys = {_variable(".".join(key)): key for key in _leaf_keys(Settings)}
    for name, value in environ.items():
        if not name.startswith("REEL_") or name in _OTHER_VARIABLES:
            continue
        if name not in keys:
            raise SettingsError(f"unknown environment variable {name}{_nearest(name, keys)}; unset it or mend its name")
        *sections, leaf = keys[name]
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = yaml.safe_load(value) if _is_collection(keys[name]) else value


def _leaf_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found += _leaf_keys(section, (*prefix, name))
        else:
            found.append((*prefix, name))
    return found


def _is_collection(key: tuple[str, ...]) -> bool:
    model: Any = Settings
    for section in key[:-1]:
        model = model.model_fields[section].annotation
    annotation = model.model_fields[key[-1]].annotation
    origins = {typing.get_origin(part) for part in (annotation, *typing.get_args(annotation))}
    return bool(origins & {dict, tuple, list}) and not isinstance(annotation, types.UnionType)


def _variable(key: str) -> str:
    return "REEL_" + key.replace(".", "_").upper()


def _nearest(name: str, known: typing.Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""
