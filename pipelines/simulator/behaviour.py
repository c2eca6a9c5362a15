"""One day of everybody's sessions: when they open the app, what they do in it, and why they leave."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.choice import VOD, Choice, Visit, choose
from pipelines.simulator.columns import Columns, concatenate, length, take
from pipelines.simulator.config import DAY_MS, HOUR_MS
from pipelines.simulator.network import Quality
from pipelines.simulator.platform import Platform
from pipelines.simulator.play import BY_ERROR, KIDS_LIMIT_MS, Played, play
from pipelines.simulator.state import NOTHING, ViewerState

LAUNCH_TYPES = ("cold", "warm")
SCREENS = ("home", "player")

_MAX_SESSIONS = 4
_MAX_PLAYBACKS = 8
_LONGEST_MS = 4 * HOUR_MS
_LAST_START_MS = DAY_MS + HOUR_MS
_ADULT_HOURS = np.array([3, 1.5, 1, 0.5, 0.5, 0.5, 1, 2, 2, 2, 2, 2.5, 3.5, 3, 3, 3, 4, 6, 8, 11, 13, 13, 9, 5.5])
_KIDS_HOURS = np.array([0, 0, 0, 0, 0, 0, 2, 5, 4, 3, 3, 3, 4, 4, 6, 9, 12, 12, 10, 6, 1, 0, 0, 0], dtype=float)
_WEEKDAY_FACTORS = np.array([0.9, 0.9, 0.9, 0.95, 1.05, 1.2, 1.15])
_STAYS, _STAYS_AFTER_STALL, _STAYS_AFTER_ERROR = 0.55, 0.10, 0.35


@dataclass
class DayActivity:
    """Everything that truly happened in one day's sessions, which begin on that day and may end on the next.

    `sessions`: one row each (`session` numbers count on from day to day). `impressions`, `clicks`, `playbacks`,
    `interruptions`, `switches`: see `choice` and `play`; the last two refer to rows of `playbacks`.
    """

    sessions: Columns
    impressions: Columns
    clicks: Columns
    playbacks: Columns
    interruptions: Columns
    switches: Columns


@dataclass
class _Rounds:
    """What the rounds of a day have brought so far."""

    sessions: list[Columns] = field(default_factory=list)
    impressions: list[Columns] = field(default_factory=list)
    clicks: list[Columns] = field(default_factory=list)
    played: list[Played] = field(default_factory=list)

    def activity(self) -> DayActivity | None:
        """All rounds as one; `None` if nobody opened the app."""
        if not self.sessions:
            return None
        first_rows = np.cumsum([0] + [length(played.playbacks) for played in self.played])
        for played, first_row in zip(self.played, first_rows, strict=False):
            played.interruptions["row"] += first_row
            played.switches["row"] += first_row
        return DayActivity(
            sessions=concatenate(self.sessions),
            impressions=concatenate(self.impressions),
            clicks=concatenate(self.clicks),
            playbacks=concatenate([played.playbacks for played in self.played]),
            interruptions=concatenate([played.interruptions for played in self.played]),
            switches=concatenate([played.switches for played in self.played]),
        )


def live_through(
    platform: Platform,
    state: ViewerState,
    quality: Quality,
    day: int,
    eagerness: NDArray[np.float64],
    first_session: int,
    random: np.random.Generator,
) -> DayActivity | None:
    """Simulate the sessions that begin on `day`, updating `state`.

    `eagerness`: per viewer, the factor on the usual number of sessions; 0 = stays away. Sessions are numbered from
    `first_session`. A viewer's sessions never overlap, and all have ended by 07:00 UTC of the next day.
    """
    midnight_ms = platform.config.start_ms + day * DAY_MS
    starts_ms = _session_starts(platform, midnight_ms, day, eagerness, random)
    rounds = _Rounds()
    for ordinal in range(_MAX_SESSIONS):
        opens = np.flatnonzero(starts_ms[:, ordinal] < np.where(eagerness > 0, midnight_ms + DAY_MS, 0))
        opens = opens[starts_ms[opens, ordinal] >= state.busy_until_ms[opens]]
        if not len(opens):
            continue
        numbers = first_session + np.arange(len(opens))
        first_session += len(opens)
        _session(platform, state, quality, midnight_ms, opens, numbers, starts_ms[opens, ordinal], rounds, random)
    return rounds.activity()


def _session_starts(
    platform: Platform, midnight_ms: int, day: int, eagerness: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.int64]:
    """(viewers, sessions at most) start times in order; the day's end and later where there is none."""
    viewers = platform.viewers
    weekday = (platform.config.start.weekday() + day) % 7
    wanted = random.poisson(viewers.sessions_per_day * eagerness * _WEEKDAY_FACTORS[weekday])
    hours = np.where(viewers.is_kids[:, None], _KIDS_HOURS, _ADULT_HOURS)
    bounds = np.cumsum(hours, axis=1) / hours.sum(axis=1, keepdims=True)
    shape = (len(viewers), _MAX_SESSIONS)
    local = (random.random((*shape, 1)) >= bounds[:, None, :-1]).sum(axis=2)
    utc = (local - platform.viewer_utc_offset_hours[:, None]) % 24
    starts_ms = midnight_ms + utc * HOUR_MS + random.integers(0, HOUR_MS, shape)
    starts_ms[np.arange(_MAX_SESSIONS) >= wanted[:, None]] = midnight_ms + DAY_MS
    return np.sort(starts_ms, axis=1)


