"""The model alone: arrays in, probabilities and reasons out."""

from pathlib import Path

import numpy as np
import pytest
import xgboost

from models.churn.calibration import Calibration, sigmoid
from models.churn.columns import Values
from models.churn.logistic import LogisticRegression
from models.churn.model import ChurnConfig, ChurnModel, booster_parameters, take_rounds
from models.errors import ConfigurationError, ModelFolderError

NAMES = ("hours", "stalls", "noise")


def world(n: int = 2_000, seed: int = 1) -> tuple[Values, np.ndarray, np.ndarray]:
    """(numbers, who left, the chance): hours keep, stalls drive away, noise does nothing."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 3)).astype(np.float32)
    chance = sigmoid(-1 - 1.5 * values[:, 0].astype(float) + values[:, 1])
    values[random.random((n, 3)) < 0.05] = np.nan
    return values, (random.random(n) < chance).astype(float), chance


@pytest.fixture(scope="module")
def model() -> ChurnModel:
    values, truth, _ = world()
    config = ChurnConfig(depth=3, lr=0.2)
    matrix = xgboost.QuantileDMatrix(values, truth)
    parameters = booster_parameters(config, float(truth.mean()), threads=1)
    return ChurnModel(take_rounds(parameters, matrix, None, 40, 5), NAMES, Calibration("platt", (0.9, 0.1)))


def test_reasons_are_exact_and_strongest_first(model: ChurnModel) -> None:
    """Contributions sum to the log-odds, and the strongest of them are named."""
    values, _, _ = world(200, seed=2)
    contributions = model.contributions(values)
    np.testing.assert_allclose(contributions.sum(axis=1), model.log_odds(values), atol=1e-4)
    for row, own, reasons in zip(values, contributions, model.reasons(values, most=2), strict=True):
        strengths = [abs(reason.log_odds) for reason in reasons]
        assert strengths == sorted(np.abs(own[:-1]), reverse=True)[:2]
        for reason in reasons:
            at = NAMES.index(reason.feature)
            assert reason.log_odds == own[at]
            assert reason.value is None if np.isnan(row[at]) else reason.value == row[at]


def test_knows_what_drives_people_away(model: ChurnModel) -> None:
    away = np.array([[-2.5, 2.5, 0.0]], np.float32)
    (reasons,) = model.reasons(away)
    assert {reason.feature for reason in reasons[:2]} == {"hours", "stalls"}
    assert all(reason.log_odds > 0 for reason in reasons[:2])
    stays = np.array([[2.5, -2.5, 0.0]], np.float32)
    assert model.probabilities(stays)[0] < 0.1 < 0.7 < model.probabilities(away)[0]


def test_probabilities_are_the_calibration_of_the_log_odds(model: ChurnModel) -> None:
    values, _, _ = world(50, seed=3)
    np.testing.assert_allclose(model.probabilities(values), sigmoid(0.9 * model.log_odds(values) + 0.1))


def test_interrupted_after_any_block_it_grows_the_same_trees() -> None:
    values, truth, _ = world(500)
    matrix = xgboost.QuantileDMatrix(values, truth)
    parameters = booster_parameters(ChurnConfig(), 0.3, threads=1)

    def grown(matrix: xgboost.DMatrix, before: bytes | None, seeds: list[int]) -> bytes | None:
        for seed in seeds:
            before = bytes(take_rounds(parameters, matrix, before, 5, seed).save_raw("json"))
        return before

    whole = grown(matrix, None, [1, 2, 3])
    elsewhere = xgboost.QuantileDMatrix(values, truth)
    assert grown(elsewhere, grown(matrix, None, [1]), [2, 3]) == whole
    assert grown(matrix, None, [1, 2, 4]) != whole


def test_saved_and_loaded_it_says_the_same(model: ChurnModel, tmp_path: Path) -> None:
    values, _, _ = world(50, seed=4)
    model.save(tmp_path)
    loaded = ChurnModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.probabilities(values), model.probabilities(values))
    assert loaded.reasons(values) == model.reasons(values)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("booster.json", "{", "not hold one whole churn model"),
        ("booster.json", None, "not hold one whole churn model"),
        ("description.json", "[]", "not hold one whole churn model"),
        ("description.json", '{"format": 9, "architecture": "forest"}', "format 9 of 'forest'"),
    ],
)
def test_a_broken_folder_is_named(
    model: ChurnModel, tmp_path: Path, file: str, content: str | None, named: str
) -> None:
    model.save(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(ModelFolderError, match=named):
        ChurnModel.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"depth": 0}, "depth"), ({"lr": 0}, "lr"), ({"rows_share": 1.5}, "rows_share"), ({"epochs": 2.5}, "whole"),
     ({"ridge": "much"}, "ridge must be a number"), ({"leaves": 3}, "unknown settings of the churn model")],
)  # fmt: skip
def test_refuses_what_it_cannot_be_configured_with(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ChurnConfig.from_dict(values)


def test_logistic_regression_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression as Theirs

    random = np.random.default_rng(7)
    values = random.normal(3, 2, (800, 3)).astype(np.float32)
    truth = (random.random(800) < sigmoid(values @ [0.5, -0.4, 0.0] - 0.5)).astype(float)
    weights = random.integers(1, 4, 800).astype(float)
    ours = LogisticRegression.fit(values, truth, weights)
    apart = (values - values.mean(axis=0)) / values.std(axis=0)
    theirs = Theirs(C=1.0, tol=1e-8).fit(apart, truth, weights)
    np.testing.assert_allclose(ours.probabilities(values), theirs.predict_proba(apart)[:, 1], atol=1e-4)


def test_logistic_regression_takes_what_is_unknown_and_what_never_changes() -> None:
    values = np.array([[1, np.nan, 5]] * 10 + [[1, 2, 5]] * 10, np.float32)
    truth = np.array([1.0] * 8 + [0.0] * 2 + [1.0] * 2 + [0.0] * 8)
    given = LogisticRegression.fit(values, truth, np.ones(20)).probabilities(values)
    assert given[0] > 0.6 > 0.4 > given[-1]
