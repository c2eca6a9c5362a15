"""The routing model on a world whose quality is known: what it expects, what its policy earns, what the gate says."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.cdn.judging import evaluate, row_values, running_values
from models.cdn.pyfunc import _load_pyfunc
from models.cdn.quality import QualityConfig, QualityModel
from models.cdn.rows import choices, over_each_network, prepared, running_policy
from models.cdn.training import BASELINE, WATCHED, QualityTraining
from models.errors import ChoiceLogError, ConfigurationError, EmptyTrainingSetError, ModelFolderError, TrainingSetError
from models.task import Place
from models.training_set import Manifest, read_manifest
from tests.models.cdn.planted import NOISE, SHARES, Planted, write_training_set

CONFIG = QualityConfig(epochs=6)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write_training_set(tmp_path_factory.mktemp("cdn"))


@pytest.fixture(scope="module")
def splits(planted: Planted) -> dict[str, pa.Table]:
    names = ("train", "validation", "test")
    return {
        name: pq.read_table(planted.folder / f"split={name}" / "part-0.parquet", partitioning=None) for name in names
    }


@pytest.fixture(scope="module")
def manifest(planted: Planted) -> Manifest:
    return read_manifest(planted.folder)


@pytest.fixture(scope="module")
def trained(splits: dict[str, pa.Table], manifest: Manifest) -> QualityTraining:
    training = QualityTraining(CONFIG, manifest, splits["train"], splits["validation"], Place(threads=1))
    while not training.done:
        training.epoch()
    return training


@pytest.fixture(scope="module")
def saved(trained: QualityTraining, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    trained.best().save(folder)
    return folder


def test_explains_nearly_all_that_is_not_noise(
    trained: QualityTraining, planted: Planted, splits: dict[str, pa.Table]
) -> None:
    rows = prepared(splits["validation"], "validation")
    truth = rows["score"].to_numpy()
    possible = 1 - NOISE**2 / truth.var()
    best = trained.curve[trained.best_epoch - 1]
    assert 0.95 * possible < best[WATCHED] <= 1.02 * possible
    assert best[WATCHED] > best[BASELINE] + 0.1


def test_its_policy_is_within_1_percent_of_the_best_network_in_every_context(
    saved: Path, planted: Planted, splits: dict[str, pa.Table]
) -> None:
    model = QualityModel.load(saved)
    rows = prepared(splits["test"], "test")
    means = planted.means["test"][np.isfinite(splits["test"]["score"].to_numpy(zero_copy_only=False))]
    scores = np.column_stack([model.scores(one) for one in over_each_network(rows, model.running.networks)])
    greedy = means[np.arange(len(means)), scores.argmax(axis=1)].mean()
    assert greedy > 0.99 * means.max(axis=1).mean()
    explored = (model.policy(scores) * means).sum(axis=1).mean()
    assert (means * SHARES).sum(axis=1).mean() + 5 < explored < greedy


def test_off_policy_value_is_what_the_policy_earns_and_the_gate_opens(
    saved: Path, planted: Planted, splits: dict[str, pa.Table], manifest: Manifest
) -> None:
    model, rows = QualityModel.load(saved), prepared(splits["test"], "test")
    means = planted.means["test"][np.isfinite(splits["test"]["score"].to_numpy(zero_copy_only=False))]
    scores = np.column_stack([model.scores(one) for one in over_each_network(rows, model.running.networks)])
    value = (model.policy(scores) * means).sum(axis=1).mean() / 100
    figures = evaluate(saved, manifest, splits["test"], seed=1).whole.figures
    for name in ("value", "value_ips", "value_snips", "value_dr"):
        width = figures[name].high - figures[name].low
        assert figures[name].mean == pytest.approx(value, abs=0.75 * width), name  # three standard errors
    assert figures["gain"].above_zero
    assert figures["objections"] == 0
    gain = row_values(saved, manifest, splits["test"]) - running_values(saved, manifest, splits["test"])
    assert gain.mean() == pytest.approx(figures["gain"].mean * len(rows) / len(splits["test"]))


def test_a_policy_that_the_log_says_too_little_of_is_refused(
    saved: Path, splits: dict[str, pa.Table], manifest: Manifest
) -> None:
    with pytest.raises(ChoiceLogError, match="cannot be judged by it: the log says as much of it as"):
        row_values(saved, manifest, splits["test"].slice(0, 60))


def test_rows_over_another_network_know_what_its_latest_row_there_knew() -> None:
    """By hand: two regions, and a null where the network was not seen yet."""
    at = pa.array([1, 2, 3, 4, 4]).cast(pa.timestamp("ms", tz="UTC"))
    rows = pa.table({
        "event_timestamp": at,
        "cdn": ["a", "b", "a", "b", "a"],
        "region": ["DE", "DE", "US", "US", "DE"],
        "qoe_signals_by_cdn_region__avg_qoe_score": [10.0, 20.0, 30.0, 40.0, 50.0],
        "qoe_signals_by_cdn_region__rebuffer_frequency": [1.0, 2.0, 3.0, 4.0, 5.0],
    })  # fmt: skip
    over_a, over_b = over_each_network(rows, ("a", "b"))
    assert over_a["qoe_signals_by_cdn_region__avg_qoe_score"].to_pylist() == [10.0, 10.0, 30.0, 30.0, 50.0]
    assert over_b["qoe_signals_by_cdn_region__avg_qoe_score"].to_pylist() == [None, 20.0, None, 40.0, 20.0]
    assert over_b["qoe_signals_by_cdn_region__rebuffer_frequency"].to_pylist() == [None, 2.0, None, 4.0, 2.0]
    assert set(over_b["cdn"].to_pylist()) == {"b"}


def test_propensities_are_the_logged_ones_else_the_shares_of_the_region(splits: dict[str, pa.Table]) -> None:
    train, test = prepared(splits["train"], "train"), prepared(splits["test"], "test")
    running = running_policy(train)
    log = choices(test, running)
    assert log.propensity == pytest.approx(np.array(SHARES)[log.arm], abs=0.03)
    logged = [0.25 if at % 2 else None for at in range(len(test))]
    mixed = choices(test.append_column("propensity", pa.array(logged, pa.float64())), running).propensity
    assert (mixed[1::2] == 0.25).all()
    assert mixed[::2] == pytest.approx(log.propensity[::2])
    with pytest.raises(ChoiceLogError, match="propensities"):
        choices(test.append_column("propensity", pa.array(np.zeros(len(test)))), running)


def test_served_probabilities_are_of_the_networks_of_a_request(saved: Path, splits: dict[str, pa.Table]) -> None:
    frame = prepared(splits["test"], "test").slice(0, 1).to_pandas()
    frame = {name: list(frame[name]) * 3 for name in frame}
    frame |= {"cdn": ["akamai", "cloudfront", "fastly"], "request": ["x", "x", "y"]}
    answers = _load_pyfunc(str(saved)).predict(frame)
    first, second, alone = answers["probability"]
    assert first + second == pytest.approx(1)
    assert alone == 1
    gap = abs(answers["score"][0] - answers["score"][1]) / 100
    assert min(first, second) == pytest.approx(1 / (2 + CONFIG.gamma * gap))


def test_bad_rows_are_named(splits: dict[str, pa.Table], manifest: Manifest, trained: QualityTraining) -> None:
    unscored = splits["train"].set_column(
        splits["train"].column_names.index("score"), "score", pa.nulls(len(splits["train"]), pa.float64())
    )
    with pytest.raises(EmptyTrainingSetError, match="train"):
        QualityTraining(CONFIG, manifest, unscored, splits["validation"], Place(threads=1))
    with pytest.raises(TrainingSetError, match="train rows lack the columns cdn_region"):
        QualityTraining(
            CONFIG, manifest, splits["train"].drop_columns(["cdn_region"]), splits["validation"], Place(threads=1)
        )
    new = prepared(splits["test"], "test").slice(0, 2)
    new = new.set_column(new.column_names.index("cdn"), "cdn", pa.array(["akamai", "edgio"]))
    with pytest.raises(TrainingSetError, match="went over edgio, of which no train row is"):
        choices(new, trained.best().running)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"leaf": 3}, r"unknown settings of the cdn model: \['leaf'\]"),
        ({"leaves": 1}, "leaves must be at least 2: received 1"),
        ({"gamma": -1}, "gamma must be at least 0: received -1.0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
    ],
)
def test_configurations_that_are_none_are_named(values: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        QualityConfig.from_dict(values)


def test_a_broken_folder_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="does not hold one whole cdn model"):
        QualityModel.load(tmp_path)
    (tmp_path / "description.json").write_text('{"format": 9, "architecture": "lightgbm-quality"}')
    with pytest.raises(ModelFolderError, match="holds format 9"):
        QualityModel.load(tmp_path)
