"""What every model must do, whatever it learns: a new folder under models/ is found here by itself.

A model's tests offer `tests/models/NAME/planted.py` with `write_training_set(folder)`, of at least 20 viewers, accounts
or series.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from features.purposes import Purpose
from models.errors import CheckpointMismatchError, ConfigurationError, ModelError, TrainingSetError, UnknownModelError
from models.intervals import Interval
from models.task import Library, Place, Task, Training, load_task, model_names
from models.training_set import SPLITS, Manifest, read_manifest
from pipelines.plots import chart
from pipelines.signature import mlflow_signature
from pipelines.training_sets.named import training_set_named

FORBIDDEN = ("ray", "mlflow", "confluent_kafka", "pyiceberg", "pandas", "polars", "pipelines", "serving")


@pytest.fixture(scope="module", params=model_names())
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param)


@pytest.fixture(scope="module")
def training_set(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, pa.Table]]:
    folder: Path = tmp_path_factory.mktemp(task.name)
    importlib.import_module(f"tests.models.{task.name}.planted").write_training_set(folder)
    tables = {}
    for split in SPLITS:
        files = sorted((folder / f"split={split}").glob("*.parquet"))
        tables[split] = pa.concat_tables(pq.read_table(path, partitioning=None) for path in files)
    return read_manifest(folder, task.needs), tables


@pytest.fixture(scope="module")
def saved(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a model that was trained for two epochs."""
    training = start(task, training_set, epochs=2)
    training.epoch()
    training.epoch()
    folder: Path = tmp_path_factory.mktemp("saved")
    training.best().save(folder)
    return folder


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


def test_a_saved_model_holds_no_pickled_code(saved: Path) -> None:
    """Tensors, JSON, a library's own text: whatever is there is read without running anything."""
    for path in saved.iterdir():
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".txt":
            assert path.read_text().startswith("tree\n"), "LightGBM's text"
        else:
            assert path.suffix == ".ubj", f"{path.name}: of which format is that?"
            assert path.read_bytes().startswith(b"{L"), "UBJSON, as XGBoost writes it"


def test_mlflow_can_ask_it_as_its_signature_says(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], saved: Path
) -> None:
    signature = mlflow_signature(task.signature)
    names = [column.name for column in task.signature.inputs]
    assert signature.inputs.input_names() == names
    rows = training_set[1]["test"].slice(0, 5)
    frame = rows.select([name for name in names if name in rows.column_names]).to_pandas()
    answers = importlib.import_module(task.loader)._load_pyfunc(str(saved)).predict(frame)
    assert set(answers) == {column.name for column in task.signature.outputs}
    assert {len(values) for values in answers.values()} == {5}


def test_judges_its_test_rows_beside_a_baseline_and_says_the_same_again(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], saved: Path
) -> None:
    manifest, tables = training_set
    judged, again = (task.evaluate(saved, manifest, tables["test"], 3) for _ in range(2))
    assert judged == again
    assert judged.whole.rows == len(tables["test"])
    assert {*judged.shown, *judged.headline} <= judged.whole.figures.keys()
    assert judged.slices
    for one in (judged.whole, *judged.slices.values()):
        assert 0 < one.units <= one.rows
        for figure in one.figures.values():
            assert not isinstance(figure, Interval) or np.isnan(figure.low) or figure.low <= figure.high
        for shown in (one.figures[name] for name in judged.shown):
            assert isinstance(shown, Interval)
            assert np.isnan(shown.low) or shown.low <= shown.mean <= shown.high
    for drawn in judged.charts.values():
        assert chart(drawn, task.name).axes, "a picture needs axes"


def test_the_gate_has_a_number_for_every_row_of_the_test_period(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]], saved: Path
) -> None:
    manifest, tables = training_set
    test, gate = tables["test"], task.gate
    for values in (gate.values(saved, manifest, test), gate.baseline_values(saved, manifest, test)):
        assert values.shape == (len(test),)
        assert np.isfinite(values).all()
    assert test[gate.unit].null_count == 0
    assert (gate.label_ms(test) >= manifest.label_horizon_ms).all()


def test_what_it_learns_from_is_declared_for_its_purpose(
    task: Task, training_set: tuple[Manifest, dict[str, pa.Table]]
) -> None:
    if task.training_set is None:
        pytest.skip("it has a training set of its own kind")
    declared = training_set_named(task.training_set)
    assert declared.purpose == task.purpose
    manifest, tables = training_set
    assert manifest.horizon_ms == declared.horizon_ms
    assert {label.name for label in declared.labels} <= set(tables["train"].column_names)


def test_no_rows_are_a_named_failure(task: Task, training_set: tuple[Manifest, dict[str, pa.Table]]) -> None:
    manifest, tables = training_set
    empty = {split: table.slice(0, 0) for split, table in tables.items()}
    with pytest.raises(ModelError, match="train"):
        start(task, (manifest, empty))


def test_a_column_that_is_missing_is_named(task: Task, training_set: tuple[Manifest, dict[str, pa.Table]]) -> None:
    manifest, tables = training_set
    less = {split: table.drop_columns([task.columns[-1]]) for split, table in tables.items()}
    with pytest.raises(TrainingSetError, match=task.columns[-1]):
        task.start(task.configure({}), manifest, less["train"], less["validation"], Place())


@pytest.mark.parametrize("library", get_args(Library))
def test_needs_nothing_of_the_platform(library: str, project_root: Path) -> None:
    """Imported alone, a model brings its library, NumPy and Arrow, and nothing that moves or stores data."""
    tasks = [task for task in map(load_task, model_names()) if task.library == library]
    modules = [module for task in tasks for module in (f"models.{task.name}.task", task.loader)]
    code = (
        f"import importlib, sys, {library}; brought = set(sys.modules)\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        f"    print(module, [name for name in {FORBIDDEN!r} if name in sys.modules and name not in brought])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{module} []" for module in modules]
    assert modules, "a library that no model uses"
