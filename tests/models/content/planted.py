"""A training set in which who watches what follows from what is written of the titles, and from nothing else.

Every title is of one genre and every viewer keeps to one, but for one title in ten. Within a genre any title is as good
as another. So the best that anybody can do with a new title is to offer it to those who keep to its genre.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.content.training_set import TRAINING_SET
from models.content.watches import HISTORY

GENRES = ("crime", "drama", "family", "horror", "news")
DAY_MS, START_MS = 86_400_000, 1_700_000_000_000
_WORDS = ("harbour", "letters", "orchard", "kingdom", "signal", "winter", "garden")
SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("profile_id", pa.string()),
        ("event_timestamp", pa.timestamp("ms", tz="UTC")),
        ("content_id", pa.string()),
        ("content_title", pa.string()),
        ("content_type", pa.string()),
        ("content_genres", pa.list_(pa.string())),
        ("content_maturity_rating", pa.string()),
        (HISTORY, pa.list_(pa.string())),
        ("finished", pa.bool_()),
    ]
)


def genre_of(title: int) -> str:
    """The one genre of a title."""
    return GENRES[title % len(GENRES)]


def write_training_set(folder: Path, *, viewers: int = 200, titles: int = 120, length: int = 20, seed: int = 1) -> None:
    """Writes it as `reel training-set build content` does: half of the time train, a quarter each for the others."""
    random = np.random.default_rng(seed)
    bounds = (START_MS + length // 2 * DAY_MS, START_MS + length * 3 // 4 * DAY_MS)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    for viewer in range(viewers):
        own = [title for title in range(titles) if genre_of(title) == GENRES[viewer % len(GENRES)]]
        history: list[str] = []
        for day in range(length):
            title = int(random.choice(own if random.random() < 0.9 else np.arange(titles)))
            at_ms = START_MS + day * DAY_MS + viewer * 1_000
            split = ("train", "validation", "test")[sum(at_ms >= bound for bound in bounds)]
            finished = bool(random.random() < 0.9)
            rows[split].append(_row(viewer, title, at_ms, list(history), finished))
            if finished:
                history.append(f"title{title:03d}")
    row_id = 0
    for split, some in rows.items():
        for row in some:
            row["row_id"], row_id = row_id, row_id + 1
        place = folder / f"split={split}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(some, SCHEMA), place / "part-0.parquet")
    manifest = {
        "name": "content",
        "purpose": "personalization",
        "snapshots": {},
        "seed": seed,
        "code_version": "tests",
        "features": ["user_viewing_history:recent_titles"],
        "rows": {split: len(some) for split, some in rows.items()},
        "excluded": {},
        "split_ms": {"train_end": bounds[0], "validation_end": bounds[1] - TRAINING_SET.horizon_ms},
        "horizon_ms": TRAINING_SET.horizon_ms,
        "schema_hash": "0" * 64,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _row(viewer: int, title: int, at_ms: int, history: list[str], finished: bool) -> dict[str, object]:
    name = f"The {_WORDS[title % len(_WORDS)]} {title} ({1990 + title % 7})"
    return {
        "profile_id": f"{viewer:064x}",
        "event_timestamp": at_ms,
        "content_id": f"title{title:03d}",
        "content_title": name,
        "content_type": "vod" if title % 9 else None,
        "content_genres": [genre_of(title)],
        "content_maturity_rating": "PG" if title % 2 else None,
        HISTORY: history or None,
        "finished": finished,
    }
