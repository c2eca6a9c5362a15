"""How a viewer comes to a content: going on with an episode, tuning to a channel, or choosing out of tiles.

Ten tiles are shown: five drawn from the viewer's own tastes (a genre by taste share, a title of it by popularity),
five from everybody's (by popularity alone). Of these, tile j with content c is clicked with a probability proportional
to `affinity(viewer, c)^1.5 x exp(-0.15 j) x (0.02 if finished lately else 1)`, where affinity is the sum over genres of
the viewer's taste share times the content's genre share. This is all that the best possible model could know.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.catalogue import GENRES, Shelves
from pipelines.simulator.columns import Columns
from pipelines.simulator.platform import Platform
from pipelines.simulator.state import NOTHING, ViewerState, taste_shares

RAILS = ("for_you", "trending", "continue_watching")
THUMBNAILS = ("a", "b", "c")
REFERRERS = ("rail", "epg", "autoplay")
CONTENT_TYPES = ("live", "vod", "catchup", "startover", "pvr")
LIVE, VOD, CATCHUP, STARTOVER = range(4)
BY_TILE, BY_EPG, BY_AUTOPLAY = range(3)

AUTOPLAY_SHARE = 0.75
"""Of finished episodes that have a next one: it follows at once."""
CONTINUE_SHARE = 0.60
"""Of sessions of a viewer who has something to go on with: they begin with it."""

_TILES = 10
_PERSONAL_TILES = 5
_AFFINITY_EXPONENT = 1.5
_POSITION_PENALTY = 0.15
_FINISHED_WEIGHT = 0.02
_NOTHING_FOUND_SHARE = 0.12
_CONTINUE_RAIL = RAILS.index("continue_watching")


@dataclass
class Choice:
    """What each visiting viewer plays next (`content` is `NOTHING` for those who leave), and the tiles on the way."""

    content: NDArray[np.int32]
    content_type: NDArray[np.int8]
    referrer: NDArray[np.int8]
    start_position_ms: NDArray[np.int64]
    requested_ms: NDArray[np.int64]
    impressions: Columns
    clicks: Columns


@dataclass
class Visit:
    """Viewers in the app at some moment of their sessions, one row each."""

    viewer: NDArray[np.int64]
    session: NDArray[np.int64]
    now_ms: NDArray[np.int64]
    finished_episode: NDArray[np.bool_]

    def select(self, rows: NDArray[np.bool_]) -> "Visit":
        """Keep some of the rows."""
        return Visit(self.viewer[rows], self.session[rows], self.now_ms[rows], self.finished_episode[rows])

    def __len__(self) -> int:
        return len(self.viewer)


def choose(platform: Platform, state: ViewerState, visit: Visit, first: bool, random: np.random.Generator) -> Choice:
    """Let every visiting viewer find something to watch; `first`: this is the first playback of their sessions."""
    rows = len(visit)
    chance = random.random((3, rows))
    has_more = state.up_next[visit.viewer] != NOTHING
    autoplay = visit.finished_episode & has_more & (chance[0] < AUTOPLAY_SHARE)
    proceed = has_more & (chance[0] < CONTINUE_SHARE) & first
    tune = ~autoplay & ~proceed & (chance[1] < platform.viewers.live_share[visit.viewer])
    browse = ~(autoplay | proceed | tune)
    choice = Choice(
        content=np.where(autoplay | proceed, state.up_next[visit.viewer], NOTHING).astype(np.int32),
        content_type=np.full(rows, VOD, dtype=np.int8),
        referrer=np.select([autoplay, tune], [BY_AUTOPLAY, BY_EPG], BY_TILE).astype(np.int8),
        start_position_ms=np.where(autoplay | proceed, state.up_next_position_ms[visit.viewer], 0),
        requested_ms=visit.now_ms + random.integers(3_000, 15_000, rows),
        impressions={},
        clicks={},
    )
    _tune(platform, state, visit, tune, choice, random)
    personal, personal_clicks = _browse(platform, state, visit, browse, choice, random)
    resumed, resumed_clicks = _continue_tile(visit, proceed, choice, random)
    choice.impressions = {name: np.concatenate((personal[name], resumed[name])) for name in personal}
    choice.clicks = {name: np.concatenate((personal_clicks[name], resumed_clicks[name])) for name in personal_clicks}
    return choice


def affinity(shares: NDArray[np.float64], genre_shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over genres of taste share times genre share: (n, genres), (n, ..., genres) -> (n, ...); mean about 1/12."""
    matched: NDArray[np.float64] = np.einsum("ng,n...g->n...", shares, genre_shares)
    return matched


