"""MovieLens 100K as a training set: every rating is a finished title, split by global time 80/10/10."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from tests.models.recommendation.planted import DAY_MS, write_split

LONGEST_HISTORY, LABELS_PER_ROW = 100, 100
WINDOW_MS = 90 * DAY_MS


def write_training_set(folder: Path, ratings: Path) -> None:
    """Writes the ratings in `u.data` (viewer, title, rating, seconds) as a training set into `folder`.

    A test row stands for every rating of the test period, with what its viewer had rated strictly before it.
    """
    table = np.loadtxt(ratings, dtype=np.int64)
    table = table[np.argsort(table[:, 3], kind="stable")]
    times_ms = table[:, 3] * 1000
    train_end, validation_end = (int(np.quantile(times_ms, share)) for share in (0.8, 0.9))
    watched: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for viewer, title, _, seconds in table.tolist():
        watched[viewer].append((seconds * 1000, f"movie{title}"))

    rows: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    for viewer, events in watched.items():
        times = np.array([time for time, _ in events])
        titles = [title for _, title in events]
        learnt = int((times < train_end).sum())
        for start in range(0, learnt, LABELS_PER_ROW):
            stop = min(learnt, start + LABELS_PER_ROW)
            history = titles[max(0, start - LONGEST_HISTORY) : start]
            rows["train"].append(_row(viewer, history, titles[start:stop], times[start:stop].tolist()))
        for at in range(learnt, len(events)):
            known = slice(int(np.searchsorted(times, times[at] - WINDOW_MS)), int(np.searchsorted(times, times[at])))
            split = "validation" if times[at] < validation_end else "test"
            rows[split].append(_row(viewer, titles[known][-LONGEST_HISTORY:], titles[at : at + 1], [int(times[at])]))
    row_id = 0
    for split, split_rows in rows.items():
        for row in split_rows:
            row["row_id"], row_id = row_id, row_id + 1
        write_split(folder / f"split={split}", split_rows)
    manifest = {
        "name": "movielens-100k",
        "purpose": "personalization",
        "snapshots": {},
        "seed": 0,
        "code_version": "tests",
        "features": ["user_viewing_history:recent_titles"],
        "rows": {split: len(split_rows) for split, split_rows in rows.items()},
        "excluded": {},
        "split_ms": {"train_end": train_end, "validation_end": validation_end},
        "catalogue": sorted({f"movie{title}" for title in table[:, 1]}),
        "popularity": dict(Counter(title for row in rows["train"] for title in row["label"])),  # type: ignore[attr-defined]
        "schema_hash": "0" * 64,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _row(viewer: int, history: list[str], label: list[str], times: list[int]) -> dict[str, object]:
    return {
        "profile_id": f"{viewer:064x}",
        "event_timestamp": times[0] - 1,
        "history": history,
        "label": label,
        "label_timestamps": times,
    }
