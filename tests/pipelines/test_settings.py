"""Settings: every key by file and by environment, and one clear line for whatever is wrong with them."""

from operator import attrgetter
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from pipelines.configuration import SettingsError
from pipelines.errors import UsageError
from pipelines.settings import ModelSettings, Settings, SourceSettings, TableMapping, load_settings
from pipelines.settings_section import PROJECT_ROOT
from pipelines.settings_serving import ExperimentSettings

# Of every key: a text for its variable, and what it must come to.
EVERY_KEY = {
    "environment": ("production", "production"),
    "work_dir": ("/tmp/reel", Path("/tmp/reel")),
    "schemas": ("elsewhere/schemas", PROJECT_ROOT / "elsewhere" / "schemas"),
    "kafka.bootstrap_servers": ("one:9092,two:9092", "one:9092,two:9092"),
    "kafka.topics": ("[client.playback, user.events]", ("client.playback", "user.events")),
    "kafka.partitions": ("12", 12),
    "kafka.timeout_s": ("2.5", 2.5),
    "kafka.stall_s": ("7", 7.0),
    "kafka.client": (
        "{security.protocol: SSL, sasl.username: 'null'}",
        {"security.protocol": "SSL", "sasl.username": "null"},
    ),
    "registry.url": ("http://registry:8081", "http://registry:8081"),
    "lakehouse.catalog": ("rest", "rest"),
    "lakehouse.uri": ("http://catalog:8181", "http://catalog:8181"),
    "lakehouse.warehouse": ("s3://bucket/warehouse", "s3://bucket/warehouse"),
    "lakehouse.properties": ("{}", {}),
    "lakehouse.event_partition": ("hour", "hour"),
    "lakehouse.buckets": ("64", 64),
    "lakehouse.bronze_retention_days": ("30", 30.0),
    "lakehouse.silver_retention_days": ("100", 100.0),
    "lakehouse.quarantine_retention_days": ("3.5", 3.5),
    "lakehouse.audit_retention_days": ("3650", 3650.0),
    "lakehouse.target_file_mb": ("64", 64),
    "lakehouse.target_file_rows": ("5000", 5000),
    "lakehouse.snapshot_keep_hours": ("0", 0.0),
    "lakehouse.snapshots_at_least": ("3", 3),
    "lakehouse.snapshots_at_most": ("50", 50),
    "lakehouse.orphan_age_hours": ("12", 12.0),
    "mlflow.tracking_uri": ("http://mlflow:5000", "http://mlflow:5000"),
    "online_store.url": ("redis://redis:6379/0", "redis://redis:6379/0"),
    "ray.address": ("auto", "auto"),
    "ray.num_cpus": ("2", 2),
    "ray.object_store_mb": ("256", 256),
    "privacy.salt_file": ("secrets/salt", PROJECT_ROOT / "secrets" / "salt"),
    "privacy.quarantine_key_file": ("/etc/reel/key", Path("/etc/reel/key")),
    "privacy.undescribed_profile_hours": ("0.5", 0.5),
    "privacy.access_file": ("configs/other.yaml", PROJECT_ROOT / "configs" / "other.yaml"),
    "privacy.least_viewers": ("50", 50),
    "privacy.principal": ("reel-ingest@platform", "reel-ingest@platform"),
    "privacy.audit_minutes": ("0", 0.0),
    "privacy.audit_heads_file": ("/mnt/elsewhere/heads", Path("/mnt/elsewhere/heads")),
    "privacy.tombstone_key_file": ("/run/tombstone", Path("/run/tombstone")),
    "privacy.receipt_key_file": ("/run/receipt", Path("/run/receipt")),
    "privacy.erasure_batch_hours": ("2", 2.0),
    "ingest.messages_per_task": ("10", 10),
    "ingest.messages_per_commit": ("100", 100),
    "ingest.batch_seconds": ("2.5", 2.5),
    "stream.actors": ("3", 3),
    "stream.batch_ms": ("250", 250.0),
    "stream.batch_messages": ("1000", 1000),
    "stream.checkpoint_seconds": ("2.5", 2.5),
    "stream.folder": ("/shared/stream", Path("/shared/stream")),
    "stream.traces_url": ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    "stream.traced": ("0.25", 0.25),
    "sources": (
        "{shop: {catalog: rest, uri: 'http://rest', tables: {raw.events: {columns: {user_id: who.id, ip: null}}}}}",
        {
            "shop": SourceSettings(
                catalog="rest",
                uri="http://rest",
                tables={"raw.events": TableMapping(columns={"user_id": "who.id", "ip": None})},
            )
        },
    ),
    "enrichment.city_database": ("geo/City.mmdb", PROJECT_ROOT / "geo" / "City.mmdb"),
    "enrichment.isp_database": ("/etc/isp.mmdb", Path("/etc/isp.mmdb")),
    "quality.as_of": ("now", "now"),
    "quality.window_hours": ("48", 48),
    "quality.max_reject_share": ("0.02", 0.02),
    "quality.max_unreliable_clock_share": ("0.1", 0.1),
    "quality.duplicate_window_hours": ("2", 2),
    "quality.max_duplicate_share": ("0.03", 0.03),
    "quality.max_missing_share": ("0.04", 0.04),
    "quality.max_orphan_share": ("0.05", 0.05),
    "quality.max_volume_change": ("1.5", 1.5),
    "quality.min_volume_events": ("10", 10),
    "quality.max_silence_minutes": ("15", 15.0),
    "quality.max_silence_minutes_by_topic": ("{epg.updates: 60.0}", {"epg.updates": 60.0}),
    "serving.tokens.jwks": ("https://identity/keys", "https://identity/keys"),
    "serving.tokens.secret_file": ("/run/secrets/token", Path("/run/secrets/token")),
    "serving.tokens.audience": ("shop", "shop"),
    "serving.tokens.issuer": ("https://identity/", "https://identity/"),
    "serving.requests_per_s": ("12.5", 12.5),
    "serving.grpc_port": ("9001", 9001),
    "serving.traces_url": ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    "serving.log_requests": ("0.25", 0.25),
    "serving.replicas": ("3", 3),
    "serving.model_refresh_s": ("2.5", 2.5),
    "serving.model_processes": ("each", "each"),
    "serving.model_replicas": ("3", 3),
    "serving.experiments": (
        "{deeper: {model: churn, share: 0.1, mode: ab}}",
        {"deeper": ExperimentSettings(model="churn", share=0.1, mode="ab")},
    ),
    "serving.predictions.share": ("0.25", 0.25),
    "serving.predictions.flush_s": ("2.5", 2.5),
    "serving.predictions.most_waiting": ("12", 12),
    "serving.predictions.retention_days": ("12.5", 12.5),
    "serving.served_features.share": ("0.25", 0.25),
    "serving.served_features.flush_s": ("2.5", 2.5),
    "serving.served_features.most_waiting": ("12", 12),
    "serving.served_features.retention_days": ("12.5", 12.5),
    "serving.churn_bands.medium": ("0.2", 0.2),
    "serving.churn_bands.high": ("0.4", 0.4),
    "quality.production_hours": ("[6, 23]", (6, 23)),
    "lineage.openlineage_url": ("http://marquez:5000", "http://marquez:5000"),
    "lineage.openlineage_file": ("lineage.jsonl", PROJECT_ROOT / "lineage.jsonl"),
    "lineage.namespace": ("tv", "tv"),
    "training.workers": ("3", 3),
    "training.use_gpu": ("true", True),
    "training.seed": ("0", 0),
    "training.validation_share": ("0.2", 0.2),
    "training.test_share": ("0.3", 0.3),
    "training.models": (
        "{recommendation: {epochs: 3, dropout: 0.1}}",
        {"recommendation": {"epochs": 3, "dropout": 0.1}},
    ),
    "models": (
        "{recommendation: {cadence_hours: 2}, churn: {}}",
        {"recommendation": ModelSettings(cadence_hours=2), "churn": ModelSettings()},
    ),
    "serving.host": ("0.0.0.0", "0.0.0.0"),
    "serving.port": ("9000", 9000),
    "serving.as_of": ("now", "now"),
}
NULLABLE = [
    "kafka.bootstrap_servers",
    "registry.url",
    "lakehouse.uri",
    "lakehouse.warehouse",
    "mlflow.tracking_uri",
    "online_store.url",
    "ray.address",
    "ray.num_cpus",
    "privacy.salt_file",
    "privacy.quarantine_key_file",
    "privacy.tombstone_key_file",
    "privacy.receipt_key_file",
    "privacy.principal",
    "privacy.audit_heads_file",
    "stream.folder",
    "stream.traces_url",
    "enrichment.city_database",
    "enrichment.isp_database",
    "lineage.openlineage_url",
    "lineage.openlineage_file",
    "serving.tokens.jwks",
    "serving.tokens.secret_file",
    "serving.tokens.issuer",
    "serving.requests_per_s",
    "serving.grpc_port",
    "serving.traces_url",
]


