"""Training and judging of the churn model: accounts whose chances are known, and rows nothing can be learnt from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.churn.columns import EmptyFeatureError
from models.churn.judging import evaluate, logistic_log_loss, row_log_loss
from models.churn.model import ChurnConfig
from models.churn.training import ChurnTraining
from models.classification import Ranking, log_loss
from models.errors import (
    CheckpointMismatchError,
    DivergedError,
    EmptyTrainingSetError,
    ModelError,
    OneClassError,
    TrainingSetError,
)
from models.intervals import Interval
from models.task import Place
from models.training_set import Manifest, read_manifest
from tests.models.churn.planted import Planted, write_training_set

Tables = dict[str, pa.Table]


class Shop:
    """The planted set, read, and a model that was trained on it."""

    def __init__(self, folder: Path) -> None:
        self.planted: Planted = write_training_set(folder / "set", accounts=500)
        self.manifest: Manifest = read_manifest(folder / "set")
        self.tables: Tables = {
            split: pq.read_table(folder / f"set/split={split}", partitioning=None)
            for split in ("train", "validation", "test")
        }
        training = self.start()
        while not training.done:
            training.epoch()
        self.saved, self.curve, self.best_epoch = folder / "saved", training.curve, training.best_epoch
        training.best().save(self.saved)

    def start(self, changed: Callable[[pa.Table], pa.Table] = lambda rows: rows, **values: float) -> ChurnTraining:
        train, validation = (changed(self.tables[split]) for split in ("train", "validation"))
        return ChurnTraining(ChurnConfig.from_dict(values), self.manifest, train, validation, Place(threads=1))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("churn"))


def test_comes_near_the_chances_themselves_and_past_a_line(shop: Shop) -> None:
    test, chances = shop.tables["test"], shop.planted.chances["test"]
    truth = test["churned"].to_numpy().astype(float)
    judged = evaluate(shop.saved, shop.manifest, test, 3)
    figures = {name: value.mean for name, value in judged.whole.figures.items() if isinstance(value, Interval)}
    best = Ranking(truth, chances)
    assert figures["auc"] > 0.95 * best.auc(np.ones(len(truth)))
    assert figures["log_loss"] < 1.1 * log_loss(truth, chances).mean()
    assert figures["auc_pr"] > figures["logistic_auc_pr"] > figures["last_activity_auc_pr"]
    assert judged.whole.figures["base_rate"] == pytest.approx(truth.mean())
    ahead = judged.whole.figures["auc_pr_over_logistic"]
    assert isinstance(ahead, Interval)
    assert ahead.above_zero
    assert row_log_loss(shop.saved, shop.manifest, test).mean() == pytest.approx(figures["log_loss"])
    assert logistic_log_loss(shop.saved, shop.manifest, test).mean() == pytest.approx(figures["logistic_log_loss"])


def test_the_order_in_which_rows_come_decides_nothing(shop: Shop) -> None:
    def shuffled(rows: pa.Table) -> pa.Table:
        return rows.take(pa.array(np.random.default_rng(2).permutation(len(rows))))

    one, other = shop.start(epochs=2), shop.start(shuffled, epochs=2)
    assert [one.epoch(), one.epoch()] == [other.epoch(), other.epoch()]
    assert one.state()["learnt"]["trees"] == other.state()["learnt"]["trees"]


def test_slices_cover_all_rows_by_market_platform_tier_and_age(shop: Shop) -> None:
    judged = evaluate(shop.saved, shop.manifest, shop.tables["test"], 3)
    for family, count in (("market", 3), ("platform", 2), ("tier", 2), ("known", 2)):
        rows = [one.rows for name, one in judged.slices.items() if name.startswith(family)]
        assert (len(rows), sum(rows)) == (count, judged.whole.rows)
    assert judged.slices["tier unknown"].rows == 150  # every tenth account
    calibration, lift = judged.charts["calibration"], judged.charts["lift"]
    assert len(calibration.predicted) == len(calibration.happened) == judged.whole.rows
    assert calibration.happened.mean() == pytest.approx(shop.tables["test"]["churned"].to_numpy().mean())
    assert set(lift.baselines) == {"logistic", "last_activity"}


def test_the_best_epoch_is_by_validation_alone(shop: Shop) -> None:
    ranked = [epoch["validation_auc_pr"] for epoch in shop.curve]
    assert shop.best_epoch == 1 + int(np.argmax(ranked))
    assert len(shop.curve) == min(30, shop.best_epoch + 4)


def with_labels(*values: bool) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(rows.column_names.index("churned"), "churned", pa.array(values * len(rows)))


def without(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(rows.column_names.index(column), column, pa.nulls(len(rows), rows[column].type))


@pytest.mark.parametrize(
    ("changed", "error", "named"),
    [
        (lambda rows: rows.slice(0, 0), EmptyTrainingSetError, "train split has nothing to learn from"),
        (with_labels(False), OneClassError, "churned is False in all of its 5000 rows"),
        (with_labels(True), OneClassError, "train split has one class only"),
        (without("qoe_signals__avg_qoe_score"), EmptyFeatureError, "qoe_signals__avg_qoe_score: null in all 5000"),
        (without("churned"), TrainingSetError, "5000 of 5000 train rows have no churned"),
        (without("weight"), TrainingSetError, "5000 of 5000 train rows have no weight above 0"),
        (lambda rows: rows.drop_columns(["weight"]), TrainingSetError, "lack the columns weight"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(
    shop: Shop, changed: Callable[[pa.Table], pa.Table], error: type[ModelError], named: str
) -> None:
    with pytest.raises(error, match=named) as raised:
        shop.start(changed)
    assert "\n" not in str(raised.value)


def test_a_test_period_of_one_class_cannot_judge(shop: Shop) -> None:
    with pytest.raises(OneClassError, match="test split"):
        evaluate(shop.saved, shop.manifest, with_labels(False)(shop.tables["test"]), 3)


def test_a_loss_that_is_no_number_ends_it(shop: Shop) -> None:
    with pytest.raises(DivergedError, match="lower the learning rate"):
        shop.start(lr=3e38, ridge=0, leaf_weight=0).epoch()


def all_catchup(rows: pa.Table) -> pa.Table:
    name = "user_viewing_history__preferred_content_type"
    return rows.set_column(rows.column_names.index(name), name, pa.array(["catchup"] * len(rows)))


def test_a_checkpoint_of_other_columns_is_refused(shop: Shop) -> None:
    training = shop.start(epochs=1)
    training.epoch()
    with pytest.raises(CheckpointMismatchError, match="columns differ"):
        shop.start(all_catchup, epochs=1).resume(training.state())
    with pytest.raises(CheckpointMismatchError, match="belongs to another training"):
        shop.start(epochs=1).resume({"model": 3})
