"""Training rows as ragged integer sequences, and padded batches of them.

A row is one sequence, `history + label`, of which only the label part is learnt. In model space every sequence is
led by the start token, so that the first title of a viewer with no history is predicted as well:

    inputs   START  a  b  c        history = a b, label = c d
    targets    a    b  c  d
    learnt     -    -  c  d
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from models.errors import TrainingSetError, UnknownLabelError

Titles = npt.NDArray[np.int32]

COLUMNS = ("row_id", "profile_id", "history", "label")
_POOL_BATCHES = 8  # batches shuffled together and cut by length: little padding, still random


class Vocabulary:
    """Content ids and their columns in the model, in catalogue order."""

    def __init__(self, content_ids: Sequence[str]) -> None:
        self.content_ids = tuple(content_ids)
        self._index = pa.array(self.content_ids, pa.string())
        self._column = {content_id: column for column, content_id in enumerate(self.content_ids)}

    def __len__(self) -> int:
        return len(self.content_ids)

    def columns(self, content_ids: Sequence[str]) -> Titles:
        """Columns of the titles that are known, in the order given; unknown titles are left out."""
        known = (self._column.get(content_id) for content_id in content_ids)
        return np.fromiter((column for column in known if column is not None), np.int32)

    def lookup(self, content_ids: pa.Array) -> npt.NDArray[np.int64]:
        """[len(content_ids)] columns, -1 where a title is unknown."""
        found = pc.fill_null(pc.index_in(content_ids, self._index), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


@dataclass(frozen=True)
class Sequences:
    """Rows of a training set as integers, in ascending `row_ids`.

    `titles[offsets[i]:offsets[i + 1]]` is row i's history and label; the label starts `label_starts[i]` titles in.
    """

    titles: Titles
    offsets: npt.NDArray[np.int64]
    label_starts: npt.NDArray[np.int64]
    row_ids: npt.NDArray[np.int64]
    unknown_titles: int
    """Titles of histories that the vocabulary lacks; they were left out."""

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def labels(self) -> int:
        """How many titles there are to learn."""
        return int((np.diff(self.offsets) - self.label_starts).sum())

    def history(self, row: int) -> Titles:
        """The titles before the row's instant, oldest first."""
        start = self.offsets[row]
        return self.titles[start : start + self.label_starts[row]]

    def label(self, row: int) -> Titles:
        """The titles to predict, oldest first."""
        return self.titles[self.offsets[row] + self.label_starts[row] : self.offsets[row + 1]]


def encode(table: pa.Table, vocabulary: Vocabulary) -> Sequences:
    """Rows of a training set as `Sequences`, whatever order they come in.

    Raises:
        TrainingSetError: a column is missing.
        UnknownLabelError: a label is not in the vocabulary.
    """
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise TrainingSetError(
            f"the training set lacks the columns {', '.join(missing)}; received {', '.join(table.column_names)}"
        )
    table = table.select(["row_id", "history", "label"]).sort_by("row_id").combine_chunks()
    histories, history_lengths = _flat(table["history"], vocabulary)
    labels, label_lengths = _flat(table["label"], vocabulary)
    if (labels < 0).any():
        flat = pc.list_flatten(table["label"])
        raise UnknownLabelError(sorted(pc.unique(flat.filter(pa.array(labels < 0))).to_pylist()))

    known = histories >= 0
    row_of_title = np.repeat(np.arange(len(table)), history_lengths)
    history_lengths = np.bincount(row_of_title[known], minlength=len(table)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(history_lengths + label_lengths)])
    titles = np.empty(offsets[-1], np.int32)
    is_label = _positions(offsets) >= np.repeat(history_lengths, np.diff(offsets))
    titles[~is_label] = histories[known]
    titles[is_label] = labels
    return Sequences(titles, offsets, history_lengths, table["row_id"].to_numpy().astype(np.int64), int((~known).sum()))


def _flat(column: pa.ChunkedArray, vocabulary: Vocabulary) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A list column as (columns of all its titles, length of each row); a null list is empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    flat = pc.list_flatten(column)
    if isinstance(flat, pa.ChunkedArray):
        flat = flat.combine_chunks()
    return vocabulary.lookup(flat), lengths


