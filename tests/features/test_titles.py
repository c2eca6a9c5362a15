"""Titles of which something else is said now: against asking about every instant."""

import numpy as np
import pyarrow as pa

from features.titles import titles_changed
from tests.features.oracle import title_of
from tests.features.worlds import TITLES_SCHEMA

TITLES = ["a", "b", "c"]
NEVER_MS = -(1 << 60)


def history(rng, times):
    """Rows at different times: of two at the same time, which is the later is the log's own business."""
    return [
        {"content_id": str(rng.choice(TITLES)), "content_type": [None, "vod", "live"][int(rng.integers(3))],
         "genres": [None, [], ["Drama"], ["Drama", "News"]][int(rng.integers(4))], "time": int(time)}
        for time in rng.choice(times, int(rng.integers(0, len(times))), replace=False)
    ]  # fmt: skip


def table(rows):
    return pa.Table.from_pylist([row | {"event_timestamp": row["time"]} for row in rows], schema=TITLES_SCHEMA)


def said(titles, content_id, time):
    row = title_of(titles, content_id, time)
    return None if row is None else (row["content_type"], row["genres"])


def test_changes_are_found_since_the_instant_they_show():
    rng = np.random.default_rng(51)
    seen = {"same": 0, "since ever": 0, "later": 0}
    for _ in range(400):
        before = history(rng, np.arange(0, 14, 2))
        now = [row for row in before if rng.random() < 0.9]
        now += history(rng, np.arange(1, 14, 2)) if rng.random() < 0.5 else []
        found = dict(titles_changed(table(before), table(now)).iter_rows())
        for title in TITLES:
            differs = [time for time in range(-1, 15) if said(before, title, time) != said(now, title, time)]
            if not differs:
                assert title not in found, (before, now)
                seen["same"] += 1
            elif differs[0] == -1:
                assert found[title] == NEVER_MS
                seen["since ever"] += 1
            else:
                assert found[title] == differs[0]
                seen["later"] += 1
    assert min(seen.values()) > 30, seen
