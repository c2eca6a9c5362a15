"""From what happened to what clients report: for each event name its columns, still as numbers and codes."""

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.behaviour import DayActivity
from pipelines.simulator.columns import Columns, take
from pipelines.simulator.platform import DEVICES, Platform
from pipelines.simulator.play import BY_ERROR, PAUSE, STALL, position_ms

_ELAPSED_BITS = 26
"""A playback's elapsed time is under 2^26 ms (18 hours), so (row, elapsed) fits one sortable number."""


def client_events(
    platform: Platform, activity: DayActivity, heartbeat_ms: int, random: np.random.Generator
) -> dict[str, Columns]:
    """Columns per event name, each with `viewer`, `session`, `true_ms` (when it happened) and the event's own."""
    clock = _PlayClock(activity)
    return (
        _navigation(platform, activity, clock) | _browsing(activity) | _playback(activity, clock, heartbeat_ms, random)
    )


class _PlayClock:
    """Converts elapsed play time to time of day: waits (stalls and pauses) stretch it."""

    def __init__(self, activity: DayActivity) -> None:
        self._playbacks = activity.playbacks
        waits = activity.interruptions
        rows = np.arange(len(self._playbacks["viewer"]))
        self._keys = _key(waits["row"], waits["elapsed_ms"])
        self._waited = np.concatenate(([0], np.cumsum(waits["duration_ms"])))
        self._first = np.searchsorted(self._keys, _key(rows, 0))
        self.wait_start_ms: NDArray[np.int64] = (
            self._playbacks["started_ms"][waits["row"]]
            + waits["elapsed_ms"]
            + self._waited[:-1]
            - self._waited[self._first[waits["row"]]]
        )

    def time_ms(self, row: NDArray[np.int64], elapsed_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """When so much picture of a playback had been shown, before any wait at that very point."""
        before = np.searchsorted(self._keys, _key(row, elapsed_ms))
        waited = self._waited[before] - self._waited[self._first[row]]
        time_ms: NDArray[np.int64] = self._playbacks["started_ms"][row] + elapsed_ms + waited
        return time_ms


def _key(row: NDArray[np.int64], elapsed_ms: NDArray[np.int64] | int) -> NDArray[np.int64]:
    return (row << _ELAPSED_BITS) + elapsed_ms


def _navigation(platform: Platform, activity: DayActivity, clock: _PlayClock) -> dict[str, Columns]:
    """Launch; to the background at the end, and on mobile devices also during a pause of over half a minute."""
    sessions = activity.sessions
    launch = take(sessions, slice(None)) | {"true_ms": sessions["start_ms"] + sessions["launch_ms"]}
    waits, playbacks = activity.interruptions, activity.playbacks
    is_mobile = np.array([device.is_mobile for device in DEVICES])[platform.viewers.device]
    leaves_app = (
        (waits["kind"] == PAUSE) & (waits["duration_ms"] > 30_000) & is_mobile[playbacks["viewer"][waits["row"]]]
    )
    row, away_ms = waits["row"][leaves_app], clock.wait_start_ms[leaves_app] + 2_000
    back_ms = away_ms + waits["duration_ms"][leaves_app] - 3_000
    who = {"viewer": playbacks["viewer"][row], "session": playbacks["session"][row]}
    begun_ms = sessions["start_ms"][np.argsort(sessions["session"])][who["session"] - sessions["session"].min()]
    background = {
        "viewer": np.concatenate((sessions["viewer"], who["viewer"])),
        "session": np.concatenate((sessions["session"], who["session"])),
        "true_ms": np.concatenate((sessions["end_ms"], away_ms)),
        "session_duration_ms": np.concatenate((sessions["end_ms"] - sessions["start_ms"], away_ms - begun_ms)),
        "screen": np.concatenate((sessions["screen"], np.ones(len(row), dtype=np.int8))),
    }
    foreground = who | {"true_ms": back_ms, "background_duration_ms": back_ms - away_ms}
    names = ("viewer", "session", "true_ms", "launch_type", "launch_ms")
    return {
        "app.launch": {name: launch[name] for name in names},
        "app.background": background,
        "app.foreground": foreground,
    }


def _browsing(activity: DayActivity) -> dict[str, Columns]:
    return {"tile.impression": activity.impressions, "tile.click": activity.clicks}


def _playback(
    activity: DayActivity, clock: _PlayClock, heartbeat_ms: int, random: np.random.Generator
) -> dict[str, Columns]:
    playbacks, waits = activity.playbacks, activity.interruptions
    started = np.flatnonzero(playbacks["started"])
    return {
        "playback.requested": _of(playbacks, slice(None), playbacks["requested_ms"], "referrer"),
        "playback.started": _of(
            playbacks, started, playbacks["started_ms"][started], "start_delay_ms", "initial_level", "cdn"
        ),
        "playback.heartbeat": _heartbeats(activity, clock, heartbeat_ms, random),
        "playback.paused": _waits(activity, clock, waits["kind"] == PAUSE, at_end=False),
        "playback.resumed": _waits(activity, clock, waits["kind"] == PAUSE, at_end=True),
        "playback.seeked": _seeks(activity, clock),
        "playback.quality_changed": _switches(activity, clock),
        "playback.rebuffer": _waits(activity, clock, waits["kind"] == STALL, at_end=True),
        "playback.error": _errors(playbacks),
        "playback.stopped": _stops(playbacks, started),
    }


def _of(playbacks: Columns, row: NDArray[np.int64] | slice, true_ms: NDArray[np.int64], *names: str) -> Columns:
    """What every playback event has, and some more columns of its playback."""
    common = ("viewer", "session", "content", "content_type", "number")
    return {name: playbacks[name][row] for name in (*common, *names)} | {"true_ms": true_ms}


def _heartbeats(activity: DayActivity, clock: _PlayClock, heartbeat_ms: int, random: np.random.Generator) -> Columns:
    """One for every full interval of picture shown, short of the end."""
    playbacks = activity.playbacks
    beats = np.maximum(playbacks["watched_ms"] - 1, 0) // heartbeat_ms
    row = np.repeat(np.arange(len(beats)), beats)
    ordinal = np.arange(len(row)) - np.repeat(np.cumsum(beats) - beats, beats) + 1
    elapsed_ms = ordinal * heartbeat_ms
    return _of(playbacks, row, clock.time_ms(row, elapsed_ms), "cdn") | {
        "position_ms": position_ms(playbacks, row, elapsed_ms),
        "level": _level(activity, row, elapsed_ms),
        "buffer_length_ms": random.integers(4_000, 30_000, len(row)),
        "dropped_frames": np.maximum(random.integers(-40, 6, len(row)), 0),
    }


def _level(activity: DayActivity, row: NDArray[np.int64], elapsed_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rung of the bitrate ladder in use at that point of the playback: the last switch's, else the initial one."""
    switches = activity.switches
    last = np.searchsorted(_key(switches["row"], switches["elapsed_ms"]), _key(row, elapsed_ms), side="right") - 1
    if not len(switches["row"]):
        return activity.playbacks["initial_level"][row]
    switched = (last >= 0) & (switches["row"][last] == row)
    return np.where(switched, switches["to_level"][last], activity.playbacks["initial_level"][row])


def _waits(activity: DayActivity, clock: _PlayClock, rows: NDArray[np.bool_], at_end: bool) -> Columns:
    """Stalls or pauses, reported when they begin or when they are over."""
    playbacks, waits = activity.playbacks, take(activity.interruptions, rows)
    at_ms = clock.wait_start_ms[rows] + (waits["duration_ms"] if at_end else 0)
    return _of(playbacks, waits["row"], at_ms) | {
        "position_ms": position_ms(playbacks, waits["row"], waits["elapsed_ms"]),
        "duration_ms": waits["duration_ms"],
        "level": _level(activity, waits["row"], waits["elapsed_ms"]),
    }


def _seeks(activity: DayActivity, clock: _PlayClock) -> Columns:
    playbacks = activity.playbacks
    row = np.flatnonzero(playbacks["started"] & (playbacks["seek_at_ms"] < playbacks["watched_ms"]))
    at_ms = playbacks["seek_at_ms"][row]
    from_ms = position_ms(playbacks, row, at_ms)
    return _of(playbacks, row, clock.time_ms(row, at_ms), "seek_method") | {
        "from_position_ms": from_ms,
        "to_position_ms": from_ms + playbacks["seek_jump_ms"][row],
    }


def _switches(activity: DayActivity, clock: _PlayClock) -> Columns:
    switches = activity.switches
    true_ms = clock.time_ms(switches["row"], switches["elapsed_ms"])
    names = ("from_level", "to_level", "by_user")
    return _of(activity.playbacks, switches["row"], true_ms) | {name: switches[name] for name in names}


def _errors(playbacks: Columns) -> Columns:
    """Failures to start, and errors that end a running playback (just before it reports its stop)."""
    ended = playbacks["started"] & (playbacks["stop_reason"] == BY_ERROR)
    row = np.flatnonzero(playbacks["fails_to_start"] | ended)
    true_ms = np.where(ended[row], playbacks["stopped_ms"][row] - 1, playbacks["started_ms"][row])
    position = np.where(ended, playbacks["stop_position_ms"], playbacks["start_position_ms"])
    return _of(playbacks, row, true_ms) | {"error": playbacks["error"][row], "position_ms": position[row]}


def _stops(playbacks: Columns, row: NDArray[np.int64]) -> Columns:
    position = playbacks["stop_position_ms"][row]
    return _of(playbacks, row, playbacks["stopped_ms"][row], "total_ms", "stop_reason") | {
        "position_ms": position,
        "completion_percent": 100.0 * position / playbacks["total_ms"][row],
    }
