"""The ranker as the road judges and publishes it: shown tiles in, NDCG@10 of its order beside the shown order's out.

A tile that stands first is clicked more, whatever it is; so the order in which tiles were shown is a strong baseline in
a log that it has made itself.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import OneClassError
from models.intervals import bootstrap_means
from models.judged import Figure, Judged, Slice
from models.ranker.features import NAMES
from models.ranker.ranker import Ranker
from models.ranker.shown import LABEL, Requests
from models.ranker.training import CUT
from models.relevance import hit_among
from models.task import instants_ms
from models.training_set import Manifest

NDCG, SHOWN_NDCG, POPULARITY_NDCG, RANDOM_NDCG = (
    f"{name}ndcg_at_{CUT}" for name in ("", "shown_", "popularity_", "random_")
)
_POPULARITY, _RECENT = NAMES.index("title_viewers_day"), NAMES.index("recent_titles")
_LENGTHS = ((0, 0, "history 0"), (1, 4, "history 1-4"), (5, 19, "history 5-19"), (20, 10**9, "history 20 and more"))


def evaluate(folder: Path, manifest: Manifest, rows: pa.Table, seed: int) -> Judged:
    """NDCG@10 and HR@1 of each request in which something was watched, beside the shown order, popularity and chance.

    Raises:
        OneClassError: nothing was watched.
        TrainingSetError: a column is missing.
        ModelFolderError: the saved model is broken.
    """
    requests = Requests.of(rows)
    scores = Ranker.load(folder).score(rows)[requests.order]
    popularity = np.nan_to_num(requests.features[:, _POPULARITY], nan=-1.0)
    chance = np.random.default_rng(seed).random(len(scores))
    values = {
        NDCG: requests.ndcg_at(scores, CUT),
        "hr_at_1": hit_among(requests.spread(scores, -np.inf), requests.spread(requests.watched, 0.0) > 0, 1),
        SHOWN_NDCG: requests.ndcg_at(requests.as_shown(), CUT),
        POPULARITY_NDCG: requests.ndcg_at(popularity, CUT),
        RANDOM_NDCG: requests.ndcg_at(chance, CUT),
    }
    values[f"ndcg_gain_at_{CUT}"] = values[NDCG] - values[SHOWN_NDCG]
    judged = np.isfinite(values[NDCG])
    if not judged.any():
        raise OneClassError("test", LABEL, len(rows), False)
    recent = requests.features[requests.starts, _RECENT]
    slices = {}
    for low, high, name in _LENGTHS:
        chosen = (recent >= low) & (recent <= high)
        if (chosen & judged).any():
            slices[name] = _slice(values, requests, chosen & judged, int(requests.sizes[chosen].sum()), seed)
    return Judged(
        _slice(values, requests, judged, len(rows), seed),
        slices,
        shown=(NDCG, SHOWN_NDCG),
        headline=(NDCG, SHOWN_NDCG, POPULARITY_NDCG, f"ndcg_gain_at_{CUT}", "hr_at_1"),
    )


def ndcg(folder: Path, manifest: Manifest, rows: pa.Table) -> npt.NDArray[np.float64]:
    """[rows] NDCG@10 of the tile's request; 0 where nothing of it was watched."""
    requests = Requests.of(rows)
    return _of_rows(requests, requests.ndcg_at(Ranker.load(folder).score(rows)[requests.order], CUT))


def shown_ndcg(folder: Path, manifest: Manifest, rows: pa.Table) -> npt.NDArray[np.float64]:
    """The same of the order in which the tiles were shown."""
    requests = Requests.of(rows)
    return _of_rows(requests, requests.ndcg_at(requests.as_shown(), CUT))


def label_ms(rows: pa.Table) -> npt.NDArray[np.int64]:
    """[rows] the row's instant, ms since 1970, UTC: the label lies after it."""
    return instants_ms(rows)


def _of_rows(requests: Requests, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    of_rows = np.empty(len(requests.watched))
    of_rows[requests.order] = np.repeat(np.nan_to_num(values), requests.sizes)
    return of_rows


def _slice(
    values: Mapping[str, npt.NDArray[np.float64]],
    requests: Requests,
    chosen: npt.NDArray[np.bool_],
    rows: int,
    seed: int,
) -> Slice:
    """Means over the chosen requests with their intervals, drawn by viewer."""
    viewers = requests.viewers[chosen]
    intervals = bootstrap_means(np.stack([one[chosen] for one in values.values()], axis=1), viewers, seed)
    figures: dict[str, Figure] = dict(zip(values, intervals, strict=True))
    return Slice(rows, len(np.unique(viewers)), figures)
