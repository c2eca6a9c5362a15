"""The layout holds: what each folder may import is checked, and the check itself notices what is forbidden."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

PACKAGES = ("features", "models", "pipelines", "serving")
LINTER = Path(sysconfig.get_path("scripts")) / "lint-imports"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """The import linter on the packages and the rules in `folder`."""
    return subprocess.run(
        [LINTER, "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(project_root: Path, tmp_path: Path) -> Path:
    """The packages and their rules, to be changed at will."""
    for package in PACKAGES:
        shutil.copytree(project_root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project_root / "pyproject.toml", tmp_path)
    return tmp_path


def plant(folder: Path, module: str, line: str) -> None:
    file = folder / module
    file.write_text(f"{file.read_text()}\n{line}\n")


def test_every_folder_imports_only_what_it_may(project_root: Path):
    linted = lint(project_root)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert " 0 broken" in linted.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("features/windows.py", "import ray", "features and models are pure"),
        ("features/windows.py", "from confluent_kafka import Consumer", "features and models are pure"),
        ("features/groups/__init__.py", "import pyiceberg.table", "features and models are pure"),
        ("features/consent.py", "def f():\n    import httpx", "features and models are pure"),
        ("features/consent.py", "from pipelines.settings import Settings", "features and models are pure"),
        ("features/consent.py", "from serving.online_store import OnlineStore", "features and models are pure"),
        ("features/consent.py", "from models.errors import ModelError", "features do not know of models"),
        ("models/errors.py", "import mlflow", "features and models are pure"),
        ("models/errors.py", "from ray.train import torch", "features and models are pure"),
        ("features/windows.py", "import features.tiles", "no cycles within a folder"),
        ("pipelines/kafka/offsets.py", "def f():\n    import pipelines.intake", "no cycles within a folder"),
        ("serving/app.py", "import pipelines", "serving never imports pipelines"),
        ("serving/errors.py", "from pipelines.settings import Settings", "serving never imports pipelines"),
        ("pipelines/clean.py", "from serving.app import *", "of serving, pipelines import the online store"),
        (
            "pipelines/simulator/__init__.py",
            "import serving.consent_gate",
            "of serving, pipelines import the online store",
        ),
    ],
)
def test_a_forbidden_import_is_noticed(copy: Path, module: str, line: str, broken: str):
    plant(copy, module, line)
    linted = lint(copy)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert [verdict for verdict in linted.stdout.splitlines() if verdict.startswith(broken) and "BROKEN" in verdict]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pipelines/clean.py", "from serving.online_store import open_online_store"),
        ("pipelines/simulator/__init__.py", "import serving.errors"),
        ("serving/app.py", "from features.consent import decide"),
        ("models/errors.py", "import torch"),
    ],
)
def test_what_is_allowed_is_not_complained_about(copy: Path, module: str, line: str):
    plant(copy, module, line)
    assert lint(copy).returncode == 0
