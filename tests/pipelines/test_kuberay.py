"""The manifests are whole, name commands that there are, and fit the configuration that they run with."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml

from models.task import load_task, model_names
from pipelines.cli import app
from pipelines.settings import load_settings

Manifests = dict[tuple[str, str], dict[str, Any]]


def documents(project_root: Path) -> Manifests:
    """Every document of every manifest, those within config maps too, by kind and name."""
    found = {}
    for path in sorted((project_root / "configs" / "kuberay").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            inner = [yaml.safe_load(text) for text in document.get("data", {}).values()]
            for one in (document, *inner):
                assert one["apiVersion"]
                key = (one["kind"], one["metadata"]["name"])
                assert key not in found
                found[key] = one
    return found


@pytest.fixture(scope="module")
def manifests(project_root: Path) -> Manifests:
    return documents(project_root)


def parsed(line: str) -> None:
    """A `reel` command line, up to the moment at which it would begin to work. Raises TyperException if it is wrong."""
    program, *arguments = shlex.split(line)
    assert program == "reel"
    group = typer.main.get_command(app)
    context = group.make_context("reel", arguments)
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest, parent=context)


def test_the_job_runs_a_command_that_there_is(manifests: Manifests, project_root: Path) -> None:
    entrypoint = manifests["RayJob", "reel-retrain"]["spec"]["entrypoint"]
    assert entrypoint.endswith("retrain --due")
    parsed(entrypoint)
    with pytest.raises(typer.TyperException, match="No such option"):
        parsed("reel retrain --dew")
    (config,) = re.findall(r"--config /app/(\S+)", entrypoint)
    settings = load_settings(project_root / config, {})
    workers = manifests["RayJob", "reel-retrain"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    cpus = sum(
        group["minReplicas"] * int(container["resources"]["requests"]["cpu"])
        for group in workers
        for container in group["template"]["spec"]["containers"]
    )
    assert cpus > settings.training.workers, "reading needs a processor too"
    mounted = {
        mount["mountPath"]
        for spec in (manifests["RayJob", "reel-retrain"]["spec"]["rayClusterSpec"]["headGroupSpec"], *workers)
        for container in spec["template"]["spec"]["containers"]
        for mount in container["volumeMounts"]
    }
    assert mounted == {str(settings.work_dir)}


def test_it_is_of_the_ray_that_is_installed(manifests: Manifests) -> None:
    assert manifests["RayJob", "reel-retrain"]["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_the_timer_is_as_frequent_as_the_most_frequent_model(
    manifests: Manifests,
) -> None:
    schedule = manifests["CronJob", "reel-retrain"]["spec"]["schedule"]
    assert re.fullmatch(r"\d+ \* \* \* \*", schedule), "once an hour"
    assert min(load_task(name).cadence_hours for name in model_names()) >= 1


def test_what_it_names_is_there(manifests: Manifests) -> None:
    pod = manifests["CronJob", "reel-retrain"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    account = pod["serviceAccountName"]
    assert ("ServiceAccount", account) in manifests
    binding = manifests["RoleBinding", "reel-retrain"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    (rule,) = manifests["Role", binding["roleRef"]["name"]]["rules"]
    (container,) = pod["containers"]
    script = container["command"][-1]
    needed = {"get": "get", "delete": "delete", "apply": "create"}
    for done in re.findall(r"kubectl (\w+)", script):
        assert needed[done] in rule["verbs"]
    (mount,) = container["volumeMounts"]
    (file,) = re.findall(rf"-f {mount['mountPath']}/(\S+)", script)
    assert file in manifests["ConfigMap", pod["volumes"][0]["configMap"]["name"]]["data"]
    assert "rayjob reel-retrain" in script
