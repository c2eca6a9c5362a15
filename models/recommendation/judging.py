"""The recommender as the road judges and publishes it: test rows in, figures beside popularity's out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.judged import Figure, Judged, Slice
from models.ranking import coverage, ndcg_at
from models.recommendation.batches import Sequences, Vocabulary, encode
from models.recommendation.evaluation import CUT, Compared, Ranked, Scorer, Translated, compare, rank_rows, slices
from models.recommendation.popularity import Popularity
from models.recommendation.recommender import Recommender
from models.training_set import Manifest

VIEWER = "profile_id"
NDCG, POPULARITY_NDCG = f"ndcg_at_{CUT}", f"popularity_ndcg_at_{CUT}"


def evaluate(folder: Path, manifest: Manifest, rows: pa.Table, seed: int) -> Judged:
    """Ranks the whole catalogue for every test row, beside popularity; intervals are drawn by viewer.

    Raises:
        TrainingSetError: a column is missing, or a label is not in the catalogue.
        ModelFolderError: the saved model is broken.
    """
    rows, sequences, vocabulary = _encoded(manifest, rows)
    popularity = Popularity(vocabulary, manifest.popularity)
    ranked = _ranked(Recommender.load(folder), sequences, vocabulary)
    others = _ranked(popularity, sequences, vocabulary).ranks
    viewers = np.unique(rows[VIEWER].to_numpy(), return_inverse=True)[1]
    finished = popularity.score([sequences.history(0)])[0]
    masks = {"all": np.ones(len(rows), bool), **slices(rows, sequences, finished)}
    sliced = {
        name: _slice(compare(ranked.ranks[mask], others[mask], viewers[mask], seed))
        for name, mask in masks.items()
        if mask.any()
    }
    whole = sliced.pop("all")
    served = {f"catalogue_coverage_at_{CUT}": coverage(ranked.best, len(vocabulary))}
    return Judged(
        Slice(whole.rows, whole.units, {**whole.figures, **served}),
        sliced,
        shown=(NDCG, POPULARITY_NDCG),
        headline=(NDCG, POPULARITY_NDCG, f"ndcg_gain_at_{CUT}", f"hr_at_{CUT}", f"popularity_hr_at_{CUT}", *served),
    )


def ndcg(folder: Path, manifest: Manifest, rows: pa.Table) -> npt.NDArray[np.float64]:
    """[rows] NDCG@10 of a saved model, which may know another catalogue than the rows'."""
    rows, sequences, vocabulary = _encoded(manifest, rows)
    recommender = Recommender.load(folder)
    scorer = Translated(recommender, recommender.vocabulary, vocabulary)
    return ndcg_at(_ranked(scorer, sequences, vocabulary).ranks, CUT)


def popularity_ndcg(folder: Path, manifest: Manifest, rows: pa.Table) -> npt.NDArray[np.float64]:
    """[rows] NDCG@10 of the titles that most viewers finished in the training period."""
    rows, sequences, vocabulary = _encoded(manifest, rows)
    return ndcg_at(_ranked(Popularity(vocabulary, manifest.popularity), sequences, vocabulary).ranks, CUT)


def label_ms(rows: pa.Table) -> npt.NDArray[np.int64]:
    """[rows] when each row's label was finished, ms since 1970, UTC."""
    first = pc.list_element(rows["label_timestamps"], 0).cast(pa.timestamp("ms", tz="UTC"))
    return np.asarray(first.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _encoded(manifest: Manifest, rows: pa.Table) -> tuple[pa.Table, Sequences, Vocabulary]:
    """The rows in ascending `row_id`, as they come from the road; encoded; and their catalogue."""
    vocabulary = Vocabulary(manifest.catalogue)
    return rows, encode(rows, vocabulary), vocabulary


def _ranked(scorer: Scorer, sequences: Sequences, vocabulary: Vocabulary) -> Ranked:
    return rank_rows(scorer, sequences, len(vocabulary), np.arange(len(sequences)))


def _slice(compared: Compared) -> Slice:
    figures: Mapping[str, Figure] = {
        NDCG: compared.ndcg,
        f"hr_at_{CUT}": compared.hit_rate,
        "mrr": compared.reciprocal_rank,
        POPULARITY_NDCG: compared.other_ndcg,
        f"popularity_hr_at_{CUT}": compared.other_hit_rate,
        f"ndcg_gain_at_{CUT}": compared.ndcg_gain,
    }
    return Slice(compared.rows, compared.viewers, figures)
