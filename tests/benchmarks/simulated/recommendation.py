"""How far recommendation is from the best that anybody could do, who knew what every viewer truly likes.

The simulator says how a tile is chosen (`pipelines.simulator.choice`) and whether a title is then watched past the half
(`pipelines.simulator.play`). So of every viewer and title the relative chance is known that it is watched when it is
shown: `gains`. Nothing of it is shown to the models, which learn from events alone:

    days 0 to 2/3        the sequential recommender and the content model learn; a tenth of the titles is kept from both
    then, to 11/12       the ranker learns from tiles shown, with what the two would have said then
    the rest             is judged

1. `shown`: the tiles of a real page in another order; NDCG@10 by what was watched. The oracle orders by `gains`.
2. `page`: ten titles of the whole catalogue, for every viewer at the beginning of the test; NDCG@10 by `gains`, of
   which the oracle has 1. What a viewer has finished is left out of both.
3. `new_titles`: those kept from both models, ordered by the content model alone; NDCG@10 by `gains`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import betainc

from features.columns import encode
from features.entities import key_of
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.user_interaction_signals import USER_INTERACTION_SIGNALS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.playbacks import VIEWING_LOG
from features.timeline import Timeline
from features.training import Happened, Label
from features.training.labels import label_values
from models.cascade.cascade import Asked, Cascade, CascadeConfig
from models.cascade.catalogue import Catalogue, Offer
from models.cascade.diversity import genre_similarity, intra_list_distance
from models.content.evaluation import RandomOrder, TfIdfCosine
from models.content.model import ContentConfig
from models.content.recommender import ContentRecommender
from models.content.titles import Title
from models.content.training import ContentTraining
from models.content.watches import HISTORY, TEST_SHARE, lots
from models.intervals import bootstrap_means
from models.ranker.features import KINDS, NAMES, SHARES, VIEWER_NUMBERS
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
from pipelines.simulator.choice import affinity
from pipelines.simulator.config import HOUR_MS
from pipelines.simulator.network import ROUTING_SHARES
from pipelines.simulator.platform import CONNECTION_STALLS
from tests.benchmarks.simulated.world import World

CUT = 10
SEED = 17
MOST_REQUESTS = 8_000
_HORIZON_MS = 6 * HOUR_MS
_REMEMBERED = 16
_FINISHED = Label("finished", Happened("is_finished"), VIEWING_LOG, by=("profile_id", "content_id"))
Floats = npt.NDArray[np.float64]


def judge(world: World) -> dict[str, Any]:
    """Trains on what happened and measures against the truth."""
    days = world.config.days
    learnt, chosen, judged = days * 2 // 3, days * 5 // 6, days * 11 // 12
    platform = _Platform(world)
    retrieval = _retrieval(platform, learnt, chosen)
    content = _content(platform, learnt, chosen)
    tiles = platform.tiles(learnt, days, retrieval, content)
    day = (tiles["event_timestamp"].cast(pa.int64()).to_numpy() - world.config.start_ms) // (24 * HOUR_MS)
    split = {"train": day < chosen, "validation": (day >= chosen) & (day < judged), "test": day >= judged}
    ranker_training = _trained(
        RankerTraining(
            RankerConfig(), _manifest(), tiles.filter(split["train"]), tiles.filter(split["validation"]), Place()
        )
    )
    ranker = ranker_training.best()
    return {
        "viewers": len(platform.viewers),
        "titles": len(platform.titles),
        "train_requests": ranker_training.facts["train_requests"],
        "shown": _shown(platform, ranker, tiles.filter(split["test"])),
        "page": _pages(platform, judged, retrieval, content, ranker),
        "new_titles": _new_titles(platform, judged, content),
    }


@dataclass(frozen=True)
class Truth:
    """Relative chances that a title is watched past the half when it is shown, from what the simulator does."""

    world: World

    def gains(self, day: int, viewer: npt.NDArray[np.int64], content: npt.NDArray[np.int64]) -> Floats:
        """[rows, titles] of viewers [rows] and contents [rows, titles], none of which was finished lately."""
        platform = self.world.platform
        match = affinity(self.world.taste_shares[day][viewer], platform.catalogue.genre_shares[content])
        stays = 1 / (1 + np.exp(-(0.6 + 0.9 * np.log(12 * match))))
        past_half = stays + (1 - stays) * (1 - betainc(1.1, 2.5, 0.5))
        quality = platform.network.quality(day).stalls_per_hour
        stalls = np.einsum("c,crh->r", ROUTING_SHARES, quality) / quality.shape[2]
        per_hour = stalls[platform.viewer_market[viewer]] * CONNECTION_STALLS[platform.viewers.connection[viewer]]
        per_hour = per_hour * platform.viewers.impatience[viewer] + 1 / 60
        half_hours = platform.catalogue.runtime_ms[content] / HOUR_MS / 2
        gains: Floats = match**1.5 * past_half * np.exp(-per_hour[:, None] * half_hours)
        return gains


class _Platform:
    """The world as the models are shown it: titles on demand, logs, features as of any instant."""

    def __init__(self, world: World) -> None:
        self.world, self.truth = world, Truth(world)
        rows = world.titles.filter(pc.equal(world.titles["content_type"], "vod"))
        self.offers = {
            row["content_id"]: Offer(
                Title(
                    row["content_id"],
                    row["content_title"],
                    row["content_type"],
                    tuple(row["genres"]),
                    row["content_maturity_rating"],
                ),
                {
                    "content_runtime_ms": float(row["runtime_ms"]),
                    **({"content_episode_number": float(row["episode_number"])} if row["episode_number"] else {}),
                },
            )
            for row in rows.to_pylist()
        }
        self.titles = sorted(self.offers)
        self.kept_back = {name for name, lot in zip(self.titles, lots(self.titles), strict=True) if lot < TEST_SHARE}
        self.viewers = sorted(set(world.viewing["profile_id"].drop_null().to_pylist()))
        index = {name: number for number, name in enumerate(world.platform.viewers.profile_ids)}
        self.number = {name: index[name] for name in self.viewers}
        self.content_number = {name: number for number, name in enumerate(world.platform.catalogue.content_ids)}
        self._lines = {
            "user_viewing_history_by_profile_id": Timeline.of_events(USER_VIEWING_HISTORY, "profile_id", world.viewing),
            "user_interaction_signals_by_profile_id": Timeline.of_events(
                USER_INTERACTION_SIGNALS, "profile_id", world.interactions
            ),
            "content_popularity": Timeline.of_events(CONTENT_POPULARITY, "content_id", world.viewing),
        }

    def features(self, name: str, keys: Sequence[str], at_ms: npt.NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """A group's features of these keys at these instants, in the ranker's columns."""
        values = self._lines[name].values_at(pa.array(keys, pa.string()), at_ms)
        return {f"{name}__{column}": values[column] for column in values.column_names}

    def finished(self, viewers: Sequence[str], contents: Sequence[str], at_ms: npt.NDArray[np.int64]) -> pa.Array:
        """[rows] whether the viewer finished the title within six hours."""
        keys, owners = encode(pa.chunked_array([key_of([pa.chunked_array([viewers]), pa.chunked_array([contents])])]))
        (values,) = label_values([_FINISHED], _HORIZON_MS, self.world.viewing, keys, owners, at_ms)
        return values

    def sequences(self, first_day: int, after_day: int) -> dict[str, list[tuple[int, str]]]:
        """(ms, title) that each viewer finished in these days for the first time ever, without those kept back."""
        rows = self.world.viewing.filter(
            pc.and_(self.world.viewing["is_finished"], self.world.viewing["profile_id"].is_valid())
        )
        found: dict[str, list[tuple[int, str]]] = {}
        seen: set[tuple[str, str]] = set()
        at_ms = rows["event_timestamp"].cast(pa.int64()).to_pylist()
        for viewer, title, at in zip(
            rows["profile_id"].to_pylist(), rows["content_id"].to_pylist(), at_ms, strict=True
        ):
            is_new = (viewer, title) not in seen
            seen.add((viewer, title))
            is_inside = self.world.day_ms(first_day) <= at < self.world.day_ms(after_day)
            if is_new and is_inside and title in self.offers and title not in self.kept_back:
                found.setdefault(viewer, []).append((at, title))
        return found

    def tiles(self, first_day: int, after_day: int, retrieval: Recommender, content: ContentRecommender) -> pa.Table:
        """The ranker's rows: tiles of these days, evenly thinned to `MOST_REQUESTS` in each third of the time."""
        tiles = self.world.tiles
        at_ms = tiles["event_timestamp"].cast(pa.int64()).to_numpy()
        inside = (at_ms >= self.world.day_ms(first_day)) & (at_ms < self.world.day_ms(after_day))
        tiles = tiles.filter(pa.array(inside))
        session, _ = tiles["session_id"].combine_chunks().dictionary_encode(), None
        codes = np.asarray(session.indices)
        chance = np.random.default_rng(SEED).random(len(session.dictionary))
        share = min(1.0, 2 * MOST_REQUESTS * CUT / max(1, len(tiles)))
        tiles = tiles.filter(pa.array(chance[codes] < share))
        at_ms = tiles["event_timestamp"].cast(pa.int64()).to_numpy()
        viewers, contents = tiles["profile_id"].to_pylist(), tiles["content_id"].to_pylist()
        # A page's tiles are valued as of its first one: one instant, as a service would be asked.
        requests = _page_of(viewers, tiles["session_id"].to_pylist(), at_ms)
        first = np.flatnonzero(np.append(True, np.diff(requests) > 0))
        asked_ms = at_ms[first]
        asked = [viewers[at] for at in first]
        columns: dict[str, Any] = {}
        for name in ("user_viewing_history_by_profile_id", "user_interaction_signals_by_profile_id"):
            per_page = self.features(name, asked, asked_ms)
            columns |= {key: value.take(pa.array(requests)) for key, value in per_page.items() if key in KINDS}
            if name == "user_viewing_history_by_profile_id":
                histories = [some or [] for some in per_page[HISTORY].to_pylist()]
        columns |= {
            key: value for key, value in self.features("content_popularity", contents, at_ms).items() if key in KINDS
        }
        numbers = [self.offers[name].numbers for name in contents]
        columns |= {
            key: pa.array([one.get(key) for one in numbers], pa.float64())
            for key in ("content_runtime_ms", "content_episode_number")
        }
        columns["content_genres"] = pa.array(
            [list(self.offers[name].title.genres) for name in contents], KINDS["content_genres"]
        )
        by_retrieval, by_content = self._stages(histories, retrieval, content)
        place = {name: at for at, name in enumerate(self.titles)}
        at_title = np.array([place[name] for name in contents])
        columns["retrieval_score"] = pa.array(by_retrieval[requests, at_title], pa.float64(), from_pandas=True)
        columns["content_score"] = pa.array(by_content[requests, at_title], pa.float64())
        columns |= {
            key: pa.nulls(len(contents), kind)
            for key, kind in KINDS.items()
            if key not in columns and key != "content_id"
        }
        columns["watched"] = self.finished(viewers, contents, at_ms)
        return pa.table(
            {**{name: tiles[name] for name in ("profile_id", "session_id", "event_timestamp", "content_id")}, **columns}
        )

    def _stages(
        self, histories: Sequence[Sequence[str]], retrieval: Recommender, content: ContentRecommender
    ) -> tuple[Floats, Floats]:
        """[pages, titles] what each stage says of every title; NaN of those that it does not know."""
        known = retrieval.score([retrieval.vocabulary.columns(history) for history in histories])
        spread = np.full((len(histories), len(self.titles)), np.nan)
        place = {name: at for at, name in enumerate(self.titles)}
        spread[:, [place[name] for name in retrieval.vocabulary.content_ids]] = np.log(np.maximum(known, 1e-12))
        return spread, content.score(histories, [self.offers[name].title for name in self.titles]).astype(np.float64)


