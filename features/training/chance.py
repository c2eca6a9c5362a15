"""Chance that is the same on every run, machine and cut of the data: numbers made from the seed and the row itself.

A row's identity is hashed from the columns that tell it apart; a draw mixes it with the seed and with what is drawn.
No generator keeps a state, so neither the order of rows nor the number of tasks can change a draw.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import flat
from features.distinct import codes_of, encoded
from features.errors import LogError
from features.sketches import hash64
from features.windows import Int64s

Hashes = npt.NDArray[np.uint64]
_NULL, _START = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x243F6A8885A308D3)


def identities(rows: pa.Table, columns: Sequence[str]) -> Hashes:
    """64 bits that tell rows apart by these columns, [n]; rows that are equal in them are drawn together.

    Raises:
        LogError: a column is of a type that has no one form (a list, a map).
    """
    mixed = np.full(rows.num_rows, _START, dtype=np.uint64)
    for column in columns:
        mixed = mix(mixed ^ _hashes(rows[column], column))
    return mixed


def combined(ones: Hashes, others: Hashes) -> Hashes:
    """An identity of each pair, [n]."""
    return mix(mix(ones) ^ others)


def uniform(rows: Hashes, seed: int, what: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each row and each thing that is drawn, [n]."""
    (said,) = hash64(pa.array([f"{seed}/{what}"]))
    return (mix(rows ^ said) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(rows: Hashes, seed: int, sizes: Int64s, most: int) -> Int64s:
    """For each row `most` different places of `sizes[i]`, every set of them as likely as any other; [n, most].

    Where there are no more than that, all of them, and -1. This is algorithm F2 of R. Floyd (J. Bentley, "A sample of
    brilliance", CACM 30(9), 1987): the i-th draw is among the first `size - most + i` places, and takes the last of
    them where it draws one that is taken.
    """
    places = np.full((len(rows), most), -1, dtype=np.int64)
    taken = np.minimum(sizes, most)
    for number in range(most):
        last = sizes - taken + number
        drawn = np.floor(uniform(rows, seed, f"place {number}") * (last + 1)).astype(np.int64)
        is_taken = (places[:, :number] == drawn[:, np.newaxis]).any(axis=1)
        places[:, number] = np.where(number < taken, np.where(is_taken, last, drawn), -1)
    return places


def mix(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every bit of a value decides on every other."""
    with np.errstate(over="ignore"):
        values = values + _NULL
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def _hashes(column: pa.ChunkedArray, name: str) -> Hashes:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        texts = encoded(column)
        return np.append(hash64(texts.dictionary.cast(pa.string())), _NULL)[codes_of(texts)]
    if pa.types.is_timestamp(kind):  # in one unit, whichever it is stored in
        column = column.cast(pa.timestamp("us", tz=kind.tz))
    elif pa.types.is_floating(kind):
        bits = np.asarray(flat(column.cast(pa.float64()).fill_null(0.0))).view(np.uint64)
        return np.where(np.asarray(flat(column).is_valid()), mix(bits), _NULL)
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise LogError(f"rows cannot be told apart by {name}, which is {kind}; name texts, numbers or instants")
    whole = np.asarray(flat(column.cast(pa.int64()).fill_null(0)), dtype=np.int64).view(np.uint64)
    return np.where(np.asarray(flat(column).is_valid()), mix(whole), _NULL)
