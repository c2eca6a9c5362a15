"""How one playback goes: start, interest, stalls that make the viewer leave, pauses, seeks, bitrates, end.

Time inside a playback is `elapsed`: milliseconds of picture shown, without stalls and pauses. Whatever ends it
(interest, a stall, an error, an outage, a kids' time limit) is a time on that axis, and the earliest wins. Stalls
arrive as a Poisson process; each makes the viewer leave with the chance `impatience`. So the one that does arrives at
an exponential time of rate `stalls x impatience`, and those lived through before it are Poisson of rate
`stalls x (1 - impatience)`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.choice import LIVE, VOD, Choice, affinity
from pipelines.simulator.columns import Columns, take
from pipelines.simulator.config import DAY_MS, HOUR_MS
from pipelines.simulator.network import DAY_HOURS, ROUTING_SHARES, Quality
from pipelines.simulator.platform import CONNECTION_SPEED, CONNECTION_STALLS, Platform
from pipelines.simulator.state import ViewerState, taste_shares

LADDER_KBPS = (400, 900, 1_800, 3_200, 5_000, 8_000, 15_000)
RESOLUTIONS = ("240p", "360p", "480p", "720p", "1080p", "1080p", "2160p")
STOP_REASONS = ("user", "end_of_content", "error", "session_limit")
ERRORS = ("drm", "network", "decode", "manifest")
SEEK_METHODS = ("scrub", "chapter", "skip_intro")
STALL, PAUSE = 0, 1
BY_USER, AT_END, BY_ERROR, BY_LIMIT = range(4)
MANIFEST = ERRORS.index("manifest")
NEVER = np.iinfo(np.int64).max // 4

FINISHED_SHARE = 0.9
KIDS_LIMIT_MS = 2 * HOUR_MS

_PROGRAMME_MS = np.array([30, 60, 90]) * 60_000
_START_FAILURE_SHARE = 0.004
_HOURS_BETWEEN_ERRORS = 60
_INTRO_MS = 60_000
_MAX_PAUSE_MS = 600_000
_MAX_STALL_MS = 60_000


@dataclass
class Played:
    """What a round of playbacks was like.

    `playbacks`: one row each. `interruptions` (stalls and pauses) and `switches` (of bitrate) refer to their playback
    by its row in `row` and lie at `elapsed_ms`.
    """

    playbacks: Columns
    interruptions: Columns
    switches: Columns


def play(
    platform: Platform,
    state: ViewerState,
    quality: Quality,
    midnight_ms: int,
    choice: Choice,
    viewer: NDArray[np.int64],
    session: NDArray[np.int64],
    session_start_ms: NDArray[np.int64],
    random: np.random.Generator,
) -> Played:
    """Play what was chosen; all arrays have one row per playback."""
    playbacks = _start(platform, quality, midnight_ms, choice, viewer, session, random)
    stalls_per_ms = playbacks["stalls_per_hour"] / HOUR_MS
    impatience = platform.viewers.impatience[viewer]
    interest_ms = _interest(platform, state, playbacks, random)
    _seek(platform, playbacks, interest_ms, random)
    _end(platform, playbacks, interest_ms, stalls_per_ms * impatience, session_start_ms, random)
    interruptions = _interruptions(playbacks, stalls_per_ms * (1 - impatience), random)
    waited = np.bincount(interruptions["row"], weights=interruptions["duration_ms"], minlength=len(viewer))
    stalled = np.where(interruptions["kind"] == STALL, interruptions["duration_ms"], 0)
    playbacks["stalled_ms"] = np.bincount(interruptions["row"], weights=stalled, minlength=len(viewer)).astype(np.int64)
    playbacks["stopped_ms"] = playbacks["started_ms"] + playbacks["watched_ms"] + waited.astype(np.int64)
    return Played(playbacks, interruptions, _switches(playbacks, random))


def position_ms(playbacks: Columns, row: NDArray[np.int64], elapsed_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the content a playback is after so much picture: its start, and what its seek jumped over."""
    jumped = np.where(elapsed_ms > playbacks["seek_at_ms"][row], playbacks["seek_jump_ms"][row], 0)
    return playbacks["start_position_ms"][row] + elapsed_ms + jumped