def _positions(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The place of every title in its own row, [titles]."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


@dataclass(frozen=True)
class Window:
    """A stretch of one row, `titles[start:stop]`, of which the titles from `learn_from` on are learnt."""

    start: int
    learn_from: int
    stop: int


def windows(sequences: Sequences, max_length: int, generator: np.random.Generator) -> list[Window]:
    """Cuts rows into stretches the model can hold, so that every label is learnt once, whatever the row's length.

    A row that fits is one window. A longer one is cut from its end backwards: the last cut learns between half of
    `max_length` and all of it, at random, so that no two epochs cut alike; the others bring a fifth of `max_length` of
    what came before, and the row's first cut as much as fits. (Cuts that bring half of `max_length` make a quarter more
    windows of MovieLens 1M.)
    """
    cut = []
    context = max_length // 5
    for row in range(len(sequences)):
        first, stop = int(sequences.offsets[row]), int(sequences.offsets[row + 1])
        learn_from = first + int(sequences.label_starts[row])
        learnt = max_length - int(generator.integers(max(1, max_length // 2))) if stop - first > max_length else stop
        while stop > learn_from:
            start = stop - learnt - context
            if stop - learnt <= learn_from:
                start, learnt = first, stop - learn_from
            cut.append(Window(max(first, start, stop - max_length), stop - learnt, stop))
            stop, learnt = stop - learnt, max_length - context
    return cut


@dataclass(frozen=True)
class Batch:
    """Padded sequences. Padding is on the right, where a causal model never looks at it from a learnt place."""

    inputs: torch.Tensor
    """[rows, length] int64."""
    targets: torch.Tensor
    """[rows, length] int64: the title that follows each input."""
    learnt: torch.Tensor
    """[rows, length] bool: which targets count in the loss."""

    def share(self, rank: int, workers: int) -> "Batch":
        """Every `workers`-th row from `rank` on; a worker left without one gets a row of which nothing is learnt."""
        if rank >= len(self.inputs):
            return Batch(self.inputs[:1], self.targets[:1], torch.zeros_like(self.learnt[:1]))
        return Batch(self.inputs[rank::workers], self.targets[rank::workers], self.learnt[rank::workers])

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch(self.inputs.to(device), self.targets.to(device), self.learnt.to(device))


def training_batches(
    titles: Titles, cut: Sequence[Window], batch_size: int, start_token: int, generator: np.random.Generator
) -> Iterator[Batch]:
    """Every window once, in an order that `generator` alone decides; windows of like length share a batch."""
    order = generator.permutation(len(cut))
    lengths = np.array([window.stop - window.start for window in cut])
    pool = batch_size * _POOL_BATCHES
    pools = [order[at : at + pool] for at in range(0, len(order), pool)]
    pools = [indices[np.argsort(lengths[indices], kind="stable")] for indices in pools]
    batches = [indices[at : at + batch_size] for indices in pools for at in range(0, len(indices), batch_size)]
    for at in generator.permutation(len(batches)):
        yield _pad(titles, [cut[index] for index in batches[at]], start_token)


def _pad(titles: Titles, chosen: Sequence[Window], start_token: int) -> Batch:
    length = max(window.stop - window.start for window in chosen)
    inputs = np.full((len(chosen), length), start_token, np.int64)
    targets = np.zeros((len(chosen), length), np.int64)
    learnt = np.zeros((len(chosen), length), bool)
    for row, window in enumerate(chosen):
        own = titles[window.start : window.stop]
        inputs[row, 1 : len(own)] = own[:-1]
        targets[row, : len(own)] = own
        learnt[row, window.learn_from - window.start : len(own)] = True
    return Batch(torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(learnt))


def pad_histories(histories: Sequence[Titles], max_length: int, start_token: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Histories as model inputs, [rows, length] int64, and the place of each one's last title, [rows] int64.

    Only the last `max_length - 1` titles are kept: the start token takes one place.
    """
    kept = [history[max(0, len(history) - (max_length - 1)) :] for history in histories]
    length = 1 + max(len(history) for history in kept)
    inputs = np.full((len(kept), length), start_token, np.int64)
    for row, history in enumerate(kept):
        inputs[row, 1 : 1 + len(history)] = history
    last = np.array([len(history) for history in kept], np.int64)
    return torch.from_numpy(inputs), torch.from_numpy(last)
