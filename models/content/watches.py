"""Who watched what, read from the rows of a training set and split into titles that are learnt from and new ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.content.titles import TITLE_COLUMNS
from models.errors import TrainingSetError

COLUMNS = ("profile_id", *TITLE_COLUMNS, "finished")
"""A row: a title a viewer began, what the catalogue said of it, and the label: whether it was finished (past 50 %)."""


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
        missing = [name for name in COLUMNS if name not in rows.column_names]
        if missing:
            raise TrainingSetError(
                f"the training set lacks the columns {', '.join(missing)}; received {', '.join(rows.column_names)}"
            )
        rows = rows.filter(rows["finished"])
        return cls.of_pairs(rows["profile_id"].to_pylist(), rows["content_id"].to_pylist())

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

    def history_of(self, viewer_ids: npt.NDArray[np.str_]) -> list[list[str]]:
        """What each of these viewers watched, in the order of the ids; [] of who is not known."""
        starts = np.searchsorted(self.viewer, np.arange(len(self.viewers) + 1))
        place = {viewer: number for number, viewer in enumerate(self.viewers.tolist())}
        names = self.titles[self.title].tolist()
        found = [place.get(viewer) for viewer in viewer_ids.tolist()]
        return [[] if at is None else names[starts[at] : starts[at + 1]] for at in found]


@dataclass(frozen=True)
class Cold:
    """Viewers, what they watched of the titles that were learnt from, and what of those that were not."""

    histories: list[list[str]]
    candidates: tuple[str, ...]
    """[titles] titles that nobody's watching was learnt of."""
    relevant: npt.NDArray[np.bool_]
    """[viewers, titles] what was watched; each row has something."""
    viewers: npt.NDArray[np.str_]

    @classmethod
    def of(cls, learnt: Watches, judged: Watches) -> "Cold":
        """The viewers of `judged`, whose titles must not be among those of `learnt`, who have watched some of `learnt`."""
        known = np.isin(judged.viewers, learnt.viewers)
        relevant = np.zeros((len(judged.viewers), len(judged.titles)), bool)
        relevant[judged.viewer, judged.title] = True
        viewers = judged.viewers[known]
        return cls(learnt.history_of(viewers), tuple(judged.titles.tolist()), relevant[known], viewers)

    def __len__(self) -> int:
        return len(self.viewers)


def is_held_out(content_ids: Sequence[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """[titles] which of these titles are held out: about `share` of them, by their id and the seed alone."""
    hashed = [hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=8).digest() for name in content_ids]
    drawn = np.array([int.from_bytes(digest, "big") / 2**64 for digest in hashed], np.float64)
    return drawn < share
