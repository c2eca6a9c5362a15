"""How far recommendation is from the best that anybody could do, who knew what every viewer truly likes.

Models learn from what happened, and are measured by the truth (`truth.gains`):

    the first half    the sequential recommender and the content model learn; a tenth of the titles is kept from both
    then, to 11/12    the ranker learns from tiles shown, with what the two would have said then
    the rest          is judged

1. `shown`: the tiles of real pages in another order; NDCG@10 by what was watched. The oracle orders by the truth.
2. `page`: ten titles of the whole catalogue, for every viewer at the beginning of the test; NDCG@10 by the truth, of
   which the oracle has 1. What a viewer has finished is left out of both.
3. `new_titles`: those kept from both models, ordered by the content model alone; NDCG@10 by the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.cascade.cascade import Asked, Cascade, CascadeConfig
from models.cascade.catalogue import Catalogue
from models.cascade.diversity import genre_similarity, intra_list_distance
from models.content.evaluation import RandomOrder, TfIdfCosine
from models.content.model import ContentConfig
from models.content.recommender import ContentRecommender
from models.content.training import ContentTraining
from models.content.watches import HISTORY
from models.intervals import bootstrap_means
from models.ranker.features import NAMES
from models.ranker.model import RankerConfig
from models.ranker.ranker import Ranker
from models.ranker.shown import Requests
from models.ranker.training import RankerTraining
from models.recommendation.model import RecommenderConfig
from models.recommendation.recommender import Recommender
from models.recommendation.training import RecommenderTraining
from models.relevance import graded_ndcg_at
from models.task import Place
from models.training_set import Manifest
from pipelines.simulator.config import DAY_MS
from tests.benchmarks.simulated.observed import TITLE_GROUP, VIEWER_GROUPS, Observed, times_ms
from tests.benchmarks.simulated.truth import FINISHED_LATELY, Floats, finished_lately, gains
from tests.benchmarks.simulated.world import World

CUT = 10
SEED = 17
_Row = tuple[str, list[str], list[str]]
"""A viewer, the history, the labels."""
_WEIGHTS = (0.0, 0.2, 0.4)  # of diversity, beside the default: what variety costs
_REQUESTS = 12_000  # about so many the ranker learns from and is judged by: enough, and a minute's work


@dataclass(frozen=True)
class Learnt:
    """The three models."""

    retrieval: Recommender
    content: ContentRecommender
    ranker: Ranker


def judge(world: World) -> dict[str, Any]:
    """Trains on what happened and measures against the truth."""
    days = world.config.days
    learnt, chosen, judged = days // 2, days * 5 // 6, days * 11 // 12
    observed = Observed(world)
    retrieval = _retrieval(observed, learnt, chosen)
    content = _content(observed, learnt, chosen)
    tiles_a_day = len(world.tiles) / days
    tiles = observed.tiles(
        learnt, days, min(1.0, _REQUESTS * CUT / (tiles_a_day * (days - learnt))), retrieval, content
    )
    day = (times_ms(tiles) - world.config.start_ms) // DAY_MS
    train, validation, test = (
        tiles.filter(pa.array(rows)) for rows in (day < chosen, (day >= chosen) & (day < judged), day >= judged)
    )
    models = Learnt(
        retrieval, content, _trained(RankerTraining(RankerConfig(), _manifest(), train, validation, Place()))
    )
    return {
        "viewers": len(observed.viewers),
        "titles": len(observed.titles),
        "days": days,
        "tiles_learnt": len(train),
        "shown": _shown(observed, models.ranker, test),
        "page": _pages(observed, judged, models),
        "new_titles": _new_titles(observed, judged, content),
    }


def _retrieval(observed: Observed, learnt: int, chosen: int) -> Recommender:
    before, later = observed.sequences(0, learnt), observed.sequences(learnt, chosen)
    train: list[_Row] = [(viewer, [], titles) for viewer, titles in before.items()]
    validation: list[_Row] = []
    for viewer, titles in later.items():
        history = before.get(viewer, [])
        validation += [(viewer, [*history, *titles[:at]][-100:], [title]) for at, title in enumerate(titles)]
    counts: dict[str, int] = {}
    for titles in before.values():
        for title in titles:
            counts[title] = counts.get(title, 0) + 1
    catalogue = tuple(name for name in observed.titles if name not in observed.kept_back)
    manifest = _manifest(catalogue=catalogue, popularity=counts)
    config = RecommenderConfig(dim=32, blocks=1, heads=1, epochs=25, patience=5, max_length=100)
    found: Recommender = _trained(
        RecommenderTraining(config, manifest, _sequences(train), _sequences(validation), Place())
    )
    return found


def _sequences(rows: Sequence[_Row]) -> pa.Table:
    viewers, histories, labels = zip(*rows, strict=True)
    texts = pa.list_(pa.string())
    return pa.table(
        {
            "row_id": np.arange(len(rows)),
            "profile_id": pa.array(viewers),
            "history": pa.array(histories, texts),
            "label": pa.array(labels, texts),
        }
    )


def _content(observed: Observed, learnt: int, chosen: int) -> ContentRecommender:
    rows = observed.starts(chosen)
    early = times_ms(rows) < observed.world.day_ms(learnt)
    train, validation = rows.filter(pa.array(early)), rows.filter(pa.array(~early))
    found: ContentRecommender = _trained(ContentTraining(ContentConfig(), _manifest(), train, validation, Place()))
    return found


def _shown(observed: Observed, ranker: Ranker, tiles: pa.Table) -> dict[str, Any]:
    """The tiles of real pages in another order."""
    requests = Requests.of(tiles)
    tiles = tiles.take(pa.array(requests.order))
    orders = {
        "ranker": ranker.score(tiles),
        "oracle": _gains_of_tiles(observed, tiles),
        "as_shown": requests.as_shown(),
        "popularity": np.nan_to_num(requests.features[:, NAMES.index("title_viewers_day")], nan=-1.0),
        "random": np.random.default_rng(SEED).random(len(tiles)),
    }
    values = {name: requests.ndcg_at(scores, CUT) for name, scores in orders.items()}
    judged = np.isfinite(values["oracle"])
    values = {name: one[judged] for name, one in values.items()}
    values["share_of_oracle"] = values["ranker"] / values["oracle"].mean()
    return {"requests": int(judged.sum()), **_intervals(values, requests.viewers[judged])}


def _gains_of_tiles(observed: Observed, tiles: pa.Table) -> Floats:
    at_ms = times_ms(tiles)
    day = (at_ms - observed.world.config.start_ms) // DAY_MS
    viewers, contents = tiles["profile_id"].to_pylist(), tiles["content_id"].to_pylist()
    viewer_numbers, content_numbers = observed.numbers
    viewer = np.array([viewer_numbers[name] for name in viewers])
    content = np.array([content_numbers[name] for name in contents])
    found = np.empty(len(tiles))
    for one in np.unique(day):
        rows = day == one
        found[rows] = gains(observed.world, int(one), viewer[rows], content[rows][:, None])[:, 0]
    found[finished_lately(observed.world, viewers, contents, at_ms)] *= FINISHED_LATELY
    return found


def _pages(observed: Observed, day: int, models: Learnt) -> dict[str, Any]:
    """Ten titles of the whole catalogue for every viewer at a midnight."""
    asked = _asked(observed, day)
    catalogue = _catalogue(observed, day)
    plain = CascadeConfig(diversity=0.0)
    parts = {"retrieval": models.retrieval, "content": models.content}
    cascades = {
        "cascade": Cascade(catalogue, CascadeConfig(), **parts, ranker=models.ranker),
        **{
            f"diversity_{weight}": Cascade(catalogue, CascadeConfig(diversity=weight), **parts, ranker=models.ranker)
            for weight in _WEIGHTS
        },
        "retrieval": Cascade(catalogue, plain, **parts),
        "content": Cascade(catalogue, plain, content=models.content),
        "popularity": Cascade(catalogue, plain),
    }
    shown = {
        name: [[title for title, _ in page.titles] for page in cascade.recommend(asked, CUT)]
        for name, cascade in cascades.items()
    }
    chance = np.random.default_rng(SEED)
    unseen = ([name for name in observed.titles if name not in set(one.history)] for one in asked)
    shown["random"] = [chance.permutation(names)[:CUT].tolist() for names in unseen]
    truth = _gains_of_catalogue(observed, day, observed.titles)
    for row, one in enumerate(asked):
        truth[row, [observed.place[name] for name in one.history if name in observed.place]] = 0.0
    values = {name: _ndcg(observed, pages, truth) for name, pages in shown.items()}
    distances = {
        name: round(float(np.mean([_distance(observed, page) for page in pages])), 4) for name, pages in shown.items()
    }
    return {**_intervals(values, np.array(observed.viewers)), "intra_list_distance": distances}


def _asked(observed: Observed, day: int) -> list[Asked]:
    at_ms = np.full(len(observed.viewers), observed.world.day_ms(day))
    told: dict[str, list[Any]] = {}
    for group in VIEWER_GROUPS:
        told |= {name: column.to_pylist() for name, column in observed.features(group, observed.viewers, at_ms).items()}
    histories = told.pop(HISTORY)
    return [
        Asked(history or [], {name: values[row] for name, values in told.items() if values[row] is not None})
        for row, history in enumerate(histories)
    ]


def _catalogue(observed: Observed, day: int) -> Catalogue:
    at_ms = np.full(len(observed.titles), observed.world.day_ms(day))
    told = {name: column.to_pylist() for name, column in observed.features(TITLE_GROUP, observed.titles, at_ms).items()}
    numbers = {
        title: {name: float(values[row]) for name, values in told.items() if values[row] is not None}
        for row, title in enumerate(observed.titles)
    }
    return Catalogue(observed.offers).as_of_now(numbers)


def _new_titles(observed: Observed, day: int, content: ContentRecommender) -> dict[str, Any]:
    """The titles kept back, by what is written of them."""
    names = sorted(observed.kept_back)
    histories = [one.history for one in _asked(observed, day)]
    titles = {name: offer.title for name, offer in observed.offers.items()}
    scorers = {
        "content": content,
        "popularity": content.popularity,
        "tf_idf": TfIdfCosine(titles, content.learnt),
        "random": RandomOrder(SEED),
    }
    truth = _gains_of_catalogue(observed, day, names)
    candidates = [titles[title] for title in names]
    scores = {name: one.score(histories, candidates) for name, one in scorers.items()}
    scores["content_match"], _ = content.parts(histories, candidates)
    values = {name: graded_ndcg_at(one, truth, CUT) for name, one in scores.items()}
    return {"titles": len(names), **_intervals(values, np.array(observed.viewers))}


def _gains_of_catalogue(observed: Observed, day: int, names: Sequence[str]) -> Floats:
    """[viewers, titles]."""
    content = np.array([observed.numbers[1][name] for name in names])
    return gains(observed.world, day, observed.viewer_number, np.tile(content, (len(observed.viewers), 1)))


def _ndcg(observed: Observed, pages: Sequence[Sequence[str]], truth: Floats) -> Floats:
    scores = np.full(truth.shape, -np.inf)
    for row, page in enumerate(pages):
        scores[row, [observed.place[name] for name in page]] = -np.arange(len(page))
    return graded_ndcg_at(scores, truth, CUT)


def _distance(observed: Observed, page: Sequence[str]) -> float:
    return intra_list_distance(genre_similarity([observed.offers[name].title.genres for name in page]))


def _intervals(values: dict[str, Floats], viewers: npt.NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """Means with their 95 % intervals, by viewer."""
    found = bootstrap_means(np.stack(list(values.values()), axis=1), viewers, SEED)
    return {
        name: {"mean": round(one.mean, 4), "low": round(one.low, 4), "high": round(one.high, 4)}
        for name, one in zip(values, found, strict=True)
    }


def _manifest(**own: Any) -> Manifest:
    return Manifest("simulator", "personalization", {}, SEED, "benchmark", [], {}, {}, {}, "", "0" * 64, **own)


def _trained(training: Any) -> Any:
    while not training.done:
        training.epoch()
    return training.best()
