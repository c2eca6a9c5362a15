"""The files that start the service elsewhere are what the settings say; settings and secrets come by environment."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from ray.serve.schema import ServeDeploySchema

from pipelines.deployment import HEADER, NotDeployableError, serve_config, with_serve_config
from pipelines.serve import configured
from pipelines.settings import load_settings
from serving.deploy import application, with_addresses
from serving.deploy import serve_config as made_of
from serving.errors import ConfigurationError
from serving.ingress import node_environment
from serving.settings import ServingSettings
from tests.serving import platform
from tests.serving.service_process import PROJECT
from tests.serving.test_tokens import jwks

CONFIGS = PROJECT / "configs" / "deploy"
SERVE_FILE = (CONFIGS / "serve.yaml").read_text()
PRODUCTION = load_settings(PROJECT / "configs" / "production.yaml", {})
ARGUMENTS = yaml.safe_load(SERVE_FILE)["applications"][0]["args"]


def settings(**change: Any) -> ServingSettings:
    return ServingSettings.model_validate(configured(PRODUCTION) | change)


def manifest() -> dict[str, Any]:
    """The RayService."""
    return yaml.safe_load((CONFIGS / "rayservice.yaml").read_text())


def containers() -> list[dict[str, Any]]:
    """Those of the head and of the workers."""
    cluster = manifest()["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [one for group in groups for one in group["template"]["spec"]["containers"]]


# --- the files ---------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_settings_say() -> None:
    said = serve_config(PRODUCTION)
    assert HEADER + said == SERVE_FILE, "run `reel --config configs/production.yaml deployment`"
    assert manifest()["spec"]["serveConfigV2"] == said


def test_they_are_of_rays_own_schema_and_leave_nothing_out() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(SERVE_FILE))
    (reel,) = config.applications
    assert (reel.name, reel.route_prefix, reel.import_path) == ("reel", "/", "serving.deploy:application")
    assert (config.http_options.host, config.http_options.port) == (PRODUCTION.serving.host, PRODUCTION.serving.port)
    assert config.grpc_options.port == PRODUCTION.serving.grpc_port
    replicas = {one.name: one.num_replicas for one in reel.deployments}
    assert replicas.pop("ingress") == PRODUCTION.serving.replicas
    assert replicas == {f"model_{model}": PRODUCTION.serving.model_replicas for model in reel.args["models"]}
    # Together with what the file says elsewhere, the arguments are the service's settings, whole.
    elsewhere = {"host": "0.0.0.0", "port": 8000, "grpc_port": 9000, "replicas": 2}
    assert ServingSettings.model_validate(reel.args | elsewhere) == settings()


def test_all_nodes_of_the_manifest_have_what_serve_reads_there_and_the_secrets() -> None:
    assert len(containers()) == 2
    for container in containers():
        assert {one["name"]: one["value"] for one in container["env"]} == node_environment("haproxy", settings())
        assert container["envFrom"] == [{"secretRef": {"name": "reel-secrets"}}]
        (mount,) = container["volumeMounts"]
        assert Path(mount["mountPath"]) == PRODUCTION.work_dir
    cluster = manifest()["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == ray.__version__
    deployments = yaml.safe_load(SERVE_FILE)["applications"][0]["deployments"]
    wanted = sum(one["ray_actor_options"]["num_cpus"] * one["num_replicas"] for one in deployments)
    (workers,) = cluster["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    one_node = int(container["resources"]["requests"]["cpu"])
    # While a roll-out goes on, both versions are there; and one node may be lost.
    assert one_node * (workers["minReplicas"] - 1) >= 2 * wanted


def test_the_manifest_keeps_all_but_the_field() -> None:
    before = (
        "kind: RayService\nspec:\n  serveConfigV2: |\n    applications: []\n\n    more: 1\n  rayClusterConfig: {}\n"
    )
    after = with_serve_config(before, "applications:\n- name: reel\n")
    assert yaml.safe_load(after) == {
        "kind": "RayService",
        "spec": {"serveConfigV2": "applications:\n- name: reel\n", "rayClusterConfig": {}},
    }
    assert with_serve_config(after, "applications:\n- name: reel\n") == after
    with pytest.raises(NotDeployableError, match="no line `serveConfigV2"):
        with_serve_config("kind: RayService\n", "")


# --- settings and secrets ----------------------------------------------------------------------------------------


def test_no_secret_goes_into_the_file() -> None:
    with pytest.raises(ConfigurationError, match="REEL_ONLINE_STORE_URL") as refused:
        made_of(settings(online_store_url="redis://:hush@redis:6379/0"))
    assert "hush" not in str(refused.value)
    laptop = settings(tokens={"algorithm": "HS256", "secret_file": "/secret"}, salt_file="/salt")
    assert "/secret" not in json.dumps(made_of(laptop))
    assert "/salt" not in json.dumps(made_of(laptop))


def test_who_asks_for_no_tokens_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="asks for tokens"):
        made_of(settings(tokens=None))
    monkeypatch.setenv("REEL_SALT", platform.SALTS)
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "tokens"}
    with pytest.raises(ConfigurationError, match="tokens are missing"):
        application(arguments)


def test_a_wrong_argument_or_a_missing_salt_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(jwks(("one", rsa.generate_private_key(public_exponent=65537, key_size=2048))))
    monkeypatch.setenv("REEL_SERVING_TOKENS_JWKS", str(tmp_path / "jwks.json"))
    monkeypatch.delenv("REEL_SALT", raising=False)
    with pytest.raises(ConfigurationError, match="did you mean 'max_keys'"):
        application(ARGUMENTS | {"max_key": 1})
    with pytest.raises(ConfigurationError, match="set REEL_SALT"):
        application(ARGUMENTS)


def test_addresses_come_from_the_environment_and_the_rest_stays() -> None:
    environ = {
        "REEL_ONLINE_STORE_URL": "redis://other/0",
        "REEL_MLFLOW_TRACKING_URI": "http://other",
        "REEL_SERVING_TOKENS_JWKS": "/jwks",
        "REEL_WORK_DIR": "/work",
        "REEL_KAFKA_BOOTSTRAP_SERVERS": "broker:9092",
    }
    told = with_addresses(ARGUMENTS, environ)
    assert told == ARGUMENTS | {
        "online_store_url": "redis://other/0",
        "mlflow_tracking_uri": "http://other",
        "tokens": ARGUMENTS["tokens"] | {"jwks": "/jwks"},
        "predictions": ARGUMENTS["predictions"] | {"folder": "/work/predictions"},
    }
    assert with_addresses(ARGUMENTS, {}) == ARGUMENTS
    assert ARGUMENTS["tokens"]["jwks"].startswith("https://"), "what was given is as it was"
