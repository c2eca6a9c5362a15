"""A simulated platform, run once: its events as silver has them, and what is truly so.

The events are those of adults who allow personalization, each once, in the columns that the sources of features read.
The road from Kafka to silver is left out: that it changes nothing is tested elsewhere, and here the models are judged.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.playbacks import PLAYBACK_COLUMNS, PLAYBACK_EVENTS, viewing_log
from features.sources.interactions import interactions_log
from pipelines.simulator import SimulationConfig, simulate
from pipelines.simulator.config import DAY_MS
from pipelines.simulator.platform import Platform, build_platform

_BROWSE = ("tile.impression", "tile.click", "rail.scroll")
_TYPES = {
    "viewer_token": pa.string(), "client_timestamp_reliable": pa.bool_(), "time_zone": pa.string(),
    "completion_percent": pa.float64(), "content_type": pa.string(), "content_id": pa.string(),
    "playback_id": pa.string(), "rail_id": pa.string(), "scroll_depth_percent": pa.float64(),
    "content_genres": pa.list_(pa.string()), "query_text": pa.string(), "tile_position": pa.int32(),
}  # fmt: skip
_KEPT = (*PLAYBACK_EVENTS, *_BROWSE, "search.query", "title.added")


@dataclass(frozen=True)
class World:
    """What happened, by event name, and the truth behind it."""

    config: SimulationConfig
    platform: Platform
    events: dict[str, pa.Table]
    taste_shares: npt.NDArray[np.float64]
    """[days, viewers, genres] what each viewer truly likes; rows sum to 1."""

    @classmethod
    def of(cls, config: SimulationConfig) -> "World":
        """Runs the platform."""
        parts: dict[str, list[pa.Table]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for batch in simulate(config, Path(folder)):
                for name, table in batch.tables.items():
                    if name in _KEPT:
                        parts.setdefault(name, []).append(table)
            tastes = pq.read_table(Path(folder) / "tastes.parquet")
        platform = build_platform(config)
        shares = pc.list_flatten(tastes["taste_shares"]).to_numpy().astype(np.float64)
        return cls(
            config,
            platform,
            {name: _allowed(pa.concat_tables(some), platform) for name, some in parts.items()},
            shares.reshape(config.days, len(platform.viewers), -1),
        )

    def day_ms(self, day: int) -> int:
        """The midnight that a day begins at, ms since 1970, UTC."""
        return self.config.start_ms + day * DAY_MS

    @cached_property
    def titles(self) -> pa.Table:
        """The catalogue as the sources read it."""
        return self.events["title.added"].rename_columns(
            {"title": "content_title", "maturity_rating": "content_maturity_rating"}
        )

    @cached_property
    def viewing(self) -> pa.Table:
        """The viewing log (`features.playbacks`)."""
        played = _columns([self.events[name] for name in PLAYBACK_EVENTS if name in self.events], PLAYBACK_COLUMNS)
        token = played["profile_id"]
        played = played.set_column(played.column_names.index("viewer_token"), "viewer_token", token)
        return viewing_log(played, self.titles)

    @cached_property
    def interactions(self) -> pa.Table:
        """The interactions log (`features.sources.interactions`)."""
        names = ("event_id", "event_name", "event_timestamp", "user_id", "profile_id", "session_id", "content_id",
                 "rail_id", "scroll_depth_percent", "content_genres")  # fmt: skip
        browsed = _columns([self.events[name] for name in _BROWSE if name in self.events], names)
        genres = self.genres_of(browsed["content_id"])
        browsed = browsed.set_column(browsed.column_names.index("content_genres"), "content_genres", genres)
        searched = _columns([self.events["search.query"]], names)
        return interactions_log(browsed, searched)

    @cached_property
    def tiles(self) -> pa.Table:
        """Impressions: who was shown which title on demand when, by viewer, session and time."""
        names = ["event_timestamp", "profile_id", "session_id", "content_id", "rail_id", "tile_position"]
        shown = self.events["tile.impression"].select(names)
        shown = shown.filter(pc.not_equal(shown["rail_id"], "continue_watching"))
        return shown.sort_by([(name, "ascending") for name in ("profile_id", "session_id", "event_timestamp")])

    def genres_of(self, content_ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """The genres of each of these contents; null of a null."""
        place = pc.index_in(content_ids, self.titles["content_id"].combine_chunks())
        return pa.chunked_array([self.titles["genres"].combine_chunks().take(place.combine_chunks())])


def _allowed(table: pa.Table, platform: Platform) -> pa.Table:
    """The events of adults who allow personalization, each once; all events of the catalogue."""
    if "title.added" in table["event_name"].slice(0, 1).to_pylist():
        return table
    adults = pa.array(np.array(platform.viewers.profile_ids)[~platform.viewers.is_kids])
    allows = pc.and_(table["consent_analytics"], table["consent_personalization"])
    table = table.filter(
        pc.and_(pc.and_(allows, pc.is_in(table["profile_id"], adults)), table["session_id"].is_valid())
    )
    _, first = np.unique(table["event_id"].to_numpy(zero_copy_only=False), return_index=True)
    return table.take(pa.array(np.sort(first)))


def _columns(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """These columns of all tables, one after another; null where a table lacks one."""
    parts = []
    for table in tables:
        columns = {
            name: table[name].cast(_TYPES[name]) if name in _TYPES and name in table.column_names
            else table[name] if name in table.column_names
            else pa.nulls(len(table), _TYPES[name])
            for name in names
        }  # fmt: skip
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
