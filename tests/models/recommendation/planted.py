"""A training set whose best possible recommender is known: viewers who mostly follow a hidden order of the titles.

Every title has one successor. A viewer's next title is the successor of the last one with probability `FOLLOWED`
(if it is unseen), else any unseen title, all alike. So the best anyone can do is to rank the successor first and
the rest in any order, and what that scores is known exactly. Popularity knows next to nothing.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FOLLOWED = 0.9
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
TIMESTAMP = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True)
class Planted:
    """The world behind a training set."""

    folder: Path
    successor: dict[str, str]
    best_ndcg_at_10: float
    """What the best possible recommender is expected to score on the test rows."""


def write_training_set(
    folder: Path, *, viewers: int = 200, titles: int = 60, length: int = 30, seed: int = 1, start_ms: int = START_MS
) -> Planted:
    """Writes a training set in the format of `pipelines/training_set.py` into `folder`."""
    random = np.random.default_rng(seed)
    names = [f"title{number:03d}" for number in range(titles)]
    circle = np.random.default_rng(1).permutation(titles)  # one world, whatever the seed of its viewers
    successor = {names[circle[at]]: names[circle[(at + 1) % titles]] for at in range(titles)}
    rows: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    train_end, validation_end = start_ms + int(0.8 * length) * DAY_MS, start_ms + int(0.9 * length) * DAY_MS
    best = []
    for viewer in range(viewers):
        watched = _walk(random, names, successor, length)
        times = [start_ms + day * DAY_MS + viewer for day in range(length)]
        in_train = sum(time < train_end for time in times)
        rows["train"].append(_row(viewer, watched[:0], watched[:in_train], times[:in_train]))
        for at in range(in_train, length):
            split = "validation" if times[at] < validation_end else "test"
            rows[split].append(_row(viewer, watched[:at], watched[at : at + 1], times[at : at + 1]))
            if split == "test":
                best.append(_best_ndcg(watched[:at], successor, titles))
    row_id = 0
    for split, split_rows in rows.items():
        for row in split_rows:
            row["row_id"], row_id = row_id, row_id + 1
        write_split(folder / f"split={split}", split_rows)
    catalogue = sorted(names)
    popularity = Counter(title for row in rows["train"] for title in row["label"])  # type: ignore[attr-defined]
    manifest = {
        "name": "recommendation",
        "purpose": "personalization",
        "snapshots": {"silver.playback": 7_001, "silver.titles": 7_002},
        "seed": seed,
        "code_version": "tests",
        "features": ["user_viewing_history:recent_titles"],
        "rows": {split: len(split_rows) for split, split_rows in rows.items()},
        "excluded": {"kids' profile": 3, "no consent": 2},
        "split_ms": {"train_end": train_end, "validation_end": validation_end},
        "catalogue": catalogue,
        "popularity": dict(popularity),
        "schema_hash": "0" * 64,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Planted(folder, successor, float(np.mean(best)))


def edit_manifest(folder: Path, **changes: object) -> None:
    """Changes keys of the training set's manifest; None takes a key away."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not None}))


def _walk(random: np.random.Generator, names: list[str], successor: dict[str, str], length: int) -> list[str]:
    watched = [names[random.integers(len(names))]]
    while len(watched) < length:
        following = successor[watched[-1]]
        if following not in watched and random.random() < FOLLOWED:
            watched.append(following)
            continue
        others = [name for name in names if name not in watched and name != following]
        watched.append(others[random.integers(len(others))])
    return watched


def _best_ndcg(history: list[str], successor: dict[str, str], titles: int) -> float:
    """Expected NDCG@10 of ranking the successor first, then the other unseen titles in any order."""
    unseen = titles - len(history)
    if successor[history[-1]] in history:
        return sum(1 / np.log2(rank + 1) for rank in range(1, 11)) / unseen
    others = sum(1 / np.log2(rank + 1) for rank in range(2, 11)) / (unseen - 1)
    return FOLLOWED + (1 - FOLLOWED) * others


def _row(viewer: int, history: list[str], label: list[str], times: list[int]) -> dict[str, object]:
    return {
        "profile_id": f"{viewer:064x}",
        "event_timestamp": times[0] - 1,
        "history": history,
        "label": label,
        "label_timestamps": times,
        "preferred_content_type": ("vod", "catchup", None)[viewer % 3],
        "completion_rate": 0.5,
        "label_daily_unique_viewers": 1.0,
    }


def write_split(folder: Path, rows: list[dict[str, object]]) -> None:
    """Writes the rows of one split, in two files, in the columns that `pipelines/training_set.py` writes."""
    schema = pa.schema(
        [
            ("row_id", pa.int64()),
            ("profile_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("history", pa.list_(pa.string())),
            ("label", pa.list_(pa.string())),
            ("label_timestamps", pa.list_(TIMESTAMP)),
            ("preferred_content_type", pa.string()),
            ("completion_rate", pa.float64()),
            ("label_daily_unique_viewers", pa.float64()),
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2 or len(rows)
    for part, some in enumerate((rows[:half], rows[half:])):
        pq.write_table(pa.Table.from_pylist(some, schema), folder / f"part-{part}.parquet")
