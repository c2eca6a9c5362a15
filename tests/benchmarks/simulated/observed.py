"""The simulated world as models are shown it: titles on demand, what was watched and shown, features at any instant."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import encode
from features.entities import key_of
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.user_interaction_signals import USER_INTERACTION_SIGNALS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.playbacks import VIEWING_LOG
from features.timeline import Timeline
from features.training import Happened, Label
from features.training.labels import label_values
from models.cascade.catalogue import Offer
from models.content.recommender import ContentRecommender
from models.content.titles import Title
from models.content.watches import HISTORY, TEST_SHARE, lots
from models.ranker.features import KINDS
from models.ranker.shown import PAUSE_MS
from models.recommendation.recommender import Recommender
from pipelines.simulator.config import HOUR_MS
from tests.benchmarks.simulated.world import World

VIEWER_GROUPS = ("user_viewing_history_by_profile_id", "user_interaction_signals_by_profile_id")
TITLE_GROUP = "content_popularity"
HORIZON_MS = 6 * HOUR_MS
_FINISHED = Label("finished", Happened("is_finished"), VIEWING_LOG, by=("profile_id", "content_id"))
_WHOSE = ("profile_id", "session_id", "event_timestamp", "content_id")


class Observed:
    """What can be known without knowing the truth."""

    def __init__(self, world: World) -> None:
        self.world = world
        on_demand = world.titles.filter(pc.equal(world.titles["content_type"], "vod"))
        self.offers = {row["content_id"]: _offer(row) for row in on_demand.to_pylist()}
        self.titles = sorted(self.offers)
        self.place = {name: at for at, name in enumerate(self.titles)}
        self.kept_back = {name for name, lot in zip(self.titles, lots(self.titles), strict=True) if lot < TEST_SHARE}
        """Titles whose watches neither the sequential nor the content model learns from."""
        self.viewers = sorted(set(world.viewing["profile_id"].drop_null().to_pylist()))
        numbers = {name: at for at, name in enumerate(world.platform.viewers.profile_ids)}
        contents = {name: at for at, name in enumerate(world.platform.catalogue.content_ids)}
        self.viewer_number = np.array([numbers[name] for name in self.viewers])
        self.numbers = (numbers, contents)
        self._lines = {
            VIEWER_GROUPS[0]: Timeline.of_events(USER_VIEWING_HISTORY, "profile_id", world.viewing),
            VIEWER_GROUPS[1]: Timeline.of_events(USER_INTERACTION_SIGNALS, "profile_id", world.interactions),
            TITLE_GROUP: Timeline.of_events(CONTENT_POPULARITY, "content_id", world.viewing),
        }

    def features(self, group: str, keys: Sequence[str], at_ms: npt.NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """A group's features of these keys at these instants, by the names that the ranker has for them."""
        values = self._lines[group].values_at(pa.array(keys, pa.string()), at_ms)
        named = {f"{group}__{column}": values[column] for column in values.column_names}
        return {name: column for name, column in named.items() if name in KINDS}

    def finished(self, viewers: Sequence[str], contents: Sequence[str], at_ms: npt.NDArray[np.int64]) -> pa.Array:
        """[rows] whether the viewer finished the title within six hours."""
        keys, owners = encode(pa.chunked_array([key_of([pa.chunked_array([viewers]), pa.chunked_array([contents])])]))
        (values,) = label_values([_FINISHED], HORIZON_MS, self.world.viewing, keys, owners, at_ms)
        return values

    def sequences(self, first_day: int, after_day: int) -> dict[str, list[str]]:
        """The titles that each viewer finished in these days for the first time ever, without those kept back."""
        viewing = self.world.viewing
        rows = viewing.filter(pc.and_(viewing["is_finished"], viewing["profile_id"].is_valid()))
        columns = (rows["profile_id"].to_pylist(), rows["content_id"].to_pylist())
        found: dict[str, list[str]] = {}
        seen: set[tuple[str, str]] = set()
        since_ms, until_ms = self.world.day_ms(first_day), self.world.day_ms(after_day)
        for viewer, title, at in zip(*columns, times_ms(rows).tolist(), strict=True):
            is_new = (viewer, title) not in seen
            seen.add((viewer, title))
            if is_new and since_ms <= at < until_ms and title in self.offers and title not in self.kept_back:
                found.setdefault(viewer, []).append(title)
        return found

    def starts(self, until_day: int) -> pa.Table:
        """The content model's rows: titles on demand that were begun before a day."""
        viewing = self.world.viewing
        rows = viewing.filter(pc.and_(viewing["is_start"], viewing["profile_id"].is_valid()))
        rows = rows.filter(pc.is_in(rows["content_id"], pa.array(self.titles)))
        rows = rows.filter(pa.array(times_ms(rows) < self.world.day_ms(until_day)))
        viewers, contents = rows["profile_id"].to_pylist(), rows["content_id"].to_pylist()
        titles = [self.offers[name].title for name in contents]
        return pa.table(
            {
                **{name: rows[name] for name in ("profile_id", "event_timestamp", "content_id")},
                "content_title": [one.name for one in titles],
                "content_type": [one.content_type for one in titles],
                "content_genres": pa.array([list(one.genres) for one in titles], pa.list_(pa.string())),
                "content_maturity_rating": [one.maturity_rating for one in titles],
                HISTORY: self.features(VIEWER_GROUPS[0], viewers, times_ms(rows))[HISTORY],
                "finished": self.finished(viewers, contents, times_ms(rows)),
            }
        )

    def tiles(
        self, first_day: int, after_day: int, sessions: float, retrieval: Recommender, content: ContentRecommender
    ) -> pa.Table:
        """The ranker's rows: tiles of these days, of a share of the sessions, with what both models say of each.

        Viewers are described as of the first tile of a page: a service is asked for a page at one instant.
        """
        tiles = self.world.tiles
        at_ms = times_ms(tiles)
        inside = (at_ms >= self.world.day_ms(first_day)) & (at_ms < self.world.day_ms(after_day))
        tiles = tiles.filter(pa.array(inside & (lots(tiles["session_id"].to_pylist()) < sessions)))
        at_ms, contents = times_ms(tiles), tiles["content_id"].to_pylist()
        viewers = tiles["profile_id"].to_pylist()
        page = _pages(viewers, tiles["session_id"].to_pylist(), at_ms)
        first = np.flatnonzero(np.append(True, np.diff(page) > 0))
        described: dict[str, pa.ChunkedArray] = {}
        for group in VIEWER_GROUPS:
            described |= self.features(group, [viewers[at] for at in first], at_ms[first])
        histories = [some or [] for some in described[HISTORY].to_pylist()]
        by_retrieval, by_content = self._stages(histories, retrieval, content)
        place = np.array([self.place[name] for name in contents])
        columns: dict[str, Any] = {name: column.take(pa.array(page)) for name, column in described.items()}
        columns |= self.features(TITLE_GROUP, contents, at_ms)
        columns |= self._told(contents)
        columns["retrieval_score"] = pa.array(by_retrieval[page, place], pa.float64(), from_pandas=True)
        columns["content_match"] = pa.array(by_content[page, place], pa.float64())
        columns |= {name: tiles[name] for name in _WHOSE}
        unknown = {name: pa.nulls(len(tiles), kind) for name, kind in KINDS.items() if name not in columns}
        return pa.table({**columns, **unknown, "watched": self.finished(viewers, contents, at_ms)})

    def _told(self, contents: Sequence[str]) -> dict[str, pa.Array]:
        """What the catalogue says of these titles, in the ranker's columns."""
        offers = [self.offers[name] for name in contents]
        told = {
            name: pa.array([one.numbers.get(name) for one in offers], pa.float64())
            for name in ("content_runtime_ms", "content_episode_number")
        }
        genres = pa.array([list(one.title.genres) for one in offers], pa.list_(pa.string()))
        return {**told, "content_genres": genres}

    def _stages(
        self, histories: Sequence[Sequence[str]], retrieval: Recommender, content: ContentRecommender
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """[pages, titles] what each model says of every title; NaN of those that it does not know."""
        known = retrieval.score([retrieval.vocabulary.columns(history) for history in histories])
        spread = np.full((len(histories), len(self.titles)), np.nan)
        spread[:, [self.place[name] for name in retrieval.vocabulary.content_ids]] = np.log(np.maximum(known, 1e-12))
        return spread, content.parts(histories, [self.offers[name].title for name in self.titles])[0].astype(np.float64)


def times_ms(rows: pa.Table) -> npt.NDArray[np.int64]:
    """[rows] when the server received each event, ms since 1970, UTC."""
    times: npt.NDArray[np.int64] = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    return times


def _offer(row: dict[str, Any]) -> Offer:
    title = Title(
        row["content_id"],
        row["content_title"],
        row["content_type"],
        tuple(row["genres"]),
        row["content_maturity_rating"],
    )
    numbers = {"content_runtime_ms": row["runtime_ms"], "content_episode_number": row["episode_number"]}
    return Offer(title, {name: float(value) for name, value in numbers.items() if value is not None})


def _pages(viewers: Sequence[str], sessions: Sequence[str], at_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[tiles] number of each tile's page, of tiles by viewer, session and time."""
    whose = np.array([f"{viewer} {session}" for viewer, session in zip(viewers, sessions, strict=True)])
    begins = np.append(True, (whose[1:] != whose[:-1]) | (np.diff(at_ms) > PAUSE_MS))
    numbers: npt.NDArray[np.int64] = np.cumsum(begins) - 1
    return numbers
