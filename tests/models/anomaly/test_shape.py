import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.anomaly.contexts import Past, Prior, contexts_of
from models.anomaly.errors import NotFiniteError
from models.anomaly.forecaster import CONFIG_FILE, Forecaster
from models.anomaly.predictive import Predictive
from models.anomaly.pyfunc import _load_pyfunc
from models.anomaly.shape import ShapeConfig, ShapeNetwork, log_density, predicted
from models.anomaly.task import TASK
from models.anomaly.training import AnomalyTraining
from models.errors import ConfigurationError, EmptyTrainingSetError, ModelFolderError, TrainingSetError
from models.intervals import Interval
from models.task import Place
from models.training_set import Manifest, read_manifest
from tests.models.anomaly.planted import write_training_set

HOUR_MS = 3_600_000
PRIOR = Prior(5.0, 2.0)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, pa.Table]]:
    folder = tmp_path_factory.mktemp("planted")
    write_training_set(folder)
    read = {s: pq.read_table(folder / f"split={s}", partitioning=None) for s in ("train", "validation", "test")}
    return read_manifest(folder), read


@pytest.fixture(scope="module")
def trained(
    planted: tuple[Manifest, dict[str, pa.Table]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[AnomalyTraining, Path]:
    manifest, tables = planted
    training = AnomalyTraining(ShapeConfig(epochs=5), manifest, tables["train"], tables["validation"], Place())
    while not training.done:
        training.epoch()
    folder = tmp_path_factory.mktemp("trained")
    training.best().save(folder)
    return training, folder


@given(st.floats(-50, 50), st.floats(0.01, 100), st.floats(-5_000, 5_000))
@settings(max_examples=50, deadline=None)
def test_distributions_are_students_t(location: float, scale: float, value: float) -> None:
    given_, truth = Predictive(np.array([location]), np.array([scale])), stats.t(4, location, scale)
    assert given_.log_density(np.array([value])) == pytest.approx([truth.logpdf(value)], rel=1e-9)
    far_out = stats.t.sf(abs((value - location) / scale), 4) * 2
    assert given_.tail(np.array([value])) == pytest.approx([far_out], rel=1e-9)
    low, high = given_.band()
    assert (low, high) == (pytest.approx([truth.ppf(0.025)]), pytest.approx([truth.ppf(0.975)]))
    ours = log_density(torch.tensor([location]), torch.tensor([scale]).log(), torch.tensor([value]))
    assert ours.numpy() == pytest.approx(given_.log_density(np.array([value])), rel=1e-4)


@given(st.lists(st.floats(-3, 3), min_size=20, max_size=40), st.integers(1, 19), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_the_network_looks_back_only(values: list[float], at: int, other: float) -> None:
    torch.manual_seed(1)
    network = ShapeNetwork(ShapeConfig(channels=4))
    changed = list(values)
    changed[at:] = [other] * (len(values) - at)
    with torch.inference_mode():
        one, two = (network.encode(torch.tensor([series]))[..., :at] for series in (values, changed))
    assert torch.equal(one, two)


series = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 99).map(float)), min_size=1, max_size=60)


@given(series, series)
@settings(max_examples=30, deadline=None)
def test_neither_the_future_nor_the_order_of_rows_changes_what_is_expected(
    past: list[tuple[str, float]], future: list[tuple[str, float]]
) -> None:
    torch.manual_seed(1)
    network = ShapeNetwork(ShapeConfig(length=8, channels=4))

    def expected(rows: list[tuple[str, float]], order: np.ndarray) -> Predictive:
        segments, values = (np.array(column, dtype=object)[order] for column in zip(*rows, strict=True))
        at_ms = np.arange(len(rows))[order] * HOUR_MS
        return predicted(network, contexts_of(segments, at_ms, values.astype(float), {}, 8, PRIOR))

    alone = expected(past, np.arange(len(past)))
    whole = expected(past + future, np.arange(len(past) + len(future)))
    assert alone.location == pytest.approx(whole.location[: len(past)], rel=1e-4, abs=1e-4)
    assert alone.scale == pytest.approx(whole.scale[: len(past)], rel=1e-4)
    backwards = expected(past, np.arange(len(past))[::-1])
    assert backwards.location[::-1] == pytest.approx(alone.location, rel=1e-4, abs=1e-4)


