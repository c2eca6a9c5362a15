"""Requests: tiles that one viewer was shown together, from the impressions of a training set.

Impressions say of which session they are, not of which request. Tiles of one request become visible a second or two
after each other; so a pause of more than `PAUSE_MS`, in which something was watched, begins another.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import TrainingSetError
from models.ranker.features import COLUMNS as FEATURE_COLUMNS
from models.ranker.features import NO_GENRES, Genres, Matrix, matrix
from models.relevance import graded_ndcg_at

PAUSE_MS = 30_000
LABEL = "watched"
COLUMNS = ("profile_id", "session_id", "event_timestamp", *FEATURE_COLUMNS, LABEL)
"""A row: a tile shown to a viewer at an instant, what was known then, and whether it was watched past the half."""


@dataclass(frozen=True)
class Requests:
    """Tiles by request, in the order in which they were shown."""

    features: Matrix
    """[tiles, features]."""
    watched: npt.NDArray[np.float64]
    """[tiles] 1 or 0."""
    starts: npt.NDArray[np.int64]
    """[requests] where each request's tiles begin."""
    viewers: npt.NDArray[np.str_]
    """[requests] whose each is."""
    order: npt.NDArray[np.int64]
    """[tiles] the place of each tile in the rows given."""

    @classmethod
    def of(cls, rows: pa.Table, genres: Genres = NO_GENRES) -> "Requests":
        """From rows with `COLUMNS`, in any order; a tile of unknown label was not watched.

        `genres`: what is known of the titles that viewers may have finished, for `matrix`.

        Raises:
            TrainingSetError: a column is missing.
        """
        missing = [name for name in COLUMNS if name not in rows.column_names]
        if missing:
            raise TrainingSetError(
                f"the training set lacks the columns {', '.join(missing)}; received {', '.join(rows.column_names)}"
            )
        viewer, session = (np.array(rows[name].to_pylist(), dtype=str) for name in ("profile_id", "session_id"))
        at_ms = rows["event_timestamp"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy()
        order = np.lexsort((at_ms, session, viewer))
        viewer, session, at_ms = viewer[order], session[order], at_ms[order]
        begins = np.append(
            True, (viewer[1:] != viewer[:-1]) | (session[1:] != session[:-1]) | (np.diff(at_ms) > PAUSE_MS)
        )
        starts = np.flatnonzero(begins[: len(order)])
        taken = rows.take(pa.array(order))
        watched = np.array([bool(one) for one in taken[LABEL].to_pylist()], np.float64)
        return cls(matrix(taken, genres), watched, starts, viewer[starts], order)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """[requests] how many tiles each has."""
        return np.diff(np.append(self.starts, len(self.watched)))

    def as_shown(self) -> npt.NDArray[np.float64]:
        """[tiles] scores that leave the order as it was shown."""
        return -(np.arange(len(self.watched)) - np.repeat(self.starts, self.sizes)).astype(np.float64)

    def ndcg_at(self, scores: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
        """[requests] NDCG@k of ordering each request by `scores` [tiles]; NaN where nothing was watched."""
        return graded_ndcg_at(self.spread(scores, -np.inf), self.spread(self.watched, 0.0), k)

    def spread(self, values: npt.NDArray[np.float64], missing: float) -> npt.NDArray[np.float64]:
        """[requests, most tiles] values [tiles] by request, the shorter ones filled up with `missing`."""
        sizes = self.sizes
        spread = np.full((len(self), int(sizes.max(initial=0))), missing)
        row = np.repeat(np.arange(len(self)), sizes)
        spread[row, np.arange(len(values)) - self.starts[row]] = values
        return spread