def _retrieval(platform: _Platform, learnt: int, chosen: int) -> Recommender:
    before, later = platform.sequences(0, learnt), platform.sequences(learnt, chosen)
    rows: dict[str, list[tuple[list[str], list[str]]]] = {"train": [], "validation": []}
    for viewer, events in before.items():
        rows["train"].append(([], [title for _, title in events]))
        history = [title for _, title in events]
        for _, title in later.get(viewer, []):
            rows["validation"].append((list(history[-100:]), [title]))
            history.append(title)
    tables = {
        name: pa.table({
            "row_id": list(range(len(some))),
            "history": pa.array([one for one, _ in some], pa.list_(pa.string())),
            "label": pa.array([one for _, one in some], pa.list_(pa.string())),
        })
        for name, some in rows.items()
    }  # fmt: skip
    counts: dict[str, int] = {}
    for _, titles in rows["train"]:
        for title in titles:
            counts[title] = counts.get(title, 0) + 1
    catalogue = tuple(name for name in platform.titles if name not in platform.kept_back)
    manifest = _manifest(catalogue=catalogue, popularity=counts)
    config = RecommenderConfig(dim=32, blocks=1, heads=1, epochs=25, patience=5, max_length=100)
    return _trained(RecommenderTraining(config, manifest, tables["train"], tables["validation"], Place())).best()