def variable(key: str) -> str:
    return "REEL_" + key.upper().replace(".", "_")


def tree_of(key: str, value: object) -> dict:
    *sections, leaf = key.split(".")
    tree: dict = {leaf: value}
    for section in reversed(sections):
        tree = {section: tree}
    return tree


def written(folder: Path, text: str | dict) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return file


def refused(folder: Path, text: str | dict, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as failure:
        load_settings(written(folder, text), environ or {})
    assert isinstance(failure.value, UsageError)
    assert failure.value.exit_code == 2
    assert "\n" not in str(failure.value)
    return str(failure.value)


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        keys |= keys_of(field.annotation, f"{prefix}{name}.") if nested else {prefix + name}
    return keys


def test_no_key_is_left_out_of_these_tests():
    assert {*EVERY_KEY} == keys_of(Settings)


@pytest.mark.parametrize("key", EVERY_KEY)
def test_every_key_has_a_variable_that_overrides_the_file(tmp_path: Path, key: str):
    text, expected = EVERY_KEY[key]
    settings = load_settings(written(tmp_path, ""), {variable(key): text})
    assert attrgetter(key)(settings) == expected
    assert type(attrgetter(key)(settings)) is type(expected)
    by_file = load_settings(written(tmp_path, tree_of(key, yaml.safe_load(text))), {})
    assert by_file == settings
    assert {one for one in EVERY_KEY if attrgetter(one)(settings) != attrgetter(one)(Settings())} <= {key}


def test_the_environment_wins_over_the_file(tmp_path: Path):
    file = written(tmp_path, {"kafka": {"partitions": 3, "timeout_s": 4}, "serving": {"port": 1}})
    settings = load_settings(file, {"REEL_KAFKA_PARTITIONS": "5", "PATH": "/bin", "reel_kafka_timeout_s": "9"})
    assert (settings.kafka.partitions, settings.kafka.timeout_s, settings.serving.port) == (5, 4.0, 1)


@pytest.mark.parametrize("key", NULLABLE)
def test_null_is_a_value_of_every_key_that_may_be_null(tmp_path: Path, key: str):
    text, _ = EVERY_KEY[key]
    file = written(tmp_path, tree_of(key, yaml.safe_load(text)))
    assert attrgetter(key)(load_settings(file, {})) is not None
    assert attrgetter(key)(load_settings(file, {variable(key): "null"})) is None


def test_null_is_refused_where_a_value_is_needed(tmp_path: Path):
    for key in (
        set(EVERY_KEY)
        - set(NULLABLE)
        - {"serving.host", "serving.tokens.audience", "lineage.namespace", "work_dir", "schemas", "privacy.access_file"}
    ):
        message = refused(tmp_path, "", {variable(key): "null"})
        assert f"{key}: " in message
        assert variable(key) in message


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("false", False), ("1", True), ("0", False), ("no", False)]
)
def test_booleans(tmp_path: Path, text: str, expected: bool):
    assert load_settings(written(tmp_path, ""), {"REEL_TRAINING_USE_GPU": text}).training.use_gpu is expected


