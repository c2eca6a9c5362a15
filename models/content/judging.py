"""The content model as the road judges and publishes it: test rows in, figures beside the baselines' out.

Judged are titles that no content model ever learns from (`watches.TEST_SHARE` of all), ranked against each other by
their metadata for every viewer who watched one of them in the test period, by what the viewer had watched before.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.content.evaluation import CUT, ColdScorer, RandomOrder, TfIdfCosine, per_viewer
from models.content.recommender import ContentRecommender
from models.content.titles import Title, titles_of
from models.content.watches import LABEL, VIEWER, Cold, judged_titles
from models.errors import EmptyTrainingSetError
from models.intervals import bootstrap_means
from models.judged import Figure, Judged, Slice
from models.task import instants_ms
from models.training_set import Manifest

NDCG, POPULARITY_NDCG = f"ndcg_at_{CUT}", f"popularity_ndcg_at_{CUT}"
_LENGTHS = ((0, 0, "history 0"), (1, 4, "history 1-4"), (5, 19, "history 5-19"), (20, 10**9, "history 20 and more"))


def evaluate(folder: Path, manifest: Manifest, rows: pa.Table, seed: int) -> Judged:
    """NDCG@10, HR@10 and recall@10 on new titles beside genre popularity, TF-IDF cosine and random order.

    Raises:
        EmptyTrainingSetError: nobody watched one of the titles that are judged by.
        TrainingSetError: a column is missing.
        ModelFolderError: the saved model is broken.
    """
    recommender = ContentRecommender.load(folder)
    cold, titles = _cold(rows)
    if len(cold) == 0:
        raise EmptyTrainingSetError("test")
    others: Mapping[str, ColdScorer] = {
        "popularity": recommender.popularity,
        "tf_idf": TfIdfCosine({**titles, **recommender.titles}, recommender.learnt),
        "random": RandomOrder(seed),
    }
    values = per_viewer(recommender, cold, titles)
    for name, scorer in others.items():
        values |= {f"{name}_{metric}": one for metric, one in per_viewer(scorer, cold, titles).items()}
    values[f"ndcg_gain_at_{CUT}"] = values[NDCG] - values[POPULARITY_NDCG]
    values[f"tf_idf_ndcg_gain_at_{CUT}"] = values[NDCG] - values[f"tf_idf_{NDCG}"]
    lengths = np.array([len(history) for history in cold.histories])
    of_row = np.array(rows[VIEWER].to_pylist(), dtype=str)
    slices = {}
    for low, high, name in _LENGTHS:
        chosen = (lengths >= low) & (lengths <= high)
        if chosen.any():
            slices[name] = _slice(values, chosen, int(np.isin(of_row, cold.viewers[chosen]).sum()), seed)
    whole = _slice(values, np.ones(len(cold), bool), len(rows), seed)
    return Judged(
        whole,
        slices,
        shown=(NDCG, POPULARITY_NDCG),
        headline=(NDCG, POPULARITY_NDCG, f"tf_idf_{NDCG}", f"ndcg_gain_at_{CUT}", f"recall_at_{CUT}"),
    )


def ndcg(folder: Path, manifest: Manifest, rows: pa.Table) -> npt.NDArray[np.float64]:
    """[rows] NDCG@10 of the row's viewer in rows of titles that are judged by and were finished; 0 in all others."""
    return _of_rows(ContentRecommender.load(folder), rows)


def popularity_ndcg(folder: Path, manifest: Manifest, rows: pa.Table) -> npt.NDArray[np.float64]:
    """The same of the popularity of the title's genres among what the saved model learnt from."""
    return _of_rows(ContentRecommender.load(folder).popularity, rows)


def label_ms(rows: pa.Table) -> npt.NDArray[np.int64]:
    """[rows] the row's instant, ms since 1970, UTC: the label lies after it."""
    return instants_ms(rows)


def _of_rows(scorer: ColdScorer, rows: pa.Table) -> npt.NDArray[np.float64]:
    cold, titles = _cold(rows)
    of_viewer = dict(zip(cold.viewers.tolist(), per_viewer(scorer, cold, titles)[NDCG].tolist(), strict=True))
    is_judged = pc.and_(pc.is_in(rows["content_id"], pa.array(cold.candidates, pa.string())), rows[LABEL]).to_pylist()
    pairs = zip(rows[VIEWER].to_pylist(), is_judged, strict=True)
    return np.array([of_viewer.get(viewer, 0.0) if judged else 0.0 for viewer, judged in pairs], np.float64)


def _cold(rows: pa.Table) -> tuple[Cold, dict[str, Title]]:
    titles = {title.content_id: title for title in titles_of(rows)}
    return Cold.of(rows, judged_titles(list(titles))), titles


def _slice(values: Mapping[str, npt.NDArray[np.float64]], chosen: npt.NDArray[np.bool_], rows: int, seed: int) -> Slice:
    """Means over the chosen viewers with their intervals."""
    table = np.stack([one[chosen] for one in values.values()], axis=1)
    intervals = bootstrap_means(table, np.arange(int(chosen.sum())), seed)
    figures: dict[str, Figure] = dict(zip(values, intervals, strict=True))
    return Slice(rows, int(chosen.sum()), figures)
