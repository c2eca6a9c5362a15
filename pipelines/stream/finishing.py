"""Playbacks that are over, as they become so: their sessions go online, their scores are told (spec 4.3).

The watermark is the instant before which no partition has anything unread. A playback is looked at again when, at the
earliest, a version of it can be over by the watermark (`features.finished_playbacks`); so each event is read about
once, however many come. What is told of is remembered by instant only: an actor that begins again tells once more
what was over after the last checkpoint, with the same ids.

Online, under the profile: its playbacks that were over, since yesterday, as rows of `silver.playback_sessions`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat, milliseconds
from features.finished_playbacks import IDLE_MS, STOPPED, STOPPED_MS, finished_playbacks
from features.revision import Flags
from features.source import EVENT_NAME, EVENT_TIME
from features.units import Hashes, hashes
from pipelines.stream.segments import Segments
from pipelines.stream.shelves import Shelf, Theirs
from serving.online_store import OnlineStore

PLAYBACK, VIEWER = "silver.playback", "viewer_token"
SESSIONS = "playback_sessions"
"""The online store's group of sessions, by profile."""

_UNIT, _ROUND = "_unit", "_round"  # of two rows of a playback the one that was made later holds


@dataclass
class Finishing:
    """The playbacks of the people of one actor. `told_ms`: what was over by then has been told; `mine`: which of some
    viewers are the actor's.
    """

    shelf: Shelf
    store: OnlineStore
    told_ms: int
    mine: Callable[[pa.Array], pa.Array]
    sessions: Segments = field(init=False)  # by viewer
    _due_ms: dict[int, int] = field(default_factory=dict)  # of units that something may still come of
    _told_ms: dict[int, int] = field(default_factory=dict)  # of units: where that is not `told_ms`
    _stopped: set[int] = field(default_factory=set)  # units of which a playback has stopped
    _round: int = 0

    def __post_init__(self) -> None:
        self._nothing = finished_playbacks(self.shelf.schema(PLAYBACK).empty_table())
        told = [one for one in self._nothing.schema if one.name not in ("playback", "over_at")]
        kept = [*told, pa.field(_UNIT, pa.uint64()), pa.field(_ROUND, pa.int64())]
        self.sessions = Segments(pa.schema(kept), _newest)
        rows = self.shelf.rows[PLAYBACK].rows
        keys = self.shelf.keys_of(PLAYBACK, rows)
        self._expect(keys, rows)
        self._keep(self._over(np.unique(keys), self.told_ms))
        # Whoever is online from an earlier run, and may have said no since, is written, or taken away.
        self._put(self.mine(pa.array(list(self.store.keys(SESSIONS)), pa.string())))

    def note(self, rows: pa.Table) -> None:
        """Hear of events that have come on the shelf, in any order."""
        rows = rows.filter(pa.array(milliseconds(rows[EVENT_TIME]) >= self.shelf.since_ms))
        keys = self.shelf.keys_of(PLAYBACK, rows)
        self._expect(keys, rows)
        times_ms = milliseconds(rows[EVENT_TIME])
        is_late = times_ms <= self.told_ms
        for unit, at_ms in zip(keys[is_late].tolist(), times_ms[is_late].tolist(), strict=True):
            self._told_ms[unit] = min(at_ms - 1, self._told_ms.get(unit, self.told_ms))

    def finish(self, until_ms: int) -> pa.Table:
        """The versions that are over by `until_ms` and were not told yet; the sessions are online then."""
        due = [unit for unit, at_ms in self._due_ms.items() if at_ms <= until_ms]
        units = np.array(sorted(due), np.uint64)
        if not len(units):
            self.told_ms = max(until_ms, self.told_ms)
            return self._nothing
        versions = self._over(units, until_ms)
        told_ms = np.array([self._told_ms.get(unit, self.told_ms) for unit in versions[_UNIT].to_pylist()], np.int64)
        news = versions.filter(pa.array(milliseconds(versions["over_at"]) > told_ms))
        self._keep(versions)
        self.told_ms = max(until_ms, self.told_ms)
        for unit in due:
            self._told_ms.pop(unit, None)
        return news.drop_columns([_UNIT, _ROUND])

    def advance(self) -> None:
        """Take offline what was before the shelf's time, which has moved on."""
        self._stopped &= set(self.shelf.keys_of(PLAYBACK, self.shelf.rows[PLAYBACK].rows).tolist())
        before = self.sessions.rows
        self.sessions.keep(lambda _, rows: self._is_recent(rows))
        self._put(before.filter(pa.array(~self._is_recent(before)))[VIEWER])

    def forget(self, is_theirs: Theirs) -> None:
        """Take offline what is of some people, and keep nothing of it; the shelf has forgotten them already."""
        gone = self.sessions.rows
        gone = gone.filter(pa.array(is_theirs(gone)))
        self.sessions.keep(lambda _, rows: ~is_theirs(rows))
        self._put(gone[VIEWER])

    def _expect(self, keys: Hashes, rows: pa.Table) -> None:
        """When a version that has some of these events can be over, at the earliest."""
        is_stop = np.asarray(pc.equal(rows[EVENT_NAME], STOPPED))
        is_after = np.array([unit in self._stopped for unit in keys.tolist()], np.bool_)
        patience_ms = np.where(is_stop | is_after, STOPPED_MS, IDLE_MS)
        due_ms = milliseconds(rows[EVENT_TIME]) + patience_ms
        order = np.lexsort((due_ms, keys))
        units, firsts = np.unique(keys[order], return_index=True)
        for unit, at_ms in zip(units.tolist(), due_ms[order][firsts].tolist(), strict=True):
            self._due_ms[unit] = min(at_ms, self._due_ms.get(unit, at_ms))

    def _over(self, units: Hashes, until_ms: int) -> pa.Table:
        """Every version of some units' playbacks that is over; of the others it is noted when they may be."""
        for unit in units.tolist():
            self._due_ms.pop(unit, None)
        _, rows = self.shelf.rows[PLAYBACK].take(units)
        versions = finished_playbacks(rows)
        keys, over_ms = self.shelf.keys_of(PLAYBACK, versions), milliseconds(versions["over_at"])
        is_over = over_ms <= until_ms
        for unit, at_ms in zip(keys[~is_over].tolist(), over_ms[~is_over].tolist(), strict=True):
            self._due_ms[unit] = min(at_ms, self._due_ms.get(unit, at_ms))
        self._stopped.update(keys[np.asarray(versions["is_ended"])].tolist())
        self._round += 1
        over = versions.append_column(_UNIT, pa.array(keys))
        return over.append_column(_ROUND, pa.array(np.full(len(keys), self._round))).filter(pa.array(is_over))

    def _keep(self, versions: pa.Table) -> None:
        """Have the sessions of some units in the place of what they were, and online."""
        newest = pl.DataFrame(versions).filter(pl.col("over_at") == pl.col("over_at").max().over("playback"))
        schema = self.sessions.rows.schema
        sessions = newest.select(schema.names).to_arrow().cast(schema)
        sessions = sessions.filter(pa.array(self._is_recent(sessions)))
        self.sessions.append(hashes(sessions[VIEWER]), sessions)
        self._put(sessions[VIEWER])

    def _put(self, viewers: pa.Array | pa.ChunkedArray) -> None:
        """Write what there is of some viewers to the online store, or take it away."""
        names = flat(viewers).drop_null().unique()
        _, rows = self.sessions.take(np.unique(hashes(names)))
        _, rows = _newest(rows)
        found = pl.DataFrame(rows).drop(_UNIT, _ROUND).sort("first_event_at", "content_id")
        values = {
            name: json.dumps({"sessions": part.to_dicts()}, default=str).encode()
            for (name,), part in found.partition_by(VIEWER, as_dict=True).items()
        }
        self.store.put_many(SESSIONS, values.items())
        self.store.delete_many(SESSIONS, [name for name in names.to_pylist() if name not in values])

    def _is_recent(self, sessions: pa.Table) -> Flags:
        recent: Flags = milliseconds(sessions["last_event_at"]) >= self.shelf.since_ms
        return recent


def _newest(sessions: pa.Table) -> tuple[Hashes, pa.Table]:
    """Of each unit the rows that were made last, with their keys."""
    frame = pl.DataFrame(sessions).filter(pl.col(_ROUND) == pl.col(_ROUND).max().over(_UNIT))
    newest = frame.to_arrow().cast(sessions.schema)
    return hashes(newest[VIEWER]), newest
