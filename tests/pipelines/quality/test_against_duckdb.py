"""The figures of a large, untidy world are those that DuckDB computes from the same rows."""

import re
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.pipelines.quality.world import END, HOUR, HOURS, MINUTE, WEEK, World, of

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
START = END - HOURS * HOUR
# One name on two topics, lists, clients and servers; client.notification's name is longer than what bounds hold.
EVENTS = (
    ("playback.started", None),
    ("recording.scheduled", "client.recording"),
    ("recording.scheduled", "recordings.events"),
    ("recommendation.response", None),
    ("notification.received", None),
)


def untidy(world: World, seed: int) -> World:
    """Repeated ids, nulls, orphans, wrong clocks and refusals, at random, over this week's hours and last week's."""
    random = np.random.default_rng(seed)
    for _ in range(900):
        name, topic = EVENTS[random.integers(len(EVENTS))]
        at_ms = END - int(random.integers(1, HOURS * HOUR + 30 * MINUTE)) - int(random.integers(2)) * WEEK
        consent = [True, True, True, False, None][random.integers(5)]
        columns: dict[str, Any] = {"event_id": f"evt_{random.integers(500)}", "consent_analytics": consent}
        if random.random() < 0.1 and name == "playback.started":
            columns["content_type"] = None
        if random.random() < 0.1 and name == "recommendation.response":
            columns["content_ids"] = None
        row = world.receive(name, at_ms, on=topic, **columns)
        if name == "playback.started":
            reliable = [True, False, None][random.integers(3)]
            content_id = f"vod-{random.integers(9)}" if random.random() < 0.9 else None
            world.clean("silver.playback", row, client_timestamp_reliable=reliable, content_id=content_id)
    world.bronze[0]["event_timestamp"] = END - 1  # the newest event, of which all hours are counted back
    for number in range(5):
        title = {"event_id": f"t{number}", "event_timestamp": END - WEEK, "content_id": f"vod-{number}"}
        world.titles.append(title | {"content_type": "live" if number == 4 else "vod"})
    return world


def rows_of(rows: list[dict[str, Any]], *columns: str) -> pa.Table:
    return pa.table({name: [row.get(name) for row in rows] for name in columns})


@pytest.mark.parametrize(("partition", "seed"), [("hour", 1), ("month", 2)])
def test_every_figure_is_duckdbs(tmp_path, partition, seed):
    world = untidy(World(tmp_path, partition), seed)
    run = world.judge()
    log = duckdb.connect()
    log.register("bronze", rows_of(world.bronze, "event_id", "event_name", "topic", "event_timestamp", "content_type"))
    lists = rows_of(world.bronze, "event_name", "event_timestamp", "content_ids")
    log.register("lists", lists)
    columns = ("event_timestamp", "consent_analytics", "content_id", "client_timestamp_reliable")
    log.register("silver", rows_of(world.silver["silver.playback"], *columns))
    log.execute(f"CREATE VIEW newest AS FROM bronze WHERE event_timestamp >= {START}")

    counted = log.execute(
        "SELECT topic, event_timestamp // 3600000 * 3600000, count(*) FROM newest GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert run.arrived.filter(run.arrived["hour_ms"] >= START).select("topic", "hour_ms", "rows").rows() == counted

    for topic, silent_s in log.execute(
        f"SELECT topic, ({END} - max(event_timestamp)) / 1000 FROM newest GROUP BY topic"
    ).fetchall():
        assert of(run, "freshness", topic).observed == pytest.approx(silent_s)

    changes = log.execute(
        f"""WITH hours AS (SELECT topic, event_timestamp // 3600000 AS hour, count(*) AS n FROM bronze GROUP BY ALL),
        pairs AS (SELECT now.topic, abs(now.n - before.n) / before.n AS change FROM hours now JOIN hours before
          ON now.topic = before.topic AND now.hour = before.hour + 168
          WHERE greatest(now.n, before.n) >= 5 AND now.hour >= {START // HOUR})
        SELECT topic, max(change) FROM pairs GROUP BY topic"""
    ).fetchall()
    assert len(changes) == 5
    for topic, change in changes:
        assert of(run, "volume", topic).observed == pytest.approx(change)

    repeats = log.execute(
        """WITH ordered AS (SELECT topic, event_timestamp - lag(event_timestamp)
          OVER (PARTITION BY event_id ORDER BY event_timestamp, topic) AS gap FROM newest)
        SELECT count(*) FILTER (gap <= 3600000), count(*) FILTER (gap > 3600000) FROM ordered"""
    ).fetchone()
    found = [re.findall(r"\d+", of(run, "duplicates", topic).detail) for topic, _ in changes]
    assert repeats == (sum(int(close) for close, _, _ in found), sum(int(older) for _, _, older in found))
    assert min(repeats) > 0

    for name, column, source in (
        ("playback.started", "content_type", "bronze"),
        ("recommendation.response", "content_ids", "lists"),
    ):
        (share,) = log.execute(
            f"""SELECT avg(({column} IS NULL)::INT) FROM {source}
            WHERE event_name = '{name}' AND event_timestamp >= {START}"""
        ).fetchone() or (None,)
        assert share is not None
        assert share > 0
        assert of(run, "missing_fields", name).observed == pytest.approx(share)

    unreliable, orphans = log.execute(
        f"""SELECT avg((NOT client_timestamp_reliable)::INT),
          avg((content_id NOT IN ('vod-0', 'vod-1', 'vod-2', 'vod-3', 'vod-4'))::INT)
        FROM silver WHERE consent_analytics AND event_timestamp >= {START}"""
    ).fetchone() or (None, None)
    assert of(run, "timestamps", "silver.playback").observed == pytest.approx(unreliable)
    assert of(run, "references", "silver.playback.content_id").observed == pytest.approx(orphans)
