"""The ranker: requests and features by hand, the best possible order nearly reached, bad input named."""

import json
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import EmptyTrainingSetError, ModelFolderError, OneClassError, TrainingSetError
from models.intervals import Interval
from models.ranker.features import COMPLETED_TITLES, KINDS, NAMES, RECENT_TITLES, SHARES, matrix
from models.ranker.judging import evaluate, ndcg
from models.ranker.model import RankerConfig
from models.ranker.pyfunc import ServedRanker
from models.ranker.ranker import Ranker
from models.ranker.shown import Requests
from models.ranker.training import BASELINE, WATCHED, RankerTraining
from models.task import Place
from models.training_set import Manifest, read_manifest
from tests.models.ranker.planted import write_training_set

CONFIG = RankerConfig(epochs=8, patience=8, least_tiles_per_leaf=20)
WATCHED_SHARES, CLICKED_SHARES = SHARES.values()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Manifest, dict[str, pa.Table]]:
    folder = tmp_path_factory.mktemp("ranker")
    best = write_training_set(folder, viewers=60)
    splits = ("train", "validation", "test")
    tables = {name: pq.read_table(folder / f"split={name}" / "part-0.parquet") for name in splits}
    return best, read_manifest(folder), tables


@pytest.fixture(scope="module")
def trained(planted: tuple[float, Manifest, dict[str, pa.Table]]) -> RankerTraining:
    _, manifest, tables = planted
    training = RankerTraining(CONFIG, manifest, tables["train"], tables["validation"], Place())
    while not training.done:
        training.epoch()
    return training


def rows(count: int, **columns: list[object]) -> pa.Table:
    """`count` rows of the ranker's columns, null where nothing is given."""
    fixed = {"profile_id": pa.string(), "session_id": pa.string(), "watched": pa.bool_(),
             "event_timestamp": pa.timestamp("ms", tz="UTC"), **KINDS}  # fmt: skip
    return pa.table({name: pa.array(columns.get(name, [None] * count), kind) for name, kind in fixed.items()})


def test_tiles_that_are_shown_together_are_a_request() -> None:
    shown = rows(
        6,
        profile_id=["a", "a", "b", "a", "a", "a"],
        session_id=["1", "1", "1", "2", "1", "1"],
        event_timestamp=[1_500, 0, 0, 3_000, 3_000, 33_001],
        content_id=["t1", "t0", "t5", "t4", "t2", "t3"],
        watched=[True, False, None, False, False, True],
    )
    requests = Requests.of(shown)
    # (a, 1): t0 t1 t2, and t3 more than 30 s later; (a, 2): t4; (b, 1): t5.
    assert [shown["content_id"][int(at)].as_py() for at in requests.order] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert requests.starts.tolist() == [0, 3, 4, 5]
    assert requests.watched.tolist() == [0, 1, 0, 1, 0, 0]
    assert requests.viewers.tolist() == ["a", "a", "a", "b"]
    by_shown = requests.ndcg_at(requests.as_shown(), 10)
    assert by_shown[:2] == pytest.approx([1 / np.log2(3), 1.0])
    assert np.isnan(by_shown[2:]).all()


def test_what_takes_viewer_and_title_by_hand() -> None:
    found = matrix(
        rows(
            3,
            content_id=["t1", "t2", "t3"],
            content_genres=[["crime", "drama"], ["news"], None],
            **{
                WATCHED_SHARES: [[("crime", 0.75), ("drama", 0.25)], [("crime", 1.0)], [("crime", 1.0)]],
                RECENT_TITLES: [["t0", "t1"], ["t0", "t9"], None],
                COMPLETED_TITLES: [["t1", "t0", "t0"], [], None],
                "content_popularity__daily_unique_viewers": [12, 0, None],
            },
        ),
        {"t0": ["drama"], "t1": ["crime", "drama"]},
    )
    column = {name: found[:, place].tolist() for place, name in enumerate(NAMES)}
    # The second of two genres counts half of the first: 2/3 of .75 and 1/3 of .25.
    assert column["watched_match"][:2] == pytest.approx([7 / 12, 0.0])
    assert column["watched_first_genre"][:2] == [0.75, 0.0]
    assert np.isnan([column["watched_match"][2], *column["clicked_match"], *column["retrieval_score"]]).all()
    # Of t0 and t1 a third is crime; of t9 nothing is known, and t0 is no news.
    assert column["recent_match"][:2] == pytest.approx([2 / 3 * 1 / 3 + 1 / 3 * 2 / 3, 0.0])
    assert column["recent_first_genre"][:2] == pytest.approx([1 / 3, 0.0])
    assert column["completed_since"][0] == 2.0
    assert np.isnan([*column["completed_since"][1:], column["recent_match"][2]]).all()
    assert column["recent_titles"] == [2.0, 2.0, 0.0]
    assert column["title_viewers_day"][:2] == [12.0, 0.0]  # nobody is a number, unknown is none
    assert np.isnan(column["title_viewers_day"][2])


