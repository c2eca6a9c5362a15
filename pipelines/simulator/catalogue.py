"""Titles on demand and live channels: genres, appeal, series; and drawing one of a genre by its popularity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.config import SimulationConfig
from pipelines.simulator.streams import stream

GENRES = (
    "action", "animation", "comedy", "crime", "documentary", "drama",
    "family", "horror", "news", "romance", "sci-fi", "sport",
)  # fmt: skip
RATINGS = ("G", "PG", "PG-13", "R")
KIDS_RATINGS = ("G", "PG")
FAMILY, ANIMATION, HORROR = GENRES.index("family"), GENRES.index("animation"), GENRES.index("horror")

_ADULT_RATING_SHARES = np.array([0.10, 0.25, 0.40, 0.25])
_FAMILY_RATING_SHARES = np.array([0.60, 0.35, 0.05, 0.00])
_HORROR_RATING_SHARES = np.array([0.00, 0.00, 0.35, 0.65])
_ZIPF_EXPONENT = 0.9
_EPISODE_SHARE = 0.6
_FIRST_EPISODE_WEIGHT = 3.0
_LATER_EPISODE_WEIGHT = 0.03
_ADJECTIVES = ("Silent", "Golden", "Broken", "Northern", "Hidden", "Last", "Crimson", "Distant", "Paper", "Electric")
_NOUNS = ("Harbour", "Letters", "Orchard", "Kingdom", "Signal", "Winter", "Garden", "Frontier", "Echo", "Station")


@dataclass(frozen=True)
class Catalogue:
    """Everything that can be watched: titles first, then channels, addressed by their index.

    `genre_shares`: (contents, genres), rows sum to 1. `appeal`: log of the popularity weight. `runtime_ms`: 0 for
    channels. `series`: index of the series or -1; `episode`: from 1, 0 outside of series; `next_episode`: content index
    or -1.
    """

    content_ids: list[str]
    names: list[str]
    genre_shares: NDArray[np.float64]
    is_channel: NDArray[np.bool_]
    runtime_ms: NDArray[np.int64]
    rating: NDArray[np.int8]
    appeal: NDArray[np.float64]
    series: NDArray[np.int32]
    episode: NDArray[np.int32]
    next_episode: NDArray[np.int32]

    @property
    def for_kids(self) -> NDArray[np.bool_]:
        """Whether kids' profiles may watch it."""
        return self.rating < len(KIDS_RATINGS)

    def genres_of(self, content: int) -> list[str]:
        """Names of a content's genres, the strongest first."""
        shares = self.genre_shares[content]
        return [GENRES[genre] for genre in np.argsort(-shares, kind="stable") if shares[genre] > 0]


def build_catalogue(config: SimulationConfig) -> Catalogue:
    """Make the titles and channels of a configuration; at least one of each is fit for kids."""
    random = stream(config.seed, "catalogue")
    series, episode, next_episode = _series(config, random)
    total = config.titles + config.channels
    leader = np.arange(total) - np.maximum(episode - 1, 0)  # an episode shares what its series' first one has
    primary = random.integers(0, len(GENRES), total)
    secondary = random.integers(0, len(GENRES), total)
    family = [0, config.titles]  # the first title and the first channel
    primary[family] = FAMILY
    primary, secondary = primary[leader], secondary[leader]
    genre_shares = np.zeros((total, len(GENRES)))
    genre_shares[np.arange(total), primary] += 0.7
    genre_shares[np.arange(total), secondary] += 0.3
    rating = _ratings(primary, random)
    rating[family] = 0
    is_channel = np.arange(total) >= config.titles
    movies = random.integers(80, 151, total)
    episodes = random.integers(20, 56, total)
    minutes = np.where(is_channel, 0, np.where(series >= 0, episodes, movies))
    ranks = np.concatenate((random.permutation(config.titles), random.permutation(config.channels))) + 1
    appeal = -_ZIPF_EXPONENT * np.log(ranks)[leader]
    return Catalogue(
        content_ids=[f"vod-{i:05d}" for i in range(config.titles)] + [f"ch-{i:03d}" for i in range(config.channels)],
        names=_names(config, series, episode),
        genre_shares=genre_shares,
        is_channel=is_channel,
        runtime_ms=minutes.astype(np.int64) * 60_000,
        rating=rating[leader],
        appeal=appeal,
        series=series,
        episode=episode,
        next_episode=next_episode,
    )


