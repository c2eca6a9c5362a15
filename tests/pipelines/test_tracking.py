"""MLflow's database in a SQLite file, when it is new."""

import errno
import multiprocessing
import os
import sqlite3
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from pipelines.tracking import Tracking
from serving.hosting.registry import Registry

ROUNDS, TRAININGS = 3, 2
MODEL, ALIAS = "recommendation", "champion"


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder}/work/mlflow.db"


def _train(folder: Path, training: int, start: Barrier) -> None:
    """What a training does first, at the same moment as the others; once in each of the rounds."""
    for number in range(ROUNDS):
        start.wait()
        tracking = Tracking(_uri(folder / str(number)))
        tracking.end_run(tracking.open_run(MODEL, f"training-{training}", {}), "FINISHED")


def _serve(folder: Path, start: Barrier, trained: Event) -> None:
    """A service that looks for a model from before there is a database, until all have trained."""
    for number in range(ROUNDS):
        registry = Registry(_uri(folder / str(number)))
        start.wait()
        while not _looked(registry) and not trained.is_set():
            time.sleep(0.001)  # there is no database yet
    while not trained.is_set():
        assert _looked(registry)


def _looked(registry: Registry) -> bool:
    """Whether there was a database to look into; anything but a whole one raises."""
    try:
        assert registry.version(MODEL, ALIAS) is None
    except FileNotFoundError:
        return False
    return True


@pytest.mark.slow
def test_first_trainings_and_a_service_may_all_begin_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, trained = context.Barrier(TRAININGS + 1, timeout=60), context.Event()
    service = context.Process(target=_serve, args=(tmp_path, start, trained))
    others = [context.Process(target=_train, args=(tmp_path, number, start)) for number in range(TRAININGS)]
    for process in (service, *others):
        process.start()
    for process in others:
        process.join()
    trained.set()
    service.join()
    assert [process.exitcode for process in (service, *others)] == [0] * (TRAININGS + 1)
    for number in range(ROUNDS):
        tracking = Tracking(_uri(tmp_path / str(number)))
        experiment = tracking.client.get_experiment_by_name(MODEL)
        assert len(tracking.client.search_runs([experiment.experiment_id])) == TRAININGS
        assert os.listdir(tmp_path / str(number) / "work") == ["mlflow.db"]


def test_a_new_database_is_what_mlflow_makes_and_keeps_no_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking = Tracking(_uri(tmp_path / "50% of it"))
    (default,) = tracking.client.search_experiments()
    assert (default.experiment_id, default.artifact_location) == ("0", str(tmp_path / "mlruns" / "0"))
    made = tmp_path / "50% of it" / "work" / "mlflow.db"
    assert os.listdir(made.parent) == ["mlflow.db"]
    assert made.stat().st_nlink == 1
    assert b".mlflow-" not in made.read_bytes()
    opened = [Path(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]
    names = {os.readlink(one) for one in opened if one.exists() and one.samefile(made)}
    assert names == {str(made)}, "SQLite knows it by one name"


def test_where_a_file_cannot_have_two_names_mlflow_makes_it_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    Tracking(_uri(tmp_path)).client.search_experiments()
    assert os.listdir(tmp_path / "work") == ["mlflow.db"]


def test_a_database_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as theirs:
        theirs.execute("CREATE TABLE alembic_version (version_num TEXT)")
        theirs.execute("INSERT INTO alembic_version VALUES ('of another time')")
    theirs.close()
    with pytest.raises(Exception, match="of another time"):
        Tracking(f"sqlite:///{file}")
    assert os.listdir(tmp_path) == ["mlflow.db"]
