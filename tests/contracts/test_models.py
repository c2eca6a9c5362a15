"""What every model must do, whatever it learns: a new folder under models/ is found here by itself.

A model's tests offer `tests/models/NAME/planted.py` with `write_training_set(folder)`.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from features.purposes import Purpose
from models.errors import CheckpointMismatchError, ConfigurationError, ModelError, UnknownModelError
from models.task import Place, Task, Training, load_task, model_names
from models.training_set import Manifest, read_manifest

FORBIDDEN = ("ray", "mlflow", "confluent_kafka", "pyiceberg", "pandas", "polars", "pipelines", "serving")


@pytest.fixture(scope="module", params=model_names())
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param)


@pytest.fixture(scope="module")
def training_set(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, pa.Table]]:
    folder: Path = tmp_path_factory.mktemp(task.name)
    importlib.import_module(f"tests.models.{task.name}.planted").write_training_set(folder)
    tables = {}
    for split in ("train", "validation"):
        files = sorted((folder / f"split={split}").glob("*.parquet"))
        tables[split] = pa.concat_tables(pq.read_table(path, partitioning=None) for path in files)
    return read_manifest(folder), tables


def start(task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], **values: object) -> Training:
    manifest, tables = training_set
    read = {split: table.select(list(task.columns)) for split, table in tables.items()}
    return task.start(task.configure(values), manifest, read["train"], read["validation"], Place())


def test_there_are_models_and_unknown_ones_are_named() -> None:
    assert "recommendation" in model_names()
    with pytest.raises(UnknownModelError, match="recommendation"):
        load_task("recommendations")


def test_purpose_is_one_that_people_can_allow(task: Task) -> None:
    assert task.purpose in set(Purpose) - {Purpose.ESSENTIAL}
    assert task.name in model_names()


def test_configuration_is_plain_numbers_and_refuses_unknown_keys(task: Task) -> None:
    values = task.configure({}).as_dict()
    assert json.loads(json.dumps(values)) == values
    assert task.configure(values).as_dict() == values
    with pytest.raises(ConfigurationError, match="no_such_setting"):
        task.configure({"no_such_setting": 1})


def test_an_epoch_is_judged_beside_the_baseline_and_is_repeatable(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]]
) -> None:
    first, again = (start(task, training_set, epochs=2).epoch() for _ in range(2))
    assert first == again
    assert {"epoch", "train_loss", task.watched, task.baseline} <= first.keys()


def test_state_goes_through_a_file_without_code_and_only_back_to_its_own_configuration(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], tmp_path: Path
) -> None:
    training = start(task, training_set, epochs=2)
    training.epoch()
    torch.save(training.state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = start(task, training_set, epochs=2)
    resumed.resume(state)
    assert resumed.curve == training.curve
    assert resumed.epoch() == training.epoch()
    assert resumed.done
    with pytest.raises(CheckpointMismatchError, match="epochs"):
        start(task, training_set, epochs=3).resume(state)


def test_a_saved_model_holds_no_pickled_code(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], tmp_path: Path
) -> None:
    training = start(task, training_set, epochs=1)
    training.epoch()
    training.best().save(tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        else:
            json.loads(path.read_text())
    assert hasattr(importlib.import_module(task.loader)._load_pyfunc(str(tmp_path)), "predict")


def test_no_rows_are_a_named_failure(task: Task, training_set: tuple[Manifest, dict[str, pa.Table]]) -> None:
    manifest, tables = training_set
    empty = {split: table.slice(0, 0) for split, table in tables.items()}
    with pytest.raises(ModelError, match="train"):
        start(task, (manifest, empty))


def test_needs_nothing_of_the_platform(task: Task, project_root: Path) -> None:
    """Imported alone, a model brings torch, NumPy and Arrow, and nothing that moves or stores data."""
    code = (
        f"import sys, models.{task.name}.task, {task.loader}\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