def _genres(
    shares: NDArray[np.float64], offered: NDArray[np.bool_], draws: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """(n, genres) shares -> (n, draws) genres drawn by them among those that are offered."""
    bounds = np.cumsum(np.where(offered, shares, 0.0), axis=1)
    bounds /= bounds[:, -1:]
    genres: NDArray[np.int64] = (random.random((len(shares), draws, 1)) >= bounds[:, None, :-1]).sum(axis=2)
    return genres


def _tune(
    platform: Platform,
    state: ViewerState,
    visit: Visit,
    rows: NDArray[np.bool_],
    choice: Choice,
    random: np.random.Generator,
) -> None:
    viewer = visit.viewer[rows]
    audience = platform.viewers.is_kids[viewer].astype(np.int64)
    genre = _genres(taste_shares(state.tastes[viewer]), platform.channels.offers[audience], 1, random)[:, 0]
    choice.content[rows] = platform.channels.draw(Shelves.section(audience, genre), random.random(len(viewer)))
    kind = random.random(len(viewer))
    choice.content_type[rows] = np.select([kind < 0.85, kind < 0.95], [LIVE, CATCHUP], STARTOVER)


def _browse(
    platform: Platform,
    state: ViewerState,
    visit: Visit,
    rows: NDArray[np.bool_],
    choice: Choice,
    random: np.random.Generator,
) -> tuple[Columns, Columns]:
    viewer, session = visit.viewer[rows], visit.session[rows]
    people = len(viewer)
    audience = platform.viewers.is_kids[viewer].astype(np.int64)
    shares = taste_shares(state.tastes[viewer])
    genre = np.full((people, _TILES), len(GENRES))
    genre[:, :_PERSONAL_TILES] = _genres(shares, platform.titles.offers[audience], _PERSONAL_TILES, random)
    tiles = platform.titles.draw(Shelves.section(audience[:, None], genre), random.random((people, _TILES)))

    weight = _AFFINITY_EXPONENT * np.log(affinity(shares, platform.catalogue.genre_shares[tiles]))
    weight -= _POSITION_PENALTY * np.arange(_TILES)
    seen = (tiles[:, :, None] == state.finished[viewer][:, None, :]).any(axis=2)
    weight += np.where(seen, np.log(_FINISHED_WEIGHT), 0.0)
    clicked = np.argmax(weight + random.gumbel(size=weight.shape), axis=1)
    found = random.random(people) >= _NOTHING_FOUND_SHARE

    shown_ms = visit.now_ms[rows][:, None] + np.cumsum(random.integers(1_000, 2_500, (people, _TILES)), axis=1)
    click_ms = shown_ms[:, -1] + random.integers(500, 5_000, people)
    content = tiles[np.arange(people), clicked]
    choice.content[rows] = np.where(found, content, NOTHING)
    choice.requested_ms[rows] = click_ms + 150
    position = np.tile(np.arange(_TILES), people)
    personal = position < _PERSONAL_TILES
    impressions: Columns = {
        "viewer": np.repeat(viewer, _TILES),
        "session": np.repeat(session, _TILES),
        "true_ms": shown_ms.ravel(),
        "content": tiles.ravel(),
        "tile_position": np.where(personal, position, position - _PERSONAL_TILES),
        "rail": np.where(personal, 0, 1),
        "thumbnail": random.integers(0, len(THUMBNAILS), people * _TILES),
    }
    clicks: Columns = {
        "viewer": viewer[found],
        "session": session[found],
        "true_ms": click_ms[found],
        "content": content[found],
        "tile_position": (clicked % _PERSONAL_TILES)[found],
        "rail": (clicked // _PERSONAL_TILES)[found],
        "time_to_click_ms": (click_ms - shown_ms[np.arange(people), clicked])[found],
    }
    return impressions, clicks


def _continue_tile(
    visit: Visit, rows: NDArray[np.bool_], choice: Choice, random: np.random.Generator
) -> tuple[Columns, Columns]:
    """The first tile of the "continue watching" rail is seen and clicked."""
    shown_ms = visit.now_ms[rows] + random.integers(1_000, 2_500, int(rows.sum()))
    seen: Columns = {
        "viewer": visit.viewer[rows],
        "session": visit.session[rows],
        "true_ms": shown_ms,
        "content": choice.content[rows],
        "tile_position": np.zeros(len(shown_ms), dtype=np.int64),
        "rail": np.full(len(shown_ms), _CONTINUE_RAIL),
    }
    impressions: Columns = seen | {"thumbnail": np.zeros(len(shown_ms), dtype=np.int64)}
    clicks: Columns = seen | {
        "true_ms": choice.requested_ms[rows] - 150,
        "time_to_click_ms": choice.requested_ms[rows] - 150 - shown_ms,
    }
    return impressions, clicks