def test_a_file_without_settings_means_the_defaults(tmp_path: Path):
    for text in ("", "# nothing\n", "{}", "kafka:\nserving:\n", "kafka: {}\n"):
        assert load_settings(written(tmp_path, text), {}) == Settings()
    settings = load_settings(written(tmp_path, "kafka:\n"), {"REEL_KAFKA_PARTITIONS": "2"})
    assert settings.kafka.partitions == 2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"kafak": {}},
            "unknown key 'kafak'; did you mean 'kafka'?; known here: environment, work_dir, schemas, kafka",
        ),
        (
            {"kafka": {"bootstrap_server": "x"}},
            "unknown key 'kafka.bootstrap_server'; did you mean 'kafka.bootstrap_servers'?",
        ),
        ({"lakehouse": {"catalogue": "sql"}}, "unknown key 'lakehouse.catalogue'; did you mean 'lakehouse.catalog'?"),
        ({"serving": {"zzz": 1}}, "unknown key 'serving.zzz'; known here: host, port, as_of, tokens"),
        ({"privacy": {"salt": "hunter2"}}, "unknown key 'privacy.salt'; did you mean 'privacy.salt_file'?"),
        ({1: 2}, "unknown key '1'"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, tree: dict, message: str):
    said = refused(tmp_path, tree)
    assert message in said
    assert str(tmp_path / "settings.yaml") in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("key", "value", "received"),
    [
        ("kafka.partitions", "many", "'many'"),
        ("kafka.partitions", 0, "0"),
        ("kafka.partitions", 1.5, "1.5"),
        ("kafka.timeout_s", -1, "-1"),
        ("kafka.topics", "client.playback", "'client.playback'"),
        ("environment", "staging", "'staging'"),
        ("lakehouse.event_partition", "minute", "'minute'"),
        ("serving.port", 70_000, "70000"),
        ("serving.host", 5, "5"),
        ("training.test_share", 0.5, "0.5"),
        ("training.use_gpu", "perhaps", "'perhaps'"),
        ("work_dir", ["a"], "['a']"),
        ("ray.num_cpus", 0, "0"),
    ],
)
def test_a_wrong_value_names_its_key_what_was_received_and_its_variable(tmp_path: Path, key, value, received):
    message = refused(tmp_path, tree_of(key, value))
    assert f": {key}: " in message
    assert f"received {received};" in message
    assert message.endswith(f"or its variable {variable(key)}")


