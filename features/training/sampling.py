"""Sampling: rows that are added (negatives) or left out (balance), each with the weight that makes up for it.

A row's `weight` is 1 over the probability with which it was drawn, so that a weighted sum over the sample estimates the
sum over all (Horvitz and Thompson, JASA 47, 1952). Draws depend on the seed and the row alone (`chance`).
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import milliseconds
from features.errors import DeclarationError
from features.sketches import hash64
from features.training.candidates import Available, Catalogue, SeenIn
from features.training.chance import Hashes, choose, combined, uniform
from features.training.splits import SPLITS

WEIGHT, IS_DRAWN = "weight", "is_drawn"
Value = bool | int | str


@dataclass(frozen=True)
class Negatives:
    """Beside each row, `per_row` copies of it with another value in `column`, of what was available at its instant.

    Drawn evenly without replacement from all candidates but the row's own; fewer where there are fewer. A drawn row
    gets its label from the log like any other, which says whether it is a negative: a viewer may come to it later.
    """

    column: str
    per_row: int
    candidates: Catalogue | SeenIn = field(default_factory=Catalogue)

    def check(self) -> None:
        """Raise `DeclarationError` where nothing can be drawn."""
        if self.per_row < 1:
            raise DeclarationError(f"negatives: {self.per_row} a row is none; give 1 or more, or leave negatives out")
        self.candidates.check()


@dataclass(frozen=True)
class Balance:
    """Rows are kept with a probability that depends on a label: `Balance("churned", ((False, 0.1),))`.

    A value that is not named, and null, are kept. Only in the named splits: what a model is judged by stays as it is.
    """

    label: str
    keep: tuple[tuple[Value, float], ...]
    splits: tuple[str, ...] = SPLITS[:1]

    def check(self) -> None:
        """Raise `DeclarationError` for what is no probability, or no split."""
        for value, kept in self.keep:
            if not 0 < kept <= 1:
                raise DeclarationError(f"balance: {value!r} is kept with {kept}; give a probability above 0, to 1")
        for split in self.splits:
            if split not in SPLITS:
                raise DeclarationError(f"balance: there is no split {split!r}; choose of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Sampling:
    """What is drawn, and the seed that decides it."""

    negatives: Negatives | None = None
    balance: Balance | None = None
    seed: int = 17


@dataclass(frozen=True)
class Sample:
    """Rows with their identities, their weights, and whether each was drawn; [n] each."""

    rows: pa.Table
    identities: Hashes
    weights: npt.NDArray[np.float64]
    is_drawn: npt.NDArray[np.bool_]


def with_negatives(
    rows: pa.Table, identities: Hashes, instant: str, negatives: Negatives, available: Available, seed: int
) -> Sample:
    """The rows, each followed by those that are drawn for it."""
    own, numbers = available.own_places(rows[negatives.column])
    places = np.full((rows.num_rows, negatives.per_row), -1, dtype=np.int64)
    odds = np.ones(rows.num_rows)
    for some, eligible in available.by_instant(milliseconds(rows[instant], instant)):
        # The row's own value is skipped over, wherever among the eligible it is.
        skipped = np.searchsorted(numbers[eligible], own[some])
        has_own = np.append(numbers[eligible], -2)[skipped] == own[some]
        sizes = len(eligible) - has_own.astype(np.int64)
        drawn = choose(identities[some], seed, sizes, negatives.per_row)
        drawn += (has_own[:, np.newaxis] & (drawn >= skipped[:, np.newaxis])).astype(np.int64)
        places[some] = np.where(drawn >= 0, np.append(eligible, -1)[drawn], -1)
        odds[some] = sizes / np.maximum(np.minimum(sizes, negatives.per_row), 1)
    return _laid_out(rows, identities, negatives.column, available.values, places, odds)


def kept_of(
    labels: pa.ChunkedArray, splits: npt.NDArray[np.int64], identities: Hashes, balance: Balance, seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """(which rows are kept, the probability with which), [n] each; `splits` are places in `SPLITS`.

    Raises:
        DeclarationError: a named value is not of the label's type.
    """
    probability = np.ones(len(labels))
    balanced = np.isin(splits, [SPLITS.index(split) for split in balance.splits])
    for value, kept in balance.keep:
        try:
            is_value = np.asarray(pc.equal(labels, pa.scalar(value, labels.type)).fill_null(False))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise DeclarationError(
                f"balance: {value!r} is no value of {balance.label}, which is {labels.type}"
            ) from None
        probability[balanced & is_value] = kept
    return uniform(identities, seed, "balance") < probability, probability


def _laid_out(
    rows: pa.Table,
    identities: Hashes,
    column: str,
    values: pa.Array,
    places: npt.NDArray[np.int64],
    odds: npt.NDArray[np.float64],
) -> Sample:
    """Each row, then the rows drawn for it."""
    own = np.full((rows.num_rows, 1), 0, dtype=np.int64)
    is_there = np.concatenate([own == 0, places >= 0], axis=1).ravel()
    width = places.shape[1] + 1
    sources = np.repeat(np.arange(rows.num_rows), width)[is_there]
    is_drawn = np.tile(np.arange(width) > 0, rows.num_rows)[is_there]
    drawn = np.concatenate([own, places], axis=1).ravel()[is_there]
    laid = rows.take(pa.array(sources))
    chosen = values.take(pa.array(drawn, mask=~is_drawn))
    mixed = pc.if_else(pa.array(is_drawn), chosen, laid[column].cast(pa.string()).combine_chunks())
    laid = laid.set_column(laid.column_names.index(column), column, mixed)
    hashes = identities[sources]
    hashes[is_drawn] = combined(hashes[is_drawn], hash64(chosen.filter(pa.array(is_drawn))))
    return Sample(laid, hashes, np.where(is_drawn, odds[sources], 1.0), is_drawn)
