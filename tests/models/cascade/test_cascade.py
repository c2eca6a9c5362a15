"""The three steps as one: whole, without each of its parts, with titles that nobody knows, saved and loaded."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from models.cascade.cascade import (
    NO_CONTENT,
    NO_HISTORY,
    NO_MODEL,
    NO_RANKER,
    NO_RETRIEVAL,
    Asked,
    Cascade,
    CascadeConfig,
)
from models.cascade.catalogue import VIEWERS, Catalogue, Offer
from models.cascade.folder import load, save
from models.cascade.pyfunc import _load_pyfunc
from models.content.model import ContentConfig
from models.content.recommender import ContentRecommender
from models.content.titles import titles_of
from models.content.training import ContentTraining
from models.errors import ConfigurationError, ModelFolderError
from models.ranker.features import SHARES
from models.ranker.model import RankerConfig
from models.ranker.ranker import Ranker
from models.ranker.training import RankerTraining
from models.recommendation.batches import Vocabulary
from models.recommendation.model import RecommenderConfig, SASRec
from models.recommendation.recommender import Recommender
from models.task import Place
from models.training_set import read_manifest
from tests.models.content.planted import write_training_set as write_watches
from tests.models.ranker.planted import write_training_set as write_tiles

KNOWN = [f"title{number:03d}" for number in range(100)]
NEW = [f"title{number:03d}" for number in range(100, 120)]
PARTS = ("retrieval", "content", "ranker")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    """Parts that have barely learnt, over 120 titles of which the sequential recommender knows 100."""
    folder = tmp_path_factory.mktemp("sets")
    write_watches(folder / "content")
    write_tiles(folder / "ranker")
    read = {
        (name, split): pq.read_table(folder / name / f"split={split}" / "part-0.parquet")
        for name in ("content", "ranker")
        for split in ("train", "validation")
    }
    content = ContentTraining(
        ContentConfig(dim=8, epochs=2),
        read_manifest(folder / "content"),
        read["content", "train"],
        read["content", "validation"],
        Place(),
    )
    ranker = RankerTraining(
        RankerConfig(epochs=1),
        read_manifest(folder / "ranker"),
        read["ranker", "train"],
        read["ranker", "validation"],
        Place(),
    )
    content.epoch()
    ranker.epoch()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SASRec(len(KNOWN), RecommenderConfig(dim=8, blocks=1, heads=1))
    offers = {
        title.content_id: Offer(title, {VIEWERS: float(int(title.content_id[-3:]) % 17)})
        for title in titles_of(read["content", "train"])
        if title.content_id in {*KNOWN, *NEW}
    }
    return Cascade(
        Catalogue(offers),
        CascadeConfig(retrieved=40, new_titles=8),
        Recommender(model, Vocabulary(KNOWN)),
        content.best(),
        ranker.best(),
    )


def without(whole: Cascade, *names: str, **config: float) -> Cascade:
    parts = {name: None if name in names else getattr(whole, name) for name in PARTS}
    settings = CascadeConfig.from_dict({**whole.config.as_dict(), **config})
    return Cascade(whole.catalogue, settings, **parts)


def ids(cascade: Cascade, asked: Asked, k: int = 10) -> list[str]:
    return [name for name, _ in cascade.recommend([asked], k)[0].titles]


def test_a_page_holds_titles_on_offer_that_were_not_seen_each_once(whole: Cascade) -> None:
    asked = Asked(KNOWN[:12])
    (page,) = whole.recommend([asked], 10)
    shown = [name for name, _ in page.titles]
    assert len(set(shown)) == len(shown) == 10
    assert set(shown) <= whole.catalogue.offers.keys() - set(asked.history)
    assert page.reasons == ()
    assert ids(whole, asked, 1_000) == ids(whole, asked, 1_000)
    assert len(ids(whole, asked, 1_000)) == 48  # 40 of the recommender, 8 of the content model
    assert whole.recommend([], 10) == []


def test_pages_do_not_depend_on_who_else_is_asked_for(whole: Cascade) -> None:
    one, other = Asked(KNOWN[:3]), Asked(KNOWN[50:70])
    assert whole.recommend([one, other], 5) == [whole.recommend([each], 5)[0] for each in (one, other)]


def test_a_viewer_gets_the_genres_that_are_watched(whole: Cascade) -> None:
    plain = without(whole, diversity=0.0)
    for genre in ("crime", "news"):
        asked = Asked(KNOWN[:5], {key: [(genre, 1.0)] for key in SHARES.values()})
        shown = ids(plain, asked, 5)
        assert all(genre in plain.catalogue.offers[name].title.genres for name in shown)


def test_without_diversity_the_order_is_the_rankers(whole: Cascade) -> None:
    (page,) = without(whole, diversity=0.0).recommend([Asked(KNOWN[:4])], 10)
    scores = [score for _, score in page.titles]
    assert scores == sorted(scores, reverse=True)


def test_each_missing_part_is_done_without_and_said(whole: Cascade) -> None:
    asked = Asked(KNOWN[:4])
    expected = {
        ("ranker",): (NO_RANKER,),
        ("content",): (NO_CONTENT,),
        ("retrieval",): (NO_RETRIEVAL,),
        ("content", "ranker"): (NO_CONTENT, NO_RANKER),
        ("retrieval", "ranker"): (NO_RETRIEVAL, NO_RANKER),
        ("retrieval", "content"): (NO_MODEL,),
        PARTS: (NO_MODEL, NO_RANKER),
    }
    for missing, reasons in expected.items():
        (page,) = without(whole, *missing).recommend([asked], 10)
        assert page.reasons == reasons
        assert len(page.titles) == 10
        assert not {name for name, _ in page.titles} & set(asked.history)


def test_without_a_ranker_retrieval_decides_and_new_titles_get_their_places(whole: Cascade) -> None:
    cascade = without(whole, "ranker", diversity=0.0, new_title_every=5)
    asked = Asked(KNOWN[:4])
    shown = ids(cascade, asked, 10)
    new = [place for place, name in enumerate(shown, start=1) if name not in cascade.retrieval.vocabulary.content_ids]
    assert new == [5, 10]
    allowed = [name for name in cascade.catalogue.offers if name in KNOWN]
    (retrieved,) = cascade.retrieval.recommend([asked.history], 8, allowed=allowed)
    assert [name for name in shown if name in KNOWN] == [name for name, _ in retrieved]


def test_without_any_model_the_most_watched_come_first(whole: Cascade) -> None:
    shown = ids(without(whole, *PARTS, diversity=0.0), Asked(KNOWN[:4]), 5)
    counts = [whole.catalogue.offers[name].numbers[VIEWERS] for name in shown]
    assert counts == [16.0] * 5
    newer = whole.catalogue.as_of_now({KNOWN[50]: {VIEWERS: 1e6}, "not on offer": {VIEWERS: 1e9}})
    assert ids(Cascade(newer, whole.config), Asked(), 1) == [KNOWN[50]]


def test_titles_that_nobody_knows_are_skipped_and_it_is_said_when_nothing_is_left(whole: Cascade) -> None:
    known, mixed = Asked(KNOWN[:4]), Asked([*KNOWN[:2], "no such title", *KNOWN[2:4]])
    assert whole.recommend([mixed], 10) == whole.recommend([known], 10)
    (page,) = whole.recommend([Asked(["no such title"])], 10)
    assert page.reasons == (NO_HISTORY,)
    assert len(page.titles) == 10


def test_an_empty_catalogue_gives_empty_pages(whole: Cascade) -> None:
    empty = Cascade(Catalogue({}), whole.config, whole.retrieval, whole.content, whole.ranker)
    assert empty.recommend([Asked(KNOWN[:2])], 3)[0].titles == []
    with pytest.raises(ValueError, match="k must be at least 1: received 0"):
        whole.recommend([Asked()], 0)


@pytest.mark.parametrize("missing", [(), ("ranker",), PARTS])
def test_saved_and_loaded_it_answers_alike_without_pickled_code(
    whole: Cascade, tmp_path: Path, missing: tuple[str, ...]
) -> None:
    cascade = without(whole, *missing)
    save(cascade, tmp_path)
    asked = [Asked(KNOWN[:6], {key: [("crime", 1.0)] for key in SHARES.values()}), Asked()]
    assert load(tmp_path).recommend(asked, 10) == cascade.recommend(asked, 10)
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        if path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".txt":
            assert path.read_text().startswith("tree\n")
        else:
            json.loads(path.read_text())


def test_a_part_that_it_says_it_has_and_has_not_is_an_error(whole: Cascade, tmp_path: Path) -> None:
    save(whole, tmp_path)
    (tmp_path / "ranker" / "trees.txt").unlink()
    with pytest.raises(ModelFolderError, match="ranker"):
        load(tmp_path)
    (tmp_path / "catalogue.json").write_text("[{}]")
    with pytest.raises(ModelFolderError, match="does not hold one whole cascade"):
        load(tmp_path)
    described = json.loads((tmp_path / "cascade.json").read_text())
    (tmp_path / "catalogue.json").write_text("[]")
    for change, said in (({"format": 7}, "format 7"), ({"parts": ["oracle"]}, "oracle")):
        (tmp_path / "cascade.json").write_text(json.dumps({**described, **change}))
        with pytest.raises(ModelFolderError, match=said):
            load(tmp_path)


def test_as_mlflow_asks_it(whole: Cascade, tmp_path: Path) -> None:
    save(whole, tmp_path)
    served = _load_pyfunc(str(tmp_path))
    frame = pd.DataFrame(
        {"history": [np.array(KNOWN[:6]), None], **{key: [[("crime", 1.0)], None] for key in SHARES.values()}}
    )
    answers = served.predict(frame, {"k": 4})
    asked = [Asked(KNOWN[:6], {key: [("crime", 1.0)] for key in SHARES.values()}), Asked()]
    pages = whole.recommend(asked, 4)
    assert answers["content_ids"] == [[name for name, _ in page.titles] for page in pages]
    assert answers["reasons"] == [[], [NO_HISTORY]]
    assert all(isinstance(part, (Recommender, ContentRecommender, Ranker)) for part in
               (served.cascade.retrieval, served.cascade.content, served.cascade.ranker))  # fmt: skip


def test_settings_out_of_range_are_named() -> None:
    for values, said in (({"diversity": 2}, "diversity"), ({"retrieved": 0}, "retrieved"), ({"other": 1}, "other")):
        with pytest.raises(ConfigurationError, match=said):
            CascadeConfig.from_dict(values)
