"""A training set in which the best possible order of every request is known.

Every viewer has a share of each genre. Of ten tiles one is watched, drawn by the viewer's share of the tile's genre to
the third power and by where it stands: the first tile is watched `FIRST` times as often as it would be otherwise.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.ranker.features import (
    COMPLETED_TITLES,
    CONTEXT_NUMBERS,
    RECENT_TITLES,
    SHARES,
    TITLE_NUMBERS,
    VIEWER_NUMBERS,
)
from models.ranker.training_set import TRAINING_SET

GENRES = ("crime", "drama", "family", "horror", "news", "sport")
DAY_MS, START_MS, TILES, FIRST = 86_400_000, 1_700_000_000_000, 10, 2.0
_NUMBERS = (*VIEWER_NUMBERS.values(), *TITLE_NUMBERS.values(), *CONTEXT_NUMBERS.values())
_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("profile_id", pa.string()),
        ("session_id", pa.string()),
        ("event_timestamp", pa.timestamp("ms", tz="UTC")),
        ("content_id", pa.string()),
        ("content_genres", _TEXTS),
        (RECENT_TITLES, _TEXTS),
        (COMPLETED_TITLES, _TEXTS),
        *((name, pa.map_(pa.string(), pa.float64())) for name in SHARES.values()),
        *((name, pa.float64()) for name in _NUMBERS),
        ("watched", pa.bool_()),
    ]
)


def write_training_set(folder: Path, *, viewers: int = 40, days: int = 24, seed: int = 1) -> float:
    """Writes it as `reel training-set build ranker` does; the expected NDCG@10 of the best possible order."""
    random = np.random.default_rng(seed)
    tastes = random.dirichlet(np.full(len(GENRES), 0.5), viewers)
    bounds = (START_MS + days // 2 * DAY_MS, START_MS + days * 3 // 4 * DAY_MS)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    best = []
    for day in range(days):
        for viewer in range(viewers):
            at_ms = START_MS + day * DAY_MS + viewer * 60_000
            split = ("train", "validation", "test")[sum(at_ms >= bound for bound in bounds)]
            titles = random.choice(120, TILES, replace=False)
            chances = (tastes[viewer, titles % len(GENRES)] + 1e-3) ** 3
            shown = chances * np.where(np.arange(TILES) == 0, FIRST, 1.0)
            watched = random.choice(TILES, p=shown / shown.sum())
            if split == "test":
                places = np.argsort(np.argsort(-chances, kind="stable"))
                best.append(1 / np.log2(places[watched] + 2))
            rows[split] += [
                _row(viewer, day, at_ms + place * 1_500, int(title), tastes[viewer], place == watched)
                for place, title in enumerate(titles)
            ]
    row_id = 0
    for split, some in rows.items():
        for row in some:
            row["row_id"], row_id = row_id, row_id + 1
        place = folder / f"split={split}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(some, SCHEMA), place / "part-0.parquet")
    manifest = {
        "name": "ranker",
        "purpose": "personalization",
        "snapshots": {},
        "seed": seed,
        "code_version": "tests",
        "features": [],
        "rows": {split: len(some) for split, some in rows.items()},
        "excluded": {},
        "split_ms": {"train_end": bounds[0], "validation_end": bounds[1] - TRAINING_SET.horizon_ms},
        "horizon_ms": TRAINING_SET.horizon_ms,
        "schema_hash": "0" * 64,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return float(np.mean(best))


def _row(viewer: int, day: int, at_ms: int, title: int, tastes: np.ndarray, watched: bool) -> dict[str, object]:
    recent = [f"title{(title + step) % 120:03d}" for step in range(1, 1 + (viewer % 4) * 8)] or None
    shares = list(zip(GENRES, tastes.tolist(), strict=True))
    return {
        "profile_id": f"{viewer:064x}",
        "session_id": f"{viewer}-{day}",
        "event_timestamp": at_ms,
        "content_id": f"title{title:03d}",
        "content_genres": [GENRES[title % len(GENRES)]],
        RECENT_TITLES: recent,
        COMPLETED_TITLES: recent,
        **dict.fromkeys(SHARES.values(), shares),
        **{name: float(title % 7) for name in TITLE_NUMBERS.values()},
        **dict.fromkeys(VIEWER_NUMBERS.values(), 0.5),
        **dict.fromkeys(CONTEXT_NUMBERS.values()),
        "watched": bool(watched),
    }
