"""Configuration is refused with the key at fault; salts come from the environment or from a private file."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.serve import models_of
from pipelines.settings import Settings
from serving.errors import ConfigurationError
from serving.settings import (
    ExperimentSettings,
    PredictionSettings,
    ServedFeatureSettings,
    ServingSettings,
    load_settings,
    read_salts,
)

LEAST = {"online_store_url": "lmdb:///var/lib/online", "mlflow_tracking_uri": "sqlite:////var/lib/mlflow.db"}


def written(folder: Path, text: str) -> Path:
    file = folder / "serving.json"
    file.write_text(text)
    return file


def test_two_addresses_are_enough(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, json.dumps(LEAST)))
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.models == ("cascade", "recommendation", "churn", "cdn", "anomaly")
    assert settings.store_budget_ms == 50
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prot": 8000}, "unknown key 'prot'; did you mean 'port'?"),
        ({"zzzzzz": 1}, "unknown key 'zzzzzz'; known: online_store_url"),
        ({"port": 70_000}, "port: input should be less than or equal to 65535; received 70000"),
        ({"port": "http"}, "port: .*; received 'http'"),
        ({"as_of": "yesterday"}, "as_of: input should be 'watermark' or 'now'; received 'yesterday'"),
        ({"store_budget_ms": 0}, "store_budget_ms: .*; received 0"),
        ({"replicas": 0}, "replicas: .*; received 0"),
        ({"ingress": "nginx"}, "ingress: .*; received 'nginx'"),
        ({"online_store_url": None}, "online_store_url: .*; received None"),
        ({"salts": ["secret"]}, "unknown key 'salts'"),
        ({"models": ["ranker"]}, "models.0: .*; received 'ranker'"),
        ({"model_replicas": 2}, "several model_replicas need model_processes: each"),
        ({"experiments": {"a": {"model": "churn", "share": 0, "mode": "ab"}}}, "experiments.a.share: .*; received 0"),
        ({"experiments": {"a": {"model": "churn", "share": 1, "mode": "both"}}}, "experiments.a.mode: .*'both'"),
        (
            {"experiments": {name: {"model": "cdn", "share": 0.1, "mode": "ab"} for name in ("a", "b")}},
            "cdn is in several experiments",
        ),
        ({"churn_bands": {"medium": 0.5, "high": 0.4}}, "churn_bands: .*medium must be below high"),
        ({"predictions": {"folder": "/a", "share": 2}}, "predictions.share: .*; received 2"),
        ({"served_features": {"folder": "/a", "share": -1}}, "served_features.share: .*; received -1"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as failure:
        load_settings(written(tmp_path, json.dumps(LEAST | change)))
    assert failure.value.exit_code == 2
    assert "\n" not in str(failure.value)


def test_what_reel_says_of_models_is_understood(tmp_path: Path) -> None:
    tried = {"deeper": {"model": "churn", "share": 0.1, "mode": "shadow"}}
    reel = Settings(work_dir=tmp_path, serving={"experiments": tried, "predictions": {"share": 0.5, "flush_s": 5}})
    passed = load_settings(written(tmp_path, json.dumps(LEAST | models_of(reel))))
    assert passed.experiments["deeper"] == ExperimentSettings(model="churn", share=0.1, mode="shadow")
    assert passed.predictions == PredictionSettings(folder=tmp_path / "predictions", share=0.5, flush_s=5)
    kept = passed.served_features
    assert kept == ServedFeatureSettings(folder=tmp_path / "served_features", share=0.01)
    unlogged = Settings(work_dir=tmp_path, serving={"predictions": {"share": 0}, "served_features": {"share": 0}})
    passed = load_settings(written(tmp_path, json.dumps(LEAST | models_of(unlogged))))
    assert (passed.predictions, passed.served_features) == (None, None)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="mlflow_tracking_uri: field required"):
        load_settings(written(tmp_path, '{"online_store_url": "lmdb:///a"}'))


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"a": 1,}'])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not valid JSON|must be a JSON object"):
        load_settings(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read"):
        load_settings(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "binary")


# --- salts ---------------------------------------------------------------------------------------------------


def settings_with(salt_file: Path | None) -> ServingSettings:
    return ServingSettings.model_validate(LEAST | {"salt_file": salt_file})


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_salts_of_the_environment_oldest_first() -> None:
    people = read_salts(settings_with(None), {"REEL_SALT": "old, new"})
    assert people.candidates("u1") == (sha256("u1new"), sha256("u1old"))


def test_salts_of_a_private_file_and_the_environment_goes_before(tmp_path: Path) -> None:
    file = tmp_path / "salt"
    file.write_text("old\nnew\n")
    file.chmod(0o600)
    assert read_salts(settings_with(file), {}).hash("u1") == sha256("u1new")
    assert read_salts(settings_with(file), {"REEL_SALT": "other"}).hash("u1") == sha256("u1other")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_a_salt_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "salt"
    file.write_text("secret")
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600") as failure:
        read_salts(settings_with(file), {})
    assert "secret" not in str(failure.value)


def test_no_salt_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set REEL_SALT, or salt_file"):
        read_salts(settings_with(None), {})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_salts(settings_with(tmp_path / "none"), {})
    file = tmp_path / "empty"
    file.write_text(" \n,\n")
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="is empty"):
        read_salts(settings_with(file), {})
