"""Volume and freshness (spec 11.1, rows 6 and 7): how much came and how long ago, from files' metadata."""

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from pipelines.lakehouse.commits import progress_of
from pipelines.quality.arrivals import HOUR_MS
from pipelines.quality.results import Check, Result, judged
from pipelines.quality.subject import LOOKBACK_MS, WEEK_MS, Platform

HOURS_NAMED = 3


def volume(platform: Platform) -> Iterator[Result]:
    """Per topic: the hour that differs most from the same hour of last week, as a share of last week's.

    Only complete hours count, and only those that have a whole week of the topic's history before them. Hours with
    fewer than `min_volume_events` in both weeks are left out: chance alone makes such counts differ. (Of a Poisson
    count n the standard deviation is the root of n; with 100, the difference of two has 14, and half of it is 50.)
    """
    settings, window = platform.settings, platform.events
    hours = range(window.start_ms, window.end_ms // HOUR_MS * HOUR_MS, HOUR_MS)
    for topic, counted in _by_topic(platform.arrived):
        rows = dict(counted.select("hour_ms", "rows").iter_rows())
        first_ms = min(rows)
        changes: list[tuple[float, int]] = []
        for hour_ms in hours:
            now, before = rows.get(hour_ms, 0), rows.get(hour_ms - WEEK_MS, 0)
            if first_ms <= hour_ms - WEEK_MS and max(now, before) >= settings.min_volume_events:
                changes.append(((now - before) / max(before, 1), hour_ms))
        changes.sort(key=lambda change: -abs(change[0]))
        worst = abs(changes[0][0]) if changes else 0.0
        far = [one for one in changes if abs(one[0]) > settings.max_volume_change]
        named = ", ".join(f"{_hour(hour_ms)} {change:+.0%}" for change, hour_ms in far[:HOURS_NAMED])
        detail = f"{len(far)} of {len(changes)} compared hours differ too much" + (f": {named}" if named else "")
        if not changes:
            detail = "no hour can be compared: a week of history and enough events are needed"
        yield Result(Check.VOLUME, topic, judged(bool(far)), worst, settings.max_volume_change, detail, window)


def freshness(platform: Platform) -> Iterator[Result]:
    """Per topic that ever had an event: seconds since its last one; silence outside production hours is no matter."""
    settings, window = platform.settings, platform.events
    newest = dict(platform.arrived.group_by("topic").agg(pl.col("last_ms").max()).iter_rows())
    silent_for_all_of_it = set(_ever_read(platform)) - set(newest)
    opens, closes = settings.production_hours
    in_production = opens <= datetime.fromtimestamp(window.end_ms / 1000, UTC).hour < closes
    for topic in sorted({*newest, *silent_for_all_of_it}):
        limit_s = settings.max_silence_minutes_by_topic.get(topic, settings.max_silence_minutes) * 60
        last_ms = newest.get(topic, window.start_ms - LOOKBACK_MS)  # as late as it can have been
        silent_s = max(0.0, (window.end_ms - last_ms) / 1000)
        detail = f"last event {_minute(newest[topic])}" if topic in newest else "no event for more than a week"
        if not in_production:
            detail += f"; outside production hours ({opens} to {closes} h UTC)"
        status = judged(in_production and silent_s > limit_s)
        yield Result(Check.FRESHNESS, topic, status, silent_s, limit_s, detail, window)


def _ever_read(platform: Platform) -> list[str]:
    offsets = progress_of(platform.bronze).get("offsets", {}) if platform.bronze is not None else {}
    return [topic for topic, partitions in offsets.items() if any(partitions.values())]


def _by_topic(arrived: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (topic,), counted in arrived.group_by("topic", maintain_order=True):
        yield str(topic), counted


def _hour(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%d %b %H} h"


def _minute(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
