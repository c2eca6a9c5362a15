"""Who watched what, read from the rows of a training set and split into titles that are learnt from and new ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.content.titles import TITLE_COLUMNS
from models.errors import TrainingSetError

VIEWER, LABEL = "profile_id", "finished"
HISTORY = "user_viewing_history_by_profile_id__recent_titles"
COLUMNS = (VIEWER, "event_timestamp", *TITLE_COLUMNS, HISTORY, LABEL)
"""A row: a title a viewer began, what the catalogue said of it, the titles the viewer had finished before (oldest
first), and the label: whether this one was finished (past 50 %)."""
TEST_SHARE = 0.1
"""Share of all titles that is never learnt from and that any content model is judged by, whenever it was trained."""


@dataclass(frozen=True)
class Watches:
    """Titles watched by viewers, each pair once, by (viewer, title)."""

    viewers: npt.NDArray[np.str_]
    """[viewers] ids, ascending."""
    titles: npt.NDArray[np.str_]
    """[titles] ids, ascending."""
    viewer: npt.NDArray[np.int64]
    """[pairs]."""
    title: npt.NDArray[np.int64]
    """[pairs]."""

    @classmethod
    def of(cls, rows: pa.Table) -> "Watches":
        """The finished ones of rows with `COLUMNS`.

        Raises:
            TrainingSetError: a column is missing.
        """
        rows = finished(rows)
        return cls.of_pairs(rows[VIEWER].to_pylist(), rows["content_id"].to_pylist())

    @classmethod
    def of_pairs(cls, viewer_ids: Sequence[str], content_ids: Sequence[str]) -> "Watches":
        """From the ids of each pair's viewer and title, in any order; a pair may come twice."""
        viewers, viewer = np.unique(np.array(viewer_ids, dtype=str), return_inverse=True)
        titles, title = np.unique(np.array(content_ids, dtype=str), return_inverse=True)
        pairs = np.unique(np.stack([viewer, title], axis=1), axis=0) if len(viewer) else np.empty((0, 2), np.int64)
        return cls(viewers, titles, pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64))

    def __len__(self) -> int:
        return len(self.viewer)

    def of_titles(self, chosen: npt.NDArray[np.str_]) -> "Watches":
        """Those of some titles."""
        kept = np.isin(self.titles, chosen)[self.title]
        return Watches.of_pairs(self.viewers[self.viewer[kept]].tolist(), self.titles[self.title[kept]].tolist())


@dataclass(frozen=True)
class Cold:
    """Viewers, what they had watched, and what they then watched of titles that nobody's watching was learnt of."""

    viewers: npt.NDArray[np.str_]
    """[viewers] ids, ascending."""
    histories: list[list[str]]
    """[viewers] what each had finished before the first of these titles."""
    candidates: tuple[str, ...]
    """[titles] ids, ascending."""
    relevant: npt.NDArray[np.bool_]
    """[viewers, titles] what was watched; each row has something."""

    @classmethod
    def of(cls, rows: pa.Table, candidates: npt.NDArray[np.str_]) -> "Cold":
        """The finished rows of these titles, by viewer; what is among the viewer's own history is none of them.

        Raises:
            TrainingSetError: a column is missing.
        """
        rows = finished(rows).sort_by([(VIEWER, "ascending"), ("event_timestamp", "ascending")])
        names = tuple(sorted(candidates.tolist()))
        place = {name: number for number, name in enumerate(names)}
        histories: dict[str, list[str]] = {}
        watched: dict[str, set[int]] = {}
        columns = (rows[name].to_pylist() for name in (VIEWER, "content_id", HISTORY))
        for viewer, title, history in zip(*columns, strict=True):
            first = histories.get(viewer, list(history or ()))
            if title in place and title not in first:
                histories[viewer] = first
                watched.setdefault(viewer, set()).add(place[title])
        relevant = np.zeros((len(watched), len(names)), bool)
        for row, places in enumerate(watched.values()):
            relevant[row, list(places)] = True
        return cls(np.array(list(watched), dtype=str), list(histories.values()), names, relevant)

    def __len__(self) -> int:
        return len(self.viewers)

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """[viewers, titles] the candidates that are among the viewer's history."""
        return np.array([np.isin(self.candidates, history) for history in self.histories]).reshape(self.relevant.shape)


def finished(rows: pa.Table) -> pa.Table:
    """The rows of titles that were finished.

    Raises:
        TrainingSetError: one of `COLUMNS` is missing.
    """
    missing = [name for name in COLUMNS if name not in rows.column_names]
    if missing:
        raise TrainingSetError(
            f"the training set lacks the columns {', '.join(missing)}; received {', '.join(rows.column_names)}"
        )
    return rows.filter(rows[LABEL])


def lots(content_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """[titles] a number in [0, 1) for each title, by its id alone: below `TEST_SHARE` it is for judging only."""
    hashed = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in content_ids]
    return np.array([int.from_bytes(digest, "big") / 2**64 for digest in hashed], np.float64)


def judged_titles(content_ids: Sequence[str]) -> npt.NDArray[np.str_]:
    """Those of these titles, each once, that content models are judged by."""
    names = np.unique(np.array(content_ids, dtype=str))
    return names[lots(names.tolist()) < TEST_SHARE]