def _content(platform: _Platform, learnt: int, chosen: int) -> ContentRecommender:
    starts = platform.world.viewing.filter(
        pc.and_(platform.world.viewing["is_start"], platform.world.viewing["profile_id"].is_valid())
    )
    starts = starts.filter(pc.is_in(starts["content_id"], pa.array(platform.titles)))
    at_ms = starts["event_timestamp"].cast(pa.int64()).to_numpy()
    starts = starts.filter(pa.array(at_ms < platform.world.day_ms(chosen)))
    at_ms = starts["event_timestamp"].cast(pa.int64()).to_numpy()
    viewers, contents = starts["profile_id"].to_pylist(), starts["content_id"].to_pylist()
    titles = [platform.offers[name].title for name in contents]
    rows = pa.table(
        {
            "profile_id": starts["profile_id"],
            "event_timestamp": starts["event_timestamp"],
            "content_id": starts["content_id"],
            "content_title": [one.name for one in titles],
            "content_type": [one.content_type for one in titles],
            "content_genres": pa.array([list(one.genres) for one in titles], pa.list_(pa.string())),
            "content_maturity_rating": [one.maturity_rating for one in titles],
            HISTORY: platform.features("user_viewing_history_by_profile_id", viewers, at_ms)[HISTORY],
            "finished": platform.finished(viewers, contents, at_ms),
        }
    )
    early = pa.array(at_ms < platform.world.day_ms(learnt))
    train, validation = rows.filter(early), rows.filter(pc.invert(early))
    return _trained(ContentTraining(ContentConfig(), _manifest(), train, validation, Place())).best()