def _series(config: SimulationConfig, random: np.random.Generator) -> tuple[NDArray[np.int32], ...]:
    """Group the latter part of the titles into series of 4 to 10 episodes; channels are in none."""
    titles = config.titles
    lengths = random.integers(4, 11, titles)
    first = titles - int(titles * _EPISODE_SHARE)
    bounds = first + np.concatenate(([0], np.cumsum(lengths)))
    content = np.arange(titles)
    group = np.searchsorted(bounds, content, side="right") - 1
    inside = group >= 0
    series = np.where(inside, group, -1)
    episode = np.where(inside, content - bounds[np.maximum(group, 0)] + 1, 0)
    has_next = inside & (np.append(series[1:], -1) == series)
    columns = ((series, -1), (episode, 0), (np.where(has_next, content + 1, -1), -1))
    return tuple(
        np.pad(values, (0, config.channels), constant_values=none).astype(np.int32) for values, none in columns
    )


def _ratings(primary: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int8]:
    """A maturity rating by the primary genre's shares."""
    shares = np.tile(_ADULT_RATING_SHARES, (len(GENRES), 1))
    shares[[FAMILY, ANIMATION]] = _FAMILY_RATING_SHARES
    shares[HORROR] = _HORROR_RATING_SHARES
    bounds = np.cumsum(shares[primary], axis=1)
    rating: NDArray[np.int8] = (random.random((len(primary), 1)) >= bounds[:, :-1]).sum(axis=1).astype(np.int8)
    return rating


def _names(config: SimulationConfig, series: NDArray[np.int32], episode: NDArray[np.int32]) -> list[str]:
    """Readable and unique: "The Silent Harbour", "The Paper Echo 3", "The Last Winter, episode 4", "Channel 2"."""

    def name(number: int) -> str:
        turn, pair = divmod(number, len(_ADJECTIVES) * len(_NOUNS))
        adjective, noun = _ADJECTIVES[pair % len(_ADJECTIVES)], _NOUNS[pair // len(_ADJECTIVES)]
        return f"The {adjective} {noun}" + (f" {turn + 1}" if turn else "")

    movies = int((series < 0).sum())
    titles = [
        name(content) if episode[content] == 0 else f"{name(movies + int(series[content]))}, episode {episode[content]}"
        for content in range(config.titles)
    ]
    return titles + [f"Channel {number + 1}" for number in range(config.channels)]


class Shelves:
    """Contents arranged by audience (adults, kids) and genre, for drawing one by popularity in O(log contents).

    A section is `audience x (genres + 1) + genre`; the last "genre" of an audience, `EVERY_GENRE`, holds all of them.
    """

    EVERY_GENRE = len(GENRES)

    def __init__(self, catalogue: Catalogue, selected: NDArray[np.bool_]) -> None:
        first, later = catalogue.episode == 1, catalogue.episode > 1
        entry = np.select([first, later], [_FIRST_EPISODE_WEIGHT, _LATER_EPISODE_WEIGHT], 1.0)
        weight = np.exp(catalogue.appeal) * entry
        members, bounds = [], []
        self.offers = np.zeros((2, len(GENRES)), dtype=bool)
        for audience, allowed in enumerate((selected, selected & catalogue.for_kids)):
            for genre in range(len(GENRES) + 1):
                fit = catalogue.genre_shares[:, genre] if genre < len(GENRES) else np.ones(len(weight))
                weights = np.where(allowed, fit * weight, 0.0)
                inside = np.flatnonzero(weights)
                if genre < len(GENRES):
                    self.offers[audience, genre] = len(inside) > 0
                shares = np.cumsum(weights[inside]) / weights[inside].sum()
                shares[-1:] = 1.0  # exactly, whatever the sum's rounding
                members.append(inside)
                bounds.append(self.section(audience, genre) + shares)
        self._members = np.concatenate(members).astype(np.int32)
        self._bounds = np.concatenate(bounds)

    @classmethod
    def section(cls, audience: NDArray[np.int64] | int, genre: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Number of the section of an audience (1 = kids) and genre."""
        number: NDArray[np.int64] = np.asarray(audience) * (len(GENRES) + 1) + np.asarray(genre)
        return number

    def draw(self, section: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int32]:
        """One content per row, by popularity within its section (which must offer something); `uniform` in [0, 1)."""
        position = np.searchsorted(self._bounds, section + np.minimum(uniform, 1 - 1e-9), side="right")
        return self._members[position]
