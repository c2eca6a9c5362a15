"""MovieLens 100K as rows of the content model: every rating is a film watched; films are held out, whatever the time.

A fifth of the films is for judging, a tenth for choosing the epoch; the history of their rows is what the viewer
watched of the others, oldest first. Rows of these others, which are learnt from, need none.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.content.watches import HISTORY, lots

JUDGED_SHARE, COLD_SHARE = 0.2, 0.1


def rows_of(folder: Path) -> tuple[pa.Table, pa.Table]:
    """(rows of films that may be learnt from or chosen by, rows of those held out), of the data set in a folder."""
    genres = [line.split("|")[0] for line in (folder / "u.genre").read_text("latin-1").splitlines() if line]
    films = {}
    for line in (folder / "u.item").read_text("latin-1").splitlines():
        item, name, *rest = line.split("|")
        films[item] = (name, [genre for genre, flag in zip(genres, rest[3:], strict=True) if flag == "1"])
    drawn = dict(zip(films, lots(list(films)), strict=True))
    ratings = [line.split("\t") for line in (folder / "u.data").read_text().splitlines()]
    ratings.sort(key=lambda rating: int(rating[3]))

    def is_learnt(item: str) -> bool:
        return JUDGED_SHARE <= drawn[item] < 1 - COLD_SHARE

    histories: dict[str, list[str]] = defaultdict(list)
    for viewer, item, *_ in ratings:
        if is_learnt(item):
            histories[viewer].append(item)
    table = pa.table(
        {
            "profile_id": [viewer for viewer, *_ in ratings],
            "event_timestamp": pa.array([int(at) * 1000 for *_, at in ratings], pa.timestamp("ms", tz="UTC")),
            "content_id": [item for _, item, *_ in ratings],
            "content_title": [films[item][0] for _, item, *_ in ratings],
            "content_type": pa.repeat("vod", len(ratings)),
            "content_genres": pa.array([films[item][1] for _, item, *_ in ratings], pa.list_(pa.string())),
            "content_maturity_rating": pa.nulls(len(ratings), pa.string()),
            HISTORY: pa.array(
                [None if is_learnt(item) else histories[viewer] for viewer, item, *_ in ratings], pa.list_(pa.string())
            ),
            "finished": pa.repeat(pa.scalar(True), len(ratings)),
        }
    )
    is_judged = np.array([drawn[item] < JUDGED_SHARE for _, item, *_ in ratings])
    return table.filter(pa.array(~is_judged)), table.filter(pa.array(is_judged))