def test_contexts_by_hand() -> None:
    """Of 0 to 9 and then 99: median 4.5, deviations .5 to 4.5 of median 2.5; the last step was 1."""
    values = np.append(np.arange(10.0), 99.0)
    pasts: dict[str, Past] = {}
    contexts = contexts_of(np.array(["a"] * 11, dtype=object), np.arange(11) * HOUR_MS, values, pasts, 10, PRIOR)
    assert contexts.is_known.tolist() == [False] * 8 + [True] * 3
    assert (contexts.scale.location[0], contexts.scale.scale[0]) == (5.0, 2.0), "the prior"
    assert contexts.scale.location[10] == 4.5
    assert contexts.scale.scale[10] == pytest.approx(1.4826 * 2.5)
    assert contexts.windows[10] == pytest.approx((values[:10] - 4.5) / (1.4826 * 2.5))
    assert contexts.windows[9][0] == contexts.windows[9][1], "one value is missing: the first stands for it"
    assert (contexts.last_value.location[10], contexts.last_value.scale[10]) == (9.0, pytest.approx(1.4826))
    # Under three earlier hours of this hour of the day: all ten hours, whose median is 4.5.
    assert contexts.seasonal.location[10] == pytest.approx(4.5)
    assert pasts["a"].values == values[1:].tolist()


def test_it_says_better_what_comes_than_the_hour_of_the_week_and_the_last_value(
    planted: tuple[Manifest, dict[str, pa.Table]], trained: tuple[AnomalyTraining, Path]
) -> None:
    manifest, tables = planted
    figures = TASK.evaluate(trained[1], manifest, tables["test"], 3).whole.figures
    for baseline in ("seasonal", "last_value"):
        ahead = figures[f"log_density_over_{baseline}"]
        assert isinstance(ahead, Interval)
        assert ahead.above_zero
    share = figures["share_in_band"]
    assert isinstance(share, Interval)
    assert share.mean == pytest.approx(0.95, abs=0.03)


def test_a_saved_model_is_asked_with_a_history_or_its_own(trained: tuple[AnomalyTraining, Path]) -> None:
    training, folder = trained
    served, last = _load_pyfunc(str(folder)), training.best().pasts["ch-000"]
    asked = {
        "channel_id": ["ch-000", "ch-000", "ch-000", "unheard-of"],
        "at_ms": [last.newest_ms + HOUR_MS] * 4,
        "history": [None, last.values, last.values, None],
        "tune_ins": [None, last.values[-1], 50 * max(last.values), 1.0],
    }
    answers = served.predict(asked)
    assert answers["expected"][0] == answers["expected"][1]
    assert answers["score"][0] is None
    assert answers["score"][2] > max(3, answers["score"][1])
    assert all(low < expected < high for low, expected, high in zip(
        answers["low"], answers["expected"], answers["high"], strict=True))  # fmt: skip
    assert answers["expected"][3] == training.best().prior.location


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda rows: rows.slice(0, 0), EmptyTrainingSetError, "train split"),
        (lambda rows: rows.drop_columns(["tune_ins"]), TrainingSetError, "lack tune_ins"),
        (lambda rows: _with(rows, [7.0] * len(rows)), TrainingSetError, "is 7 in all"),
        (lambda rows: _with(rows, [None] * len(rows)), TrainingSetError, "tune_ins is null in"),
        (lambda rows: _with(rows, [float("inf")] + [1.0] * (len(rows) - 1)), NotFiniteError, "received inf"),
        (lambda rows: rows.slice(0, 5), EmptyTrainingSetError, "train split"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_named(
    planted: tuple[Manifest, dict[str, pa.Table]], change: object, error: type[Exception], words: str
) -> None:
    manifest, tables = planted
    with pytest.raises(error, match=words):
        AnomalyTraining(ShapeConfig(), manifest, change(tables["train"]), tables["validation"], Place())  # type: ignore[operator]


def _with(rows: pa.Table, values: list[float | None]) -> pa.Table:
    return rows.set_column(rows.column_names.index("tune_ins"), "tune_ins", pa.array(values, pa.float64()))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "received nan"),
        ({"length": 9.5}, "whole"),
        ({"epochs": float("inf")}, "whole"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ShapeConfig.from_dict(values)


def test_a_folder_that_is_no_model_is_refused(trained: tuple[AnomalyTraining, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="does not hold one whole anomaly model"):
        Forecaster.load(tmp_path)
    trained[0].best().save(tmp_path)
    description = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(description | {"format": 9}))
    with pytest.raises(ModelFolderError, match="format"):
        Forecaster.load(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(description | {"config": {"channels": 3}}))
    with pytest.raises(ModelFolderError, match="one whole anomaly model"):
        Forecaster.load(tmp_path)
