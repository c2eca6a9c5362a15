"""MovieLens 100K as rows of the content model: every rating is a film watched; a fifth of the films is held out."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from models.content.watches import is_held_out

TEST_SHARE, TEST_SEED = 0.2, 20


def rows_of(folder: Path) -> tuple[pa.Table, pa.Table]:
    """(rows of the films that may be learnt from, rows of those held out), from `u.item`, `u.genre` and `u.data`."""
    genres = [line.split("|")[0] for line in (folder / "u.genre").read_text("latin-1").splitlines() if line]
    films = {}
    for line in (folder / "u.item").read_text("latin-1").splitlines():
        item, name, *rest = line.split("|")
        films[item] = (name, [genre for genre, flag in zip(genres, rest[3:], strict=True) if flag == "1"])
    ratings = [line.split("\t")[:2] for line in (folder / "u.data").read_text().splitlines()]
    table = pa.table(
        {
            "profile_id": [viewer for viewer, _ in ratings],
            "content_id": [item for _, item in ratings],
            "content_title": [films[item][0] for _, item in ratings],
            "content_type": pa.repeat("vod", len(ratings)),
            "content_genres": pa.array([films[item][1] for _, item in ratings], pa.list_(pa.string())),
            "content_maturity_rating": pa.nulls(len(ratings), pa.string()),
            "finished": pa.repeat(pa.scalar(True), len(ratings)),
        }
    )
    items = sorted(films)
    held_out = set(np.array(items)[is_held_out(items, TEST_SHARE, TEST_SEED)].tolist())
    is_cold = np.array([item in held_out for _, item in ratings])
    return table.filter(pa.array(~is_cold)), table.filter(pa.array(is_cold))
