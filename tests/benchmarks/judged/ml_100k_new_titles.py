"""New titles on MovieLens 100K: films that nobody has watched yet, ranked by what is written of them.

Protocol: of the 1,682 films a fifth, drawn by their ids, is held out: nobody's rating of them is learnt. A further
tenth chooses the epoch. For every viewer who rated a held-out film these are ranked against each other by what the
viewer had rated of the others; relevant are those that the viewer rated. NDCG@10, HR@10 and recall@10, means over
viewers with 95 % intervals by viewer, beside random order, the popularity of a film's genres, and the cosine of TF-IDF
vectors.
Nobody has published figures for this split; TF-IDF is the baseline that the literature on new items starts from.
"""

from pathlib import Path
from typing import Any

import numpy as np

from models.content.evaluation import RandomOrder, TfIdfCosine, per_viewer
from models.content.model import ContentConfig
from models.content.popularity import GenrePopularity
from models.content.titles import titles_of
from models.content.training import WATCHED, ContentTraining
from models.content.watches import Cold
from models.intervals import bootstrap_means
from models.task import Place
from models.training_set import Manifest
from tests.models.content.movielens import COLD_SHARE, rows_of

DATA = "ml-100k"
SEED = 17


def judge(folder: Path) -> dict[str, Any]:
    """Trains, then looks at the held-out films once."""
    rows, held_out = rows_of(folder)
    manifest = Manifest(folder.name, "personalization", {}, SEED, "benchmark", [], {}, {}, {}, "", "0" * 64)
    training = ContentTraining(ContentConfig(cold_share=COLD_SHARE), manifest, rows, rows, Place())
    while not training.done:
        training.epoch()
    titles = {title.content_id: title for table in (rows, held_out) for title in titles_of(table)}
    cold = Cold.of(held_out, np.unique(np.array(held_out["content_id"].to_pylist(), dtype=str)))
    scorers = {
        "": training.best(),
        "popularity_": GenrePopularity.of(titles, training.learnt),
        "tf_idf_": TfIdfCosine(titles, training.learnt.titles.tolist()),
        "random_": RandomOrder(SEED),
    }
    values = {
        f"{name}{metric}": of_viewers
        for name, scorer in scorers.items()
        for metric, of_viewers in per_viewer(scorer, cold, titles).items()
    }
    values["ndcg_gain_over_tf_idf"] = values["ndcg_at_10"] - values["tf_idf_ndcg_at_10"]
    intervals = bootstrap_means(np.stack(list(values.values()), axis=1), cold.viewers, SEED)
    return {
        "viewers": len(cold),
        "new_titles": len(cold.candidates),
        "epoch": training.best_epoch,
        WATCHED: round(training.curve[training.best_epoch - 1][WATCHED], 4),
        **{
            name: {"mean": round(one.mean, 4), "low": round(one.low, 4), "high": round(one.high, 4)}
            for name, one in zip(values, intervals, strict=True)
        },
    }