def test_a_wrong_value_deep_in_a_list_or_mapping_names_the_key_that_can_be_set(tmp_path: Path):
    for tree, key in (
        ({"kafka": {"topics": ["a", {}]}}, "kafka.topics"),
        ({"training": {"models": {"churn": {"epochs": [1]}}}}, "training.models"),
        ({"kafka": {"client": {"sasl.password": 31337}}}, "kafka.client"),
    ):
        message = refused(tmp_path, tree)
        assert f": {key}" in message
        assert message.endswith(f"or its variable {variable(key)}")
        assert "31337" not in message


SHOP = {
    "catalog": "sql",
    "uri": "postgresql://reel:hunter2@db/catalog",
    "properties": {"s3.secret-access-key": "hunter2"},
}


@pytest.mark.parametrize(
    ("shop", "message"),
    [
        (SHOP | {"catalogue": "sql"}, "unknown key 'sources.shop.catalogue'; did you mean 'sources.shop.catalog'?"),
        (
            SHOP | {"tables": {"raw.events": {"column": {}}}},
            "unknown key 'sources.shop.tables.raw.events.column'; did you mean 'sources.shop.tables.raw.events.columns",
        ),
        (SHOP | {"catalog": "hive"}, ": sources.shop.catalog: input should be 'sql' or 'rest'; received 'hive'; mend"),
        (SHOP | {"tables": {"raw.events": {"columns": {"ip": 5}}}}, "sources.shop.tables.raw.events.columns.ip: "),
        ({key: SHOP[key] for key in ("uri", "properties")}, ": sources.shop.catalog: field required; mend"),
        (SHOP | {"properties": "hunter2"}, ": sources.shop.properties: "),
        (SHOP | {"uri": ["hunter2"]}, ": sources.shop.uri: "),
        ("postgresql://reel:hunter2@db/catalog", ": sources.shop: "),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_mapping_of_names_to_sections_is_checked_like_a_section(tmp_path: Path, shop, message, by_variable):
    tree = {"shop": shop}
    environ = {"REEL_SOURCES": yaml.safe_dump(tree)} if by_variable else {}
    said = refused(tmp_path, {} if by_variable else {"sources": tree}, environ)
    assert (message.replace("sources.shop", "shop") if "unknown key" in message and by_variable else message) in said
    assert "hunter2" not in said
    if "unknown key" not in message:
        assert said.endswith("or its variable REEL_SOURCES")


def test_a_cadence_is_some_time(tmp_path: Path):
    tree = {"models": {"churn": {"cadence_hours": 0}}}
    assert "models.churn.cadence_hours: input should be greater than 0; received 0" in refused(tmp_path, tree)


def test_a_source_does_not_show_what_may_be_a_secret(tmp_path: Path):
    settings = load_settings(
        written(tmp_path, {"sources": {"shop": SHOP, "other": SHOP | {"tables": {"a.b": None}}}}), {}
    )
    assert settings.sources["shop"].uri == SHOP["uri"]
    assert settings.sources["other"].tables == {"a.b": TableMapping()}
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("value", [5, "text", ["a"], False])
@pytest.mark.parametrize("environ", [{}, {"REEL_KAFKA_PARTITIONS": "2"}])
def test_a_section_that_is_none_is_refused(tmp_path: Path, value: object, environ: dict[str, str]):
    message = refused(tmp_path, {"kafka": value}, environ)
    assert ": kafka: " in message
    assert f"received {value!r}" in message
    assert "REEL_KAFKA;" not in message
    assert not message.endswith("REEL_KAFKA")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("REEL_KAFKA_BOOTSTRAP_SERVER", "'REEL_KAFKA_BOOTSTRAP_SERVERS'"),
        ("REEL_WORKDIR", "'REEL_WORK_DIR'"),
        ("REEL_SALTS", "'REEL_SALT'"),
        ("REEL_KAFKA", None),
    ],
)
def test_a_variable_that_means_nothing_is_refused(tmp_path: Path, name: str, nearest: str | None):
    message = refused(tmp_path, "", {name: "hunter2"})
    assert f"unknown environment variable {name};" in message
    assert nearest is None or f"did you mean {nearest}?" in message
    assert "hunter2" not in message