def _session(
    platform: Platform,
    state: ViewerState,
    quality: Quality,
    midnight_ms: int,
    viewer: NDArray[np.int64],
    numbers: NDArray[np.int64],
    start_ms: NDArray[np.int64],
    rounds: _Rounds,
    random: np.random.Generator,
) -> None:
    """Let one session of each of these viewers run from launch to the end."""
    cold = random.random(len(viewer)) < 0.6
    launch_ms = np.where(
        cold, random.lognormal(np.log(2_200), 0.3, len(viewer)), random.lognormal(6.2, 0.3, len(viewer))
    )
    left_ms = start_ms + launch_ms.astype(np.int64) + random.integers(2_000, 8_000, len(viewer))
    row_of = np.empty(len(platform.viewers), dtype=np.int64)
    row_of[viewer] = np.arange(len(viewer))
    screen = np.zeros(len(viewer), dtype=np.int8)
    visit = Visit(viewer, numbers, left_ms.copy(), np.zeros(len(viewer), dtype=bool))
    for ordinal in range(_MAX_PLAYBACKS):
        choice = choose(platform, state, visit, ordinal == 0, random)
        rounds.impressions.append(choice.impressions)
        rounds.clicks.append(choice.clicks)
        left_ms[row_of[visit.viewer]] = choice.requested_ms
        watches = choice.content != NOTHING
        visit, choice = visit.select(watches), _select(choice, watches)
        begun_ms = start_ms[row_of[visit.viewer]]
        played = play(platform, state, quality, midnight_ms, choice, visit.viewer, visit.session, begun_ms, random)
        rounds.played.append(played)
        playbacks = played.playbacks
        left_ms[row_of[visit.viewer]] = np.where(playbacks["started"], playbacks["stopped_ms"], playbacks["started_ms"])
        screen[row_of[visit.viewer]] = playbacks["left_by_stall"]
        _remember(platform, state, playbacks)
        visit = _stay(platform, visit, playbacks, begun_ms, left_ms[row_of[visit.viewer]], midnight_ms, random)
        if not len(visit):
            break
    end_ms = left_ms + random.integers(3_000, 60_000, len(viewer))
    state.busy_until_ms[viewer] = end_ms + 60_000
    rounds.sessions.append(
        {
            "viewer": viewer,
            "session": numbers,
            "start_ms": start_ms,
            "end_ms": end_ms,
            "launch_type": np.where(cold, 0, 1),
            "launch_ms": launch_ms.astype(np.int64),
            "screen": screen,
        }
    )


def _select(choice: Choice, rows: NDArray[np.bool_]) -> Choice:
    return Choice(
        content=choice.content[rows],
        content_type=choice.content_type[rows],
        referrer=choice.referrer[rows],
        start_position_ms=choice.start_position_ms[rows],
        requested_ms=choice.requested_ms[rows],
        impressions={},
        clicks={},
    )


def _remember(platform: Platform, state: ViewerState, playbacks: Columns) -> None:
    """Finished titles lead to their next episode; titles left between a twentieth and the end can be gone on with."""
    on_demand = take(playbacks, playbacks["started"] & (playbacks["content_type"] == VOD))
    viewer, content, finished = on_demand["viewer"], on_demand["content"], on_demand["finished"]
    begun = on_demand["stop_position_ms"] > 0.05 * on_demand["total_ms"]
    state.remember_finished(viewer[finished], content[finished])
    goes_on_with = np.select(
        [finished, begun], [platform.catalogue.next_episode[content], content], state.up_next[viewer]
    )
    position_ms = np.where(begun & ~finished, on_demand["stop_position_ms"], 0)
    keeps = ~finished & ~begun
    state.up_next[viewer] = goes_on_with
    state.up_next_position_ms[viewer] = np.where(keeps, state.up_next_position_ms[viewer], position_ms)


def _stay(
    platform: Platform,
    visit: Visit,
    playbacks: Columns,
    begun_ms: NDArray[np.int64],
    left_ms: NDArray[np.int64],
    midnight_ms: int,
    random: np.random.Generator,
) -> Visit:
    """Who looks for something more to watch in the same session."""
    failed = playbacks["fails_to_start"] | (playbacks["stop_reason"] == BY_ERROR)
    chance = np.select([playbacks["left_by_stall"], failed], [_STAYS_AFTER_STALL, _STAYS_AFTER_ERROR], _STAYS)
    episode_done = playbacks["finished"] & (platform.catalogue.next_episode[playbacks["content"]] != NOTHING)
    chance = np.where(episode_done, 0.85, chance)
    late = left_ms > midnight_ms + _LAST_START_MS
    over_limit = platform.viewers.is_kids[visit.viewer] & (left_ms - begun_ms > KIDS_LIMIT_MS - 60_000)
    tired = left_ms - begun_ms > _LONGEST_MS
    stays = (random.random(len(visit)) < chance) & ~late & ~over_limit & ~tired
    visit = Visit(visit.viewer, visit.session, left_ms + random.integers(2_000, 6_000, len(visit)), episode_done)
    return visit.select(stays)
