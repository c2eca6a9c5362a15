"""Columns of a training set as numbers: what the trees and the logistic regression see.

a number, a flag         as it is; null is NaN
a list of numbers        one column a place, and their sum
a text                   one column a category of the training rows, 1 where it is that
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import TrainingSetError

Values = npt.NDArray[np.float32]

_MOST_CATEGORIES = 20


class EmptyFeatureError(TrainingSetError):
    """A feature has no value in any training row."""

    def __init__(self, columns: Sequence[str], rows: int) -> None:
        super().__init__(
            f"{', '.join(columns)}: null in all {rows} train rows, so that nothing can be learnt from it; build that "
            "feature over the period, or take it out of the training set"
        )


@dataclass(frozen=True)
class Encoding:
    """How each column becomes numbers; learnt from the training rows, kept with the model."""

    places: Mapping[str, int]
    """Columns that are lists, and how many numbers each has."""
    categories: Mapping[str, tuple[str, ...]]
    """Columns that are texts, and their categories."""
    columns: tuple[str, ...]
    """All columns read, in order."""

    @classmethod
    def of(cls, rows: pa.Table, columns: Sequence[str]) -> "Encoding":
        """The encoding of these columns, which have at least one value each.

        Raises:
            TrainingSetError: a column is missing, or of a type that has no numbers.
            EmptyFeatureError: a column is null throughout.
        """
        _require(rows, columns)
        empty = [name for name in columns if rows[name].null_count == len(rows)]
        if empty:
            raise EmptyFeatureError(empty, len(rows))
        places, categories = {}, {}
        for name in columns:
            kind = rows[name].type
            if pa.types.is_list(kind):
                places[name] = int(pc.max(pc.list_value_length(rows[name])).as_py())
            elif _is_text(kind):
                counted = rows[name].drop_null().value_counts().to_pylist()
                often = sorted(counted, key=lambda one: (-one["counts"], one["values"]))[:_MOST_CATEGORIES]
                categories[name] = tuple(sorted(one["values"] for one in often))
            elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise TrainingSetError(f"{name} is {kind}, which has no numbers; leave it out of the features")
        return cls(places, categories, tuple(columns))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers, in order: `delta`, `hours[0]`, `hours.sum`, `kind=vod`."""
        found: list[str] = []
        for name in self.columns:
            if name in self.places:
                found += [f"{name}[{place}]" for place in range(self.places[name])] + [f"{name}.sum"]
            elif name in self.categories:
                found += [f"{name}={category}" for category in self.categories[name]]
            else:
                found.append(name)
        return tuple(found)

    def values(self, rows: pa.Table) -> Values:
        """[rows, names]; NaN where nothing is known, an unknown category is none of the known ones.

        Raises:
            TrainingSetError: a column is missing.
        """
        _require(rows, self.columns)
        blocks = [self._block(name, rows[name].combine_chunks()) for name in self.columns]
        return np.concatenate(blocks, axis=1) if blocks else np.empty((len(rows), 0), np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "columns": list(self.columns),
            "places": dict(self.places),
            "categories": {name: list(known) for name, known in self.categories.items()},
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "Encoding":
        """What `as_dict` wrote."""
        categories = {name: tuple(known) for name, known in written["categories"].items()}
        return cls(dict(written["places"]), categories, tuple(written["columns"]))

    def _block(self, name: str, column: pa.Array) -> Values:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if name in self.places:
            places = self.places[name]
            if pa.types.is_null(column.type):
                return np.full((len(column), places + 1), np.nan, np.float32)
            return _listed(column, places)
        if name in self.categories:
            known = self.categories[name]
            found = pc.index_in(column.cast(pa.string()), pa.array(known, pa.string())).fill_null(-1).to_numpy()
            return np.asarray(found[:, None] == np.arange(len(known)), np.float32)
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(numbers, np.float32)[:, None]


def _listed(column: pa.Array, places: int) -> Values:
    """[rows, places + 1]: the numbers of each list, and their sum; NaN where there is no list or no such place."""
    block = np.full((len(column), places + 1), np.nan, np.float32)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = pc.list_flatten(column).cast(pa.float64()).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(column)), lengths)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = place < places
    block[row[kept], place[kept]] = flat[kept]
    sums = np.bincount(row, np.nan_to_num(flat), minlength=len(column)).astype(np.float32)
    block[lengths > 0, -1] = sums[lengths > 0]
    return block


def _require(rows: pa.Table, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise TrainingSetError(
            f"the rows lack the columns {', '.join(missing)}; received {', '.join(rows.column_names)}; "
            "build them with the features that the model was trained on"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))
