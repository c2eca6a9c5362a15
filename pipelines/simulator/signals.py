"""What else is reported of a day: how far rails were scrolled, searches, channels tuned to; log-ins, trouble, payments.

None of it changes what anybody does: it is read off what happened, or drawn from streams of its own.
"""

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.accounts import ConsentDay
from pipelines.simulator.behaviour import DayActivity
from pipelines.simulator.choice import LIVE
from pipelines.simulator.columns import Columns, take
from pipelines.simulator.config import DAY_MS, HOUR_MS
from pipelines.simulator.platform import Platform
from pipelines.simulator.state import NOTHING

QUERIES = ("something funny", "crime", "documentary", "new films", "football", "for the family")
LOGIN_SHARE = 0.3
"""Of cold launches: the others find a session that still holds."""
_SEARCHING_SHARE = 0.12
_CONTACT_SHARE, _CONTACT_SHARE_PER_STALL_EXIT = 0.002, 0.03
_PAYMENT_FAILS_SHARE = 0.03
_BILLING_DAYS = 28
_COLD = 0
_BY_CHANNEL_CHANGE, _BY_APP_EXIT = range(2)
TUNE_AWAY_REASONS = ("channel_change", "app_exit")
# A rail holds ten tiles; it moves when the third and the fifth come into sight.
_TILES_PER_RAIL, _SCROLLED_AT = 10, (2, 4)


def client_signals(activity: DayActivity, random: np.random.Generator) -> dict[str, Columns]:
    """Columns per event name, each with `viewer`, `session`, `true_ms` and the event's own."""
    return {"rail.scroll": _scrolls(activity), "search.query": _searches(activity, random)} | _tunes(activity)


def account_signals(
    platform: Platform, activity: DayActivity | None, active: NDArray[np.bool_], day: int, random: np.random.Generator
) -> dict[str, Columns]:
    """`viewer` (the first of the household, but of log-ins whoever it was) and `at_ms` of what services report."""
    midnight_ms = platform.config.start_ms + day * DAY_MS
    households = len(active)
    logins: Columns = {"viewer": np.empty(0, dtype=np.int64), "at_ms": np.empty(0, dtype=np.int64)}
    stall_exits = np.zeros(households, dtype=np.int64)
    if activity is not None:
        cold = take(activity.sessions, activity.sessions["launch_type"] == _COLD)
        logs_in = random.random(len(cold["viewer"])) < LOGIN_SHARE
        logins = {"viewer": cold["viewer"][logs_in], "at_ms": cold["start_ms"][logs_in]}
        household = platform.viewers.household[activity.playbacks["viewer"]]
        stall_exits = np.bincount(household[activity.playbacks["left_by_stall"]], minlength=households)
    contacts = random.random(households) < _CONTACT_SHARE + _CONTACT_SHARE_PER_STALL_EXIT * stall_exits
    is_due = np.arange(households) % _BILLING_DAYS == day % _BILLING_DAYS
    fails = random.random(households) < _PAYMENT_FAILS_SHARE
    return {
        "auth.login_succeeded": logins,
        "support.contacted": _of_households(platform, active & contacts, midnight_ms, random),
        "payment.failed": _of_households(platform, active & is_due & fails, midnight_ms, random),
    }


def consent_at(platform: Platform, consent: ConsentDay, rows: Columns) -> NDArray[np.uint8]:
    """What the household of each row allowed at its time."""
    return consent.at(platform.viewers.household[rows["viewer"]], rows["at_ms"])


def _of_households(
    platform: Platform, who: NDArray[np.bool_], midnight_ms: int, random: np.random.Generator
) -> Columns:
    """One row each, at office hours."""
    household = np.flatnonzero(who)
    viewer = np.searchsorted(platform.viewers.household, household)
    return {"viewer": viewer, "at_ms": midnight_ms + random.integers(9 * HOUR_MS, 19 * HOUR_MS, len(household))}


def _scrolls(activity: DayActivity) -> Columns:
    """A rail moves just before the tile comes into sight."""
    seen = take(activity.impressions, np.isin(activity.impressions["tile_position"], _SCROLLED_AT))
    return {
        "viewer": seen["viewer"],
        "session": seen["session"],
        "true_ms": seen["true_ms"] - 300,
        "rail": seen["rail"],
        "direction": np.zeros(len(seen["viewer"]), dtype=np.int8),
        "items": np.full(len(seen["viewer"]), 2),
        "depth_percent": 100.0 * (seen["tile_position"] + 1) / _TILES_PER_RAIL,
    }


def _searches(activity: DayActivity, random: np.random.Generator) -> Columns:
    """Some look for something right after the launch."""
    sessions = activity.sessions
    searches = take(sessions, random.random(len(sessions["viewer"])) < _SEARCHING_SHARE)
    query = random.integers(0, len(QUERIES), len(searches["viewer"]))
    return {
        "viewer": searches["viewer"],
        "session": searches["session"],
        "true_ms": searches["start_ms"] + searches["launch_ms"] + 1_000,
        "query": query,
        "query_length": np.array([len(text) for text in QUERIES])[query],
        "conversational": np.zeros(len(query), dtype=np.int8),
    }


def _tunes(activity: DayActivity) -> dict[str, Columns]:
    """Live playbacks are channels tuned to; one right after another in the same session is a change of channel."""
    playbacks = activity.playbacks
    started = take(playbacks, np.flatnonzero(playbacks["started"]))
    started = take(started, np.lexsort((started["started_ms"], started["session"])))
    is_live = started["content_type"] == LIVE
    follows = np.zeros(len(is_live), dtype=bool)
    follows[1:] = is_live[1:] & is_live[:-1] & (started["session"][1:] == started["session"][:-1])
    previous = np.where(follows, np.roll(started["content"], 1), NOTHING)
    changes = np.append(follows[1:], False)
    live = np.flatnonzero(is_live)
    who = {name: started[name][live] for name in ("viewer", "session", "content")}
    return {
        "channel.tune": who
        | {
            "true_ms": started["started_ms"][live],
            "previous": previous[live],
            "source": np.zeros(len(live), dtype=np.int8),
            "start_delay_ms": started["start_delay_ms"][live],
        },
        "channel.tune_away": who
        | {
            "true_ms": started["stopped_ms"][live],
            "view_ms": started["stopped_ms"][live] - started["started_ms"][live],
            "away_reason": np.where(changes, _BY_CHANNEL_CHANGE, _BY_APP_EXIT)[live],
        },
    }