def _shown(platform: _Platform, ranker: Ranker, tiles: pa.Table) -> dict[str, Any]:
    """The tiles of real pages in another order."""
    requests = Requests.of(tiles)
    ordered = tiles.take(pa.array(requests.order))
    at_ms = ordered["event_timestamp"].cast(pa.int64()).to_numpy()
    day = (at_ms - platform.world.config.start_ms) // (24 * HOUR_MS)
    viewers, contents = ordered["profile_id"].to_pylist(), ordered["content_id"].to_pylist()
    viewer = np.array([platform.number[name] for name in viewers])
    content = np.array([platform.content_number[name] for name in contents])
    gains = np.empty(len(viewer))
    for one in np.unique(day):
        rows = day == one
        gains[rows] = platform.truth.gains(int(one), viewer[rows], content[rows][:, None])[:, 0]
    gains[_finished_lately(platform, viewers, contents, at_ms)] *= 0.02
    popularity = np.nan_to_num(requests.features[:, NAMES.index("title_viewers_day")], nan=-1.0)
    orders = {
        "ranker": ranker.score(ordered),
        "oracle": gains,
        "as_shown": requests.as_shown(),
        "popularity": popularity,
        "random": np.random.default_rng(SEED).random(len(gains)),
    }
    values = {name: requests.ndcg_at(scores, CUT) for name, scores in orders.items()}
    judged = np.isfinite(values["oracle"])
    values = {name: one[judged] for name, one in values.items()}
    of_oracle = values["ranker"] / values["oracle"].mean()
    said = _intervals({**values, "share_of_oracle": of_oracle}, requests.viewers[judged])
    return {"requests": int(judged.sum()), **said}