def test_variables_of_other_parts_are_left_alone(tmp_path: Path):
    others = (
        "REEL_CONFIG",
        "REEL_SALT",
        "REEL_QUARANTINE_KEY",
        "REEL_SHARED_DATA",
        "REEL_LOG_LEVEL",
        "REEL_FAULT_SEEDS",
    )
    assert load_settings(written(tmp_path, ""), dict.fromkeys(others, "x")) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [("REEL_KAFKA_TOPICS", "[a, b"), ("REEL_KAFKA_CLIENT", "{a: b: c}"), ("REEL_KAFKA_TOPICS", "a, b")],
)
def test_a_list_or_mapping_in_the_environment_must_be_one(tmp_path: Path, name: str, text: str):
    assert name in refused(tmp_path, "", {name: text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kafka: [", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("ray:\n  num_cpus: 1\nkafka: {}\nray:\n  object_store_mb: 9", "the key 'ray' stands there twice"),
        ("ray: {num_cpus: 1, num_cpus: 2}", "the key 'num_cpus' stands there twice"),
        ("\tkafka: 1", "is not valid YAML"),
        ("- kafka", "must hold a mapping of settings; received a list"),
        ("just text", "must hold a mapping of settings; received a str"),
        ("42", "must hold a mapping of settings; received a int"),
    ],
)
def test_what_is_no_settings_file(tmp_path: Path, text: str, message: str):
    said = refused(tmp_path, text)
    assert said.startswith(str(tmp_path / "settings.yaml"))
    assert message in said


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(
        SettingsError, match=r"no configuration file at .*/missing\.yaml; name one with --config or REEL_"
    ):
        load_settings(tmp_path / "missing.yaml", {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path, {})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00kafka")
    with pytest.raises(SettingsError, match=r"cannot be read|not valid YAML"):
        load_settings(binary, {})


def test_which_file_is_read(tmp_path: Path):
    named = written(tmp_path, {"serving": {"port": 1}})
    assert load_settings(None, {"REEL_CONFIG": str(named)}).serving.port == 1
    other = tmp_path / "other.yaml"
    other.write_text("serving: {port: 2}")
    assert load_settings(other, {"REEL_CONFIG": str(named)}).serving.port == 2
    assert load_settings(None, {}) == load_settings(PROJECT_ROOT / "configs" / "local.yaml", {})


@pytest.mark.parametrize("name", ["local", "production"])
def test_the_projects_own_files(name: str):
    settings = load_settings(PROJECT_ROOT / "configs" / f"{name}.yaml", {})
    assert settings.environment == name
    assert settings.work_dir.is_absolute()
    assert settings.schemas == PROJECT_ROOT / "configs" / "schemas"


def test_paths_mean_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        written(tmp_path, {"work_dir": "w", "privacy": {"salt_file": "s", "quarantine_key_file": "../k"}}), {}
    )
    assert settings.work_dir == PROJECT_ROOT / "w"
    assert settings.privacy.salt_file == PROJECT_ROOT / "s"
    assert settings.privacy.quarantine_key_file == PROJECT_ROOT.parent / "k"
    assert Settings().work_dir == PROJECT_ROOT / ".reel"


def test_what_is_not_said_lies_under_the_work_dir(tmp_path: Path):
    embedded = Settings(work_dir=tmp_path)
    assert embedded.registry_location == f"{tmp_path}/registry.db"
    assert embedded.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert embedded.online_store_url == f"lmdb://{tmp_path}/online"
    assert embedded.kafka_folder == tmp_path / "kafka"
    assert embedded.ray_address is None
    told = load_settings(PROJECT_ROOT / "configs" / "production.yaml", {})
    assert told.registry_location == "http://schema-registry:8081"
    assert told.tracking_uri == "http://mlflow:5000"
    assert told.online_store_url == "redis://redis:6379/0"
    assert told.ray_address == "auto"


def test_settings_do_not_change_and_do_not_show_what_may_be_a_secret(tmp_path: Path):
    settings = load_settings(written(tmp_path, {"kafka": {"client": {"sasl.password": "hunter2"}}}), {})
    assert settings.kafka.client == {"sasl.password": "hunter2"}
    assert "hunter2" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.kafka = None