def _start(
    platform: Platform,
    quality: Quality,
    midnight_ms: int,
    choice: Choice,
    viewer: NDArray[np.int64],
    session: NDArray[np.int64],
    random: np.random.Generator,
) -> Columns:
    """From pressing play to the first frame: CDN, bitrate, delay; or the failure or impatience that prevents it."""
    rows = len(viewer)
    live = choice.content_type != VOD
    programme_ms = random.choice(_PROGRAMME_MS, rows)
    joined = np.where(choice.content_type == LIVE, random.random(rows), 0.0)
    cdn = np.searchsorted(np.cumsum(ROUTING_SHARES)[:-1], random.random(rows), side="right")
    region = platform.viewer_market[viewer]
    hour = np.minimum((choice.requested_ms - midnight_ms) // HOUR_MS, DAY_HOURS - 1)
    where = (cdn, region, hour)
    connection = platform.viewers.connection[viewer]
    throughput = quality.throughput_kbps[where] * CONNECTION_SPEED[connection] * random.lognormal(0.0, 0.35, rows)
    level = np.maximum(np.searchsorted(LADDER_KBPS, 0.8 * throughput, side="right") - 1, 0)
    delay_ms = np.minimum(quality.start_ms[where] * random.lognormal(0.0, 0.45, rows), 30_000).astype(np.int64)
    fails = (random.random(rows) < _START_FAILURE_SHARE) | (_outage(platform, choice.content, choice.requested_ms) == 0)
    gives_up = ~fails & (random.random(rows) < np.clip((delay_ms - 3_000) / 15_000, 0, 0.9))
    return {
        "viewer": viewer,
        "session": session,
        "content": choice.content,
        "content_type": choice.content_type,
        "referrer": choice.referrer,
        "requested_ms": choice.requested_ms,
        "start_delay_ms": delay_ms,
        "started_ms": choice.requested_ms + delay_ms,
        "started": ~(fails | gives_up),
        "fails_to_start": fails,
        "start_position_ms": np.where(live, joined * 0.8 * programme_ms, choice.start_position_ms).astype(np.int64),
        "total_ms": np.where(live, programme_ms, platform.catalogue.runtime_ms[choice.content]),
        "cdn": cdn,
        "stalls_per_hour": quality.stalls_per_hour[where] * CONNECTION_STALLS[connection],
        "level": level,
        "initial_level": np.maximum(level - random.integers(0, 3, rows), 0),
        "error": random.integers(0, len(ERRORS) - 1, rows),
    }


def _interest(
    platform: Platform, state: ViewerState, playbacks: Columns, random: np.random.Generator
) -> NDArray[np.int64]:
    """Elapsed time after which the viewer has seen enough: all that is left, the likelier the closer to the tastes."""
    viewer = playbacks["viewer"]
    match = affinity(taste_shares(state.tastes[viewer]), platform.catalogue.genre_shares[playbacks["content"]])
    left_ms = playbacks["total_ms"] - playbacks["start_position_ms"]
    stays = random.random(len(viewer)) < 1 / (1 + np.exp(-(0.6 + 0.9 * np.log(12 * match))))
    return np.where(stays, left_ms, left_ms * random.beta(1.1, 2.5, len(viewer))).astype(np.int64)


def _seek(platform: Platform, playbacks: Columns, interest_ms: NDArray[np.int64], random: np.random.Generator) -> None:
    """At most one seek each, forward: past an episode's intro, or in a film. Shrinks interest to what is left."""
    rows = len(interest_ms)
    episode = platform.catalogue.episode[playbacks["content"]] > 0
    skips = episode & (playbacks["start_position_ms"] == 0) & (random.random(rows) < 0.5)
    jumps = ~episode & (playbacks["content_type"] != LIVE) & (random.random(rows) < 0.1)
    at_ms = np.where(skips, random.integers(5_000, 30_000, rows), (random.random(rows) * interest_ms).astype(np.int64))
    jump_ms = np.where(skips, _INTRO_MS, random.integers(30_000, 300_000, rows))
    left_ms = playbacks["total_ms"] - playbacks["start_position_ms"]
    seeks = (skips | jumps) & (at_ms + jump_ms + 60_000 < left_ms) & (at_ms + 1_000 < interest_ms)
    playbacks["seek_at_ms"] = np.where(seeks, at_ms, NEVER)
    playbacks["seek_jump_ms"] = np.where(seeks, jump_ms, 0)
    playbacks["seek_method"] = np.where(skips, 2, random.integers(0, 2, rows))
    np.minimum(interest_ms, left_ms - playbacks["seek_jump_ms"], out=interest_ms)


def _end(
    platform: Platform,
    playbacks: Columns,
    interest_ms: NDArray[np.int64],
    leaving_rate: NDArray[np.float64],
    session_start_ms: NDArray[np.int64],
    random: np.random.Generator,
) -> None:
    """Find what ends each playback first, and when on its own axis."""
    rows = len(interest_ms)
    limit_ms = session_start_ms + KIDS_LIMIT_MS - playbacks["started_ms"]
    ends = np.stack(
        [
            interest_ms,
            random.exponential(1 / leaving_rate),
            random.exponential(_HOURS_BETWEEN_ERRORS * HOUR_MS, rows),
            _outage(platform, playbacks["content"], playbacks["started_ms"]),
            np.where(platform.viewers.is_kids[playbacks["viewer"]], limit_ms, NEVER),
        ]
    )
    cause = np.argmin(ends, axis=0)
    watched_ms = np.maximum(ends.min(axis=0).astype(np.int64), 1_000)
    left_ms = playbacks["total_ms"] - playbacks["start_position_ms"] - playbacks["seek_jump_ms"]
    at_end = (cause == 0) & (watched_ms >= left_ms)
    playbacks["error"] = np.where(cause == 3, MANIFEST, playbacks["error"])
    playbacks["watched_ms"] = np.where(playbacks["started"], watched_ms, 0)
    playbacks["left_by_stall"] = playbacks["started"] & (cause == 1)
    playbacks["stop_reason"] = np.select(
        [at_end, (cause == 2) | (cause == 3), cause == 4], [AT_END, BY_ERROR, BY_LIMIT], BY_USER
    )
    seek_came = playbacks["seek_at_ms"] < playbacks["watched_ms"]
    playbacks["seek_at_ms"] = np.where(seek_came, playbacks["seek_at_ms"], NEVER)
    position = position_ms(playbacks, np.arange(rows), playbacks["watched_ms"])
    playbacks["stop_position_ms"] = np.minimum(position, playbacks["total_ms"])
    playbacks["finished"] = playbacks["started"] & (position >= FINISHED_SHARE * playbacks["total_ms"])


def _outage(platform: Platform, content: NDArray[np.int32], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Milliseconds until the content's next outage: 0 during one, `NEVER` if none comes within a day."""
    until = np.full(len(content), NEVER)
    for anomaly in platform.network.anomalies:
        if anomaly.content_id is None:
            continue
        concerned = content == platform.catalogue.content_ids.index(anomaly.content_id)
        coming = concerned & (at_ms < anomaly.end_ms) & (at_ms > anomaly.start_ms - DAY_MS)
        until = np.where(coming, np.minimum(until, np.maximum(anomaly.start_ms - at_ms, 0)), until)
    return until


def _interruptions(playbacks: Columns, survived_rate: NDArray[np.float64], random: np.random.Generator) -> Columns:
    """Stalls lived through, the stall that ended it (at the very end), and pauses; sorted by playback and time."""
    watched_ms = playbacks["watched_ms"]
    stalls = random.poisson(survived_rate * watched_ms)
    pauses = random.poisson(watched_ms * (0.25 / (30 * 60_000)))
    last = np.flatnonzero(playbacks["left_by_stall"])
    row = np.concatenate((_each(stalls), last, _each(pauses)))
    kind = np.repeat([STALL, PAUSE], [stalls.sum() + len(last), pauses.sum()])
    elapsed_ms = (random.random(len(row)) * watched_ms[row]).astype(np.int64)
    leaves = np.zeros(len(row), dtype=bool)
    leaves[stalls.sum() : stalls.sum() + len(last)] = True
    elapsed_ms[leaves] = watched_ms[last]
    stall_ms = np.clip(random.lognormal(np.log(2_000), 0.7, len(row)) * np.where(leaves, 2, 1), 200, _MAX_STALL_MS)
    pause_ms = np.clip(random.lognormal(np.log(90_000), 0.9, len(row)), 2_000, _MAX_PAUSE_MS)
    order = np.lexsort((elapsed_ms, row))
    duration_ms = np.where(kind == STALL, stall_ms, pause_ms).astype(np.int64)
    return take({"row": row, "kind": kind, "elapsed_ms": elapsed_ms, "duration_ms": duration_ms}, order)


def _switches(playbacks: Columns, random: np.random.Generator) -> Columns:
    """Bitrate switches: up to the sustainable level after a cautious start, then down by one and back in turn.

    `from_level` and `to_level` index the ladder; sorted by playback and time.
    """
    watched_ms, level, initial = playbacks["watched_ms"], playbacks["level"], playbacks["initial_level"]
    climb_ms = random.integers(8_000, 20_000, len(watched_ms))
    climbs = np.flatnonzero((initial < level) & (climb_ms < watched_ms))
    dips = np.where(level > 0, random.poisson(watched_ms * (1.2 / HOUR_MS)), 0)
    dip_row = _each(dips)
    dip_ms = 20_000 + (random.random(len(dip_row)) * watched_ms[dip_row]).astype(np.int64)
    inside = dip_ms < watched_ms[dip_row]
    dip_row, dip_ms = dip_row[inside], dip_ms[inside]
    order = np.lexsort((dip_ms, dip_row))
    dip_row, dip_ms = dip_row[order], dip_ms[order]
    ordinal = np.arange(len(dip_row)) - np.searchsorted(dip_row, dip_row)
    down = ordinal % 2 == 0
    top, below = level[dip_row], np.maximum(level[dip_row] - 1, 0)
    by_user = np.zeros(len(dip_row), dtype=np.int8)
    by_user[down] = random.random(int(down.sum())) < 0.1
    columns = {
        "row": np.concatenate((climbs, dip_row)),
        "elapsed_ms": np.concatenate((climb_ms[climbs], dip_ms)),
        "from_level": np.concatenate((initial[climbs], np.where(down, top, below))),
        "to_level": np.concatenate((level[climbs], np.where(down, below, top))),
        "by_user": np.concatenate((np.zeros(len(climbs), dtype=np.int8), by_user)),
    }
    return take(columns, np.lexsort((columns["elapsed_ms"], columns["row"])))


def _each(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row numbers, each as often as its count."""
    return np.repeat(np.arange(len(counts)), counts)