def _pages(
    platform: _Platform, day: int, retrieval: Recommender, content: ContentRecommender, ranker: Ranker
) -> dict[str, Any]:
    """Ten titles of the whole catalogue for every viewer at a midnight."""
    at_ms = np.full(len(platform.viewers), platform.world.day_ms(day))
    told: dict[str, list[Any]] = {}
    for name in ("user_viewing_history_by_profile_id", "user_interaction_signals_by_profile_id"):
        told |= {key: value.to_pylist() for key, value in platform.features(name, platform.viewers, at_ms).items()}
    wanted = (*VIEWER_NUMBERS.values(), *SHARES.values())
    asked = [
        Asked(told[HISTORY][row] or [], {key: told[key][row] for key in wanted if told[key][row] is not None})
        for row in range(len(platform.viewers))
    ]
    numbers = platform.features("content_popularity", platform.titles, np.full(len(platform.titles), at_ms[0]))
    plain = {key: value.to_pylist() for key, value in numbers.items() if key in KINDS}
    catalogue = Catalogue(platform.offers).as_of_now(
        {
            title: {key: float(some[row]) for key, some in plain.items() if some[row] is not None}
            for row, title in enumerate(platform.titles)
        }
    )
    gains = _catalogue_gains(platform, day, [one.history for one in asked])
    parts = {"retrieval": retrieval, "content": content, "ranker": ranker}
    cascades = {
        "cascade": Cascade(catalogue, CascadeConfig(), **parts),
        "without_diversity": Cascade(catalogue, CascadeConfig(diversity=0.0), **parts),
        "retrieval_only": Cascade(catalogue, CascadeConfig(diversity=0.0), retrieval=retrieval, content=content),
        "content_only": Cascade(catalogue, CascadeConfig(diversity=0.0), content=content),
        "popularity": Cascade(catalogue, CascadeConfig(diversity=0.0)),
    }
    shown = {name: [[one for one, _ in page.titles] for page in cascade.recommend(asked, CUT)]
             for name, cascade in cascades.items()}  # fmt: skip
    chance = np.random.default_rng(SEED)
    shown["random"] = [
        chance.permutation([t for t in platform.titles if t not in set(one.history)])[:CUT].tolist() for one in asked
    ]
    values = {name: _ndcg(platform, pages, gains) for name, pages in shown.items()}
    said: dict[str, Any] = _intervals(values, np.array(platform.viewers))
    distances = {
        name: float(np.mean([_distance(platform, page) for page in shown[name]]))
        for name in ("cascade", "without_diversity")
    }
    return {
        **said,
        "intra_list_distance": distances,
        "titles_shown": len({one for page in shown["cascade"] for one in page}),
    }