def test_comes_close_to_the_best_possible_order_and_beats_the_one_shown(
    trained: RankerTraining, planted: tuple[float, Manifest, dict[str, pa.Table]], tmp_path: Path
) -> None:
    best, manifest, tables = planted
    trained.best().save(tmp_path)
    judged = evaluate(tmp_path, manifest, tables["test"], seed=1)
    own, shown = judged.whole.figures["ndcg_at_10"], judged.whole.figures["shown_ndcg_at_10"]
    assert isinstance(own, Interval)
    assert isinstance(shown, Interval)
    assert own.low > shown.high
    assert own.mean > 0.97 * best
    values = ndcg(tmp_path, manifest, tables["test"])
    assert values.mean() == pytest.approx(own.mean)  # every request has ten tiles, and one was watched
    last = trained.curve[trained.best_epoch - 1]
    assert last[WATCHED] > last[BASELINE]


def test_its_ndcg_is_lightgbms_own(
    trained: RankerTraining, planted: tuple[float, Manifest, dict[str, pa.Table]]
) -> None:
    requests = Requests.of(planted[2]["validation"])
    data = lightgbm.Dataset(requests.features, requests.watched, group=requests.sizes, free_raw_data=False)
    said: dict[str, dict[str, list[float]]] = {}
    lightgbm.train(
        {**CONFIG.parameters(1), "metric": "ndcg", "eval_at": [10]},
        data,
        3,
        valid_sets=[data],
        valid_names=["own"],
        callbacks=[lightgbm.record_evaluation(said)],
    )
    again = lightgbm.train(CONFIG.parameters(1), data, 3)
    mean = float(np.nanmean(requests.ndcg_at(again.predict(requests.features), 10)))
    # Equal scores are ordered otherwise there.
    assert said["own"]["ndcg@10"][-1] == pytest.approx(mean, abs=0.02)


def test_nothing_or_everything_watched_no_rows_and_missing_columns_are_named(
    planted: tuple[float, Manifest, dict[str, pa.Table]],
) -> None:
    _, manifest, tables = planted
    train = tables["train"]
    at = train.column_names.index("watched")
    for value in (False, True):
        constant = train.set_column(at, "watched", pa.array([value] * len(train)))
        with pytest.raises(OneClassError, match=f"train split has one class only: watched is {value}"):
            RankerTraining(CONFIG, manifest, constant, tables["validation"], Place())
    with pytest.raises(EmptyTrainingSetError, match="validation"):
        RankerTraining(CONFIG, manifest, train, train.slice(0, 0), Place())
    for column in ("session_id", "content_genres"):
        with pytest.raises(TrainingSetError, match=column):
            RankerTraining(CONFIG, manifest, train.drop_columns([column]), tables["validation"], Place())


def test_a_feature_that_is_null_throughout_is_counted_and_does_no_harm(
    planted: tuple[float, Manifest, dict[str, pa.Table]],
) -> None:
    _, manifest, tables = planted
    train = tables["train"]
    before = RankerTraining(CONFIG, manifest, train, tables["validation"], Place())
    at = train.column_names.index("content_runtime_ms")
    less = train.set_column(at, "content_runtime_ms", pa.nulls(len(train), pa.float64()))
    training = RankerTraining(replace(CONFIG, epochs=1), manifest, less, tables["validation"], Place())
    assert training.facts["features_without_a_value"] == before.facts["features_without_a_value"] + 1
    assert training.epoch()[WATCHED] > training.curve[0][BASELINE]


def test_saved_and_loaded_it_scores_alike_and_other_features_are_refused(
    trained: RankerTraining, planted: tuple[float, Manifest, dict[str, pa.Table]], tmp_path: Path
) -> None:
    ranker, test = trained.best(), planted[2]["test"].slice(0, 40)
    ranker.save(tmp_path)
    assert Ranker.load(tmp_path).score(test).tolist() == ranker.score(test).tolist()
    assert ranker.score(test.slice(0, 0)).tolist() == []
    trees = (tmp_path / "trees.txt").read_text()
    (tmp_path / "trees.txt").write_text(trees[: len(trees) // 2])
    with pytest.raises(ModelFolderError, match="cut short"):
        Ranker.load(tmp_path)
    (tmp_path / "ranker.json").write_text(
        json.dumps({"format": 2, "architecture": "lightgbm-lambdarank", "features": ["another"]})
    )
    with pytest.raises(ModelFolderError, match="1 features"):
        Ranker.load(tmp_path)
    (tmp_path / "ranker.json").unlink()
    with pytest.raises(ModelFolderError, match="does not hold one whole ranker"):
        Ranker.load(tmp_path)


def test_as_mlflow_asks_it_what_is_not_given_is_unknown(
    trained: RankerTraining, planted: tuple[float, Manifest, dict[str, pa.Table]]
) -> None:
    served = ServedRanker(trained.best())
    test = planted[2]["test"].slice(0, 20)
    whole = served.predict(test.select([name for name in KINDS if name in test.column_names]).to_pandas())
    assert whole["score"] == trained.best().score(test).tolist()
    assert len(served.predict({"content_id": ["a title nobody knows"]})["score"]) == 1
