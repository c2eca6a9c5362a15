"""The content model: what it reads of titles, whom it offers new ones, and what it does with what it does not know."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.content.evaluation import RandomOrder, TfIdfCosine, per_viewer
from models.content.judging import evaluate
from models.content.model import ContentConfig
from models.content.popularity import GenrePopularity
from models.content.recommender import ContentRecommender
from models.content.titles import Title, Vocabulary, titles_of
from models.content.training import WATCHED, ContentTraining
from models.content.watches import HISTORY, Cold, Watches, judged_titles, lots
from models.errors import ConfigurationError, DivergedError, EmptyTrainingSetError, ModelFolderError, TrainingSetError
from models.intervals import Interval
from models.task import Place
from models.training_set import Manifest, read_manifest
from tests.models.content.movielens import COLD_SHARE, rows_of
from tests.models.content.planted import genre_of, write_training_set

SMALL = ContentConfig(dim=8, epochs=25, patience=25, batch_size=16, cold_share=0.2)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, pa.Table]]:
    folder = tmp_path_factory.mktemp("content")
    write_training_set(folder)
    splits = ("train", "validation", "test")
    return read_manifest(folder), {name: pq.read_table(folder / f"split={name}" / "part-0.parquet") for name in splits}


@pytest.fixture(scope="module")
def trained(planted: tuple[Manifest, dict[str, pa.Table]]) -> ContentTraining:
    manifest, tables = planted
    training = ContentTraining(SMALL, manifest, tables["train"], tables["validation"], Place())
    while not training.done:
        training.epoch()
    return training


def test_a_title_is_what_is_written_of_it() -> None:
    title = Title("m1", "The Godfather: Part II (1974)", "vod", ("drama", "crime"), "R")
    assert set(title.tokens) == {
        "genre:crime", "genre:drama", "first:drama", "genres:crime+drama", "word:the", "word:godfather", "word:part",
        "type:vod", "rating:R", "year:1974", "decade:1970",
    }  # fmt: skip
    assert Title("m2").tokens == ()
    assert Title.from_dict(json.loads(json.dumps(title.as_dict()))) == title


def test_of_several_rows_of_a_title_the_last_counts(planted: tuple[Manifest, dict[str, pa.Table]]) -> None:
    rows = planted[1]["train"].slice(0, 2)
    rows = pa.concat_tables([rows.slice(0, 1), rows.slice(0, 1)]).to_pylist()
    rows[1]["content_title"] = "Another name"
    assert [title.name for title in titles_of(pa.Table.from_pylist(rows))] == ["Another name"]


def test_the_titles_that_are_judged_by_depend_on_their_ids_alone() -> None:
    names = [f"title{number}" for number in range(5_000)]
    assert 0.08 < len(judged_titles(names)) / len(names) < 0.12
    assert judged_titles(names[::-1]).tolist() == judged_titles(names).tolist()
    assert lots(["vod-00001"]).tolist() == lots(["vod-00001", "x"]).tolist()[:1]


def test_no_model_learns_from_the_titles_that_it_is_judged_by(trained: ContentTraining) -> None:
    assert not set(judged_titles(list(trained.titles))) & set(trained.learnt.titles.tolist())
    assert not set(trained._cold.candidates) & set(trained.learnt.titles.tolist())
    assert not set(trained._cold.candidates) & set(judged_titles(list(trained.titles)))


def test_watches_of_a_later_period_become_histories_and_what_was_watched_of_new_titles() -> None:
    rows = pa.table(
        {
            "profile_id": ["a", "a", "a", "b", "c"],
            "event_timestamp": pa.array([2, 1, 3, 1, 1], pa.timestamp("ms", tz="UTC")),
            "content_id": ["n1", "n2", "old", "n1", "n2"],
            **{name: pa.nulls(5, pa.string()) for name in ("content_title", "content_type", "content_maturity_rating")},
            "content_genres": pa.nulls(5, pa.list_(pa.string())),
            HISTORY: pa.array([["old", "n2"], ["old"], ["n1"], ["n1"], None], pa.list_(pa.string())),
            "finished": [True, True, True, True, False],
        }
    )
    cold = Cold.of(rows, np.array(["n2", "n1"]))
    assert cold.viewers.tolist() == ["a"]  # b had finished it before, c did not finish it
    assert cold.histories == [["old"]]
    assert cold.candidates == ("n1", "n2")
    assert cold.relevant.tolist() == [[True, True]]


def test_baselines_by_hand() -> None:
    genres = {"a": ("x",), "b": ("x",), "c": ("y",), "new": ("x", "y")}
    titles = {name: Title(name, genres=some) for name, some in genres.items()}
    learnt = Watches.of_pairs(["1", "2", "3", "1"], ["a", "a", "b", "c"])
    popularity = GenrePopularity.of(titles, learnt)
    assert popularity.viewers == {"x": 1.5, "y": 1.0}
    assert popularity.score([["a"]], [titles["new"], Title("unknown")])[0].tolist() == [1.25, 0.0]
    # "genre:x" is of two of the three titles, "genre:y" of one only and so no token: cosines are 1 and 0.
    cosine = TfIdfCosine(titles, ["a", "b", "c"])
    assert cosine.score([["a"], ["c"], ["nobody knows"]], [titles["new"]])[:, 0].tolist() == [1.0, 0.0, 0.0]


def test_new_titles_are_offered_to_those_who_keep_to_their_genre(
    trained: ContentTraining, planted: tuple[Manifest, dict[str, pa.Table]], tmp_path: Path
) -> None:
    manifest, tables = planted
    trained.best().save(tmp_path)
    judged = evaluate(tmp_path, manifest, tables["test"], seed=1)
    ndcg, popular, by_chance = (
        judged.whole.figures[name] for name in ("ndcg_at_10", "popularity_ndcg_at_10", "random_ndcg_at_10")
    )
    assert isinstance(ndcg, Interval)
    assert isinstance(popular, Interval)
    assert isinstance(by_chance, Interval)
    assert ndcg.low > max(popular.high, by_chance.high)
    # The best that anybody can do: the viewer's genre first, in any order within it.
    cold = Cold.of(tables["test"], judged_titles(list(trained.titles)))
    titles = {title.content_id: title for title in titles_of(tables["test"])}
    best = np.mean(per_viewer(_OwnGenre(), cold, titles)["ndcg_at_10"])
    assert ndcg.mean > 0.9 * best


class _OwnGenre:
    """Knows the truth: titles of the genre that most of the history is of, in the order of their ids."""

    def score(self, histories, candidates):  # type: ignore[no-untyped-def]
        genres = [[genre_of(int(name[-3:])) for name in history] for history in histories]
        own = [max(set(some), key=some.count) if some else None for some in genres]
        return np.array([[float(one in title.genres) for title in candidates] for one in own], np.float32)


def test_unknown_titles_are_skipped_and_counted_and_nobody_is_left_without_an_answer(trained: ContentTraining) -> None:
    model = trained.best()
    known = next(iter(model.titles))
    (answer,), (again,) = model.recommend([[known, "no such title"]], 5), model.recommend([[known]], 5)
    assert model.unknown_titles == 1
    assert answer == again
    assert len(answer) == 5
    assert known not in dict(answer)
    (first,), (unknown,) = model.recommend([[]], 3), model.recommend([["no such title"]], 3)
    assert first == unknown
    assert sum(probability for _, probability in model.recommend([[]], 10_000)[0]) == pytest.approx(1)
    assert model.recommend([[known]], 3, allowed=["no such title"]) == [[]]
    with pytest.raises(ValueError, match="k must be at least 1: received 0"):
        model.recommend([[]], 0)


def test_a_title_that_is_described_only_is_scored(trained: ContentTraining) -> None:
    model = trained.best()
    crime = [f"title{number:03d}" for number in range(0, 120, 5) if f"title{number:03d}" in model.learnt]
    scores = model.score([crime], [Title("new", genres=("crime",)), Title("other", genres=("news",)), Title("blank")])
    assert scores[0, 0] > scores[0, 1]
    assert np.isfinite(scores).all()
    assert model.score([crime], []).shape == (1, 0)


def test_saved_and_loaded_it_answers_alike(trained: ContentTraining, tmp_path: Path) -> None:
    model = trained.best()
    model.save(tmp_path)
    loaded = ContentRecommender.load(tmp_path)
    histories = [["title000", "title005"], []]
    assert loaded.recommend(histories, 7) == model.recommend(histories, 7)
    (tmp_path / "titles.json").write_text("[")
    with pytest.raises(ModelFolderError, match="does not hold one whole content model"):
        ContentRecommender.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "titles.json").write_text("[]")
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(ModelFolderError, match="format"):
        ContentRecommender.load(tmp_path)


def test_what_cannot_be_learnt_from_is_named(planted: tuple[Manifest, dict[str, pa.Table]]) -> None:
    manifest, tables = planted
    nothing = tables["train"].set_column(
        tables["train"].column_names.index("finished"), "finished", pa.array([False] * len(tables["train"]))
    )
    with pytest.raises(EmptyTrainingSetError, match="train"):
        ContentTraining(SMALL, manifest, nothing, tables["validation"], Place())
    with pytest.raises(EmptyTrainingSetError, match="validation"):
        ContentTraining(SMALL, manifest, tables["train"], tables["validation"].slice(0, 0), Place())
    with pytest.raises(TrainingSetError, match="content_genres"):
        ContentTraining(SMALL, manifest, tables["train"].drop_columns(["content_genres"]), tables["train"], Place())
    training = ContentTraining(replace(SMALL, lr=1e35), manifest, tables["train"], tables["validation"], Place())
    with pytest.raises(DivergedError, match="learning rate"):
        training.epoch()
    with pytest.raises(ConfigurationError, match=r"cold_share must be above 0, to 0.5: received 0.7"):
        ContentConfig(cold_share=0.7)


def test_titles_of_which_nothing_is_written_are_no_failure(planted: tuple[Manifest, dict[str, pa.Table]]) -> None:
    manifest, tables = planted
    blank = {}
    for name, rows in tables.items():
        for column in ("content_title", "content_type", "content_maturity_rating", "content_genres"):
            at = rows.column_names.index(column)
            rows = rows.set_column(at, column, pa.nulls(len(rows), rows.schema.field(column).type))
        blank[name] = rows
    training = ContentTraining(replace(SMALL, epochs=1), manifest, blank["train"], blank["validation"], Place())
    assert np.isfinite(training.epoch()[WATCHED])
    assert training.vocabulary.tokens == ()
    assert len(training.best().recommend([["title000"]], 3)[0]) == 3


def test_a_bag_holds_the_tokens_that_are_known() -> None:
    titles = [Title("a", genres=("x", "y")), Title("b", genres=("x",)), Title("c", genres=("z",))]
    vocabulary = Vocabulary.of(titles)
    assert vocabulary.tokens == ("genre:x",)
    assert vocabulary.matrix(titles)[:, 0].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.realdata
@pytest.mark.slow
def test_on_real_people_new_films_are_ranked_better_than_by_any_baseline(shared_data: Path) -> None:
    rows, judged = rows_of(shared_data / "ml-100k")
    manifest = Manifest("ml-100k", "personalization", {}, 0, "tests", [], {}, {}, {"validation_end": 0}, "0", "0" * 64)
    training = ContentTraining(ContentConfig(epochs=2, cold_share=COLD_SHARE), manifest, rows, rows, Place())
    while not training.done:
        training.epoch()
    titles = {title.content_id: title for table in (rows, judged) for title in titles_of(table)}
    cold = Cold.of(judged, np.unique(np.array(judged["content_id"].to_pylist())))
    model, *others = (
        per_viewer(scorer, cold, titles)["ndcg_at_10"]
        for scorer in (
            training.best(),
            GenrePopularity.of(titles, training.learnt),
            TfIdfCosine(titles, training.learnt.titles.tolist()),
            RandomOrder(1),
        )
    )
    for other in others:
        ahead = model - other
        assert ahead.mean() > 3 * ahead.std() / np.sqrt(len(ahead))