def _new_titles(platform: _Platform, day: int, content: ContentRecommender) -> dict[str, Any]:
    """The titles kept back, by what is written of them."""
    names = sorted(platform.kept_back)
    titles = [platform.offers[name].title for name in names]
    at_ms = np.full(len(platform.viewers), platform.world.day_ms(day))
    history = platform.features("user_viewing_history_by_profile_id", platform.viewers, at_ms)[HISTORY].to_pylist()
    histories = [some or [] for some in history]
    viewer = np.array([platform.number[name] for name in platform.viewers])
    places = np.tile([platform.content_number[name] for name in names], (len(viewer), 1))
    gains = platform.truth.gains(day, viewer, places)
    described = {name: offer.title for name, offer in platform.offers.items()}
    scorers = {
        "content": content,
        "popularity": content.popularity,
        "tf_idf": TfIdfCosine(described, content.learnt),
        "random": RandomOrder(SEED),
    }
    values = {name: graded_ndcg_at(one.score(histories, titles), gains, CUT) for name, one in scorers.items()}
    return {"titles": len(names), **_intervals(values, np.array(platform.viewers))}


def _catalogue_gains(platform: _Platform, day: int, histories: Sequence[Sequence[str]]) -> Floats:
    viewer = np.array([platform.number[name] for name in platform.viewers])
    places = np.tile([platform.content_number[name] for name in platform.titles], (len(viewer), 1))
    gains = platform.truth.gains(day, viewer, places)
    place = {name: at for at, name in enumerate(platform.titles)}
    for row, history in enumerate(histories):
        gains[row, [place[name] for name in history if name in place]] = 0.0
    return gains


def _ndcg(platform: _Platform, pages: Sequence[Sequence[str]], gains: Floats) -> Floats:
    place = {name: at for at, name in enumerate(platform.titles)}
    scores = np.full(gains.shape, -np.inf)
    for row, page in enumerate(pages):
        scores[row, [place[name] for name in page]] = -np.arange(len(page))
    return graded_ndcg_at(scores, gains, CUT)


def _distance(platform: _Platform, page: Sequence[str]) -> float:
    return intra_list_distance(genre_similarity([platform.offers[name].title.genres for name in page]))


def _finished_lately(
    platform: _Platform, viewers: Sequence[str], contents: Sequence[str], at_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """[rows] whether the title is among the last sixteen that the viewer saw to the end before the instant."""
    rows = platform.world.viewing.filter(platform.world.viewing["is_complete"].fill_null(False))
    done: dict[str, tuple[list[int], list[str]]] = {}
    times = rows["event_timestamp"].cast(pa.int64()).to_pylist()
    for viewer, title, at in zip(rows["profile_id"].to_pylist(), rows["content_id"].to_pylist(), times, strict=True):
        some = done.setdefault(viewer, ([], []))
        some[0].append(at)
        some[1].append(title)
    found = np.zeros(len(viewers), bool)
    for row, (viewer, title, at) in enumerate(zip(viewers, contents, at_ms.tolist(), strict=True)):
        ends, names = done.get(viewer, ([], []))
        until = int(np.searchsorted(ends, at))
        found[row] = title in names[max(0, until - _REMEMBERED) : until]
    return found


def _page_of(viewers: Sequence[str], sessions: Sequence[str], at_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[tiles] number of each tile's page, of tiles by viewer, session and time."""
    whose = np.array([f"{viewer} {session}" for viewer, session in zip(viewers, sessions, strict=True)])
    begins = np.append(True, (whose[1:] != whose[:-1]) | (np.diff(at_ms) > 30_000))
    return np.cumsum(begins) - 1


def _intervals(values: dict[str, Floats], viewers: npt.NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """Means with their 95 % intervals, by viewer."""
    found = bootstrap_means(np.stack(list(values.values()), axis=1), viewers, SEED)
    return {
        name: {"mean": round(one.mean, 4), "low": round(one.low, 4), "high": round(one.high, 4)}
        for name, one in zip(values, found, strict=True)
    }


def _manifest(**own: Any) -> Manifest:
    digest = "0" * 64
    return Manifest(
        "simulator", "personalization", {}, SEED, "benchmark", [], {}, {}, {"validation_end": 0}, "0", digest, **own
    )


def _trained(training: Any) -> Any:
    while not training.done:
        training.epoch()
    return training
