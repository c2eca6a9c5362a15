"""What the values of a feature look like. Parts that are summarized one by one merge to what the whole would give.

Every kind of value is told by numbers, which have quantiles, a mean and a range, and by keys, which weigh more or less:

    values             numbers                    keys, and what each weighs
    numbers            themselves                 none
    texts              their length, characters   themselves, 1
    lists of texts     their length, elements     their elements, 1
    lists of numbers   their elements             their places from 0, the number there (its size, if negative)
    maps to numbers    their values               their keys, the value there (its size, if negative)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat
from features.number_counts import NumberCounts, Numbers
from features.sketches import Sketches, cells_of, merge_stored
from features.windows import Int64s

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
KEYS_KEPT = 500
_ROUNDING = 1e-9  # how far, of the bound, a number may lie outside of its range and still be counted as within


class Measure(StrEnum):
    """What the numbers of a feature are."""

    VALUE = "value"
    ELEMENT = "element"
    LENGTH = "length"

    @classmethod
    def of(cls, kind: pa.DataType) -> "Measure":
        """The measure of values of an Arrow type."""
        if pa.types.is_map(kind):
            return cls.ELEMENT
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return cls.LENGTH if _is_text(kind.value_type) else cls.ELEMENT
        return cls.LENGTH if _is_text(kind) else cls.VALUE


@dataclass(frozen=True)
class Summary:
    """All that is kept of some values, to be merged with others and described.

    entities   of which the values are; parts to be merged have none in common
    elements   that lists and maps hold, characters of texts
    outside    numbers out of the declared range, or infinite, or no numbers; the infinite are in none of the others
    total      sum of the numbers
    squares    sum of the squares of what each key weighs each time
    seen       HyperLogLog sketch of the distinct numbers
    """

    count: int
    nulls: int
    entities: int
    elements: int
    outside: int
    total: float
    numbers: NumberCounts
    keys: Mapping[str, float]
    squares: float
    seen: bytes


@dataclass(frozen=True)
class Description:
    """What is said of some values.

    measure        what its numbers are
    distinct       keys of texts, lists of texts and maps (exactly); else numbers (HyperLogLog, standard error 0.81 %)
    mean_length    elements a list or map, characters a text; None for numbers
    quantiles      [len(QUANTILES)], empty without a number
    keys           the `KEYS_KEPT` that weigh most, heaviest first
    keys_weight    what all keys weigh
    keys_size      as how many keys of equal weight they count: weight squared by the sum of squares (L. Kish, "Survey
                   Sampling", 1965, on the effective size of a weighted sample)
    """

    measure: Measure
    count: int
    nulls: int
    entities: int
    outside: int
    distinct: int
    mean: float | None
    mean_length: float | None
    least: float | None
    greatest: float | None
    quantiles: tuple[float, ...]
    keys: Mapping[str, float]
    keys_weight: float
    keys_size: float
    buckets: Int64s
    bucket_counts: Int64s

    @property
    def present(self) -> int:
        """Values that are not null."""
        return self.count - self.nulls

    def quantile(self, share: float) -> float | None:
        """One of `QUANTILES`."""
        return self.quantiles[QUANTILES.index(share)] if self.quantiles else None


def summarize(values: pa.Array | pa.ChunkedArray, entities: int, bounds: tuple[float, float] | None = None) -> Summary:
    """Summary of a feature's values, [n], of so many entities; `bounds` is the declared range of every number."""
    column = flat(values)
    present = column.drop_null()
    numbers, elements = _numbers(present)
    keys, squares = _keys(present)
    is_finite = np.isfinite(numbers)
    finite = numbers[is_finite] + 0.0  # of the two zeros the positive one
    return Summary(
        count=len(column),
        nulls=column.null_count,
        entities=entities,
        elements=elements,
        outside=int((~is_finite).sum()) + _count_outside(finite, bounds),
        total=float(finite.sum()),
        numbers=NumberCounts.of(finite),
        keys=keys,
        squares=squares,
        seen=_sketch(finite) if _is_told_by_numbers(column.type) else b"",
    )


def merge(parts: Sequence[Summary]) -> Summary:
    """Summary of the values of all parts together; only the last bits of sums depend on the parts and their order."""
    keys: Counter[str] = Counter()
    for part in parts:
        keys.update(part.keys)
    return Summary(
        count=sum(part.count for part in parts),
        nulls=sum(part.nulls for part in parts),
        entities=sum(part.entities for part in parts),
        elements=sum(part.elements for part in parts),
        outside=sum(part.outside for part in parts),
        total=sum(part.total for part in parts),
        numbers=NumberCounts.merged([part.numbers for part in parts]),
        keys=keys,
        squares=sum(part.squares for part in parts),
        seen=merge_stored([part.seen for part in parts]),
    )


def describe(summary: Summary, kind: pa.DataType) -> Description:
    """What is said of the summarized values, which are of an Arrow type."""
    numbers, size = summary.numbers, summary.numbers.size
    present = summary.count - summary.nulls
    heaviest = sorted(summary.keys.items(), key=lambda item: (-item[1], item[0]))
    measure, weight = Measure.of(kind), sum(summary.keys.values())
    return Description(
        measure=measure,
        count=summary.count,
        nulls=summary.nulls,
        entities=summary.entities,
        outside=summary.outside,
        distinct=_distinct(summary.seen) if _is_told_by_numbers(kind) else len(summary.keys),
        mean=summary.total / size if size else None,
        mean_length=summary.elements / present if present and measure is not Measure.VALUE else None,
        least=float(numbers.least[0]) if size else None,
        greatest=float(numbers.greatest[-1]) if size else None,
        quantiles=tuple(numbers.quantile(share) for share in QUANTILES) if size else (),
        keys=dict(heaviest[:KEYS_KEPT]),
        keys_weight=weight,
        keys_size=weight**2 / summary.squares if summary.squares else 0.0,
        buckets=numbers.buckets,
        bucket_counts=numbers.counts,
    )


def _numbers(present: pa.Array) -> tuple[Numbers, int]:
    """(numbers, elements) of values that are not null."""
    kind = present.type
    if pa.types.is_map(kind):
        items = present.items[_entries(present)]
        return _as_numbers(items.drop_null()), len(items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        elements = present.flatten()
        if _is_text(kind.value_type):
            return _as_numbers(pc.list_value_length(present)), len(elements)
        return _as_numbers(elements.drop_null()), len(elements)
    if _is_text(kind):
        lengths = _as_numbers(pc.utf8_length(present))
        return lengths, int(lengths.sum())
    return _as_numbers(present), 0


def _keys(present: pa.Array) -> tuple[dict[str, float], float]:
    """(key to what it weighs in values that are not null, sum of squares of what each weighs each time)."""
    kind = present.type
    if _is_text(kind):
        return _weights(present, None)
    if pa.types.is_map(kind):
        entries = _entries(present)
        return _weights(present.keys[entries], present.items[entries])
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return {}, 0.0
    elements = present.flatten()
    if _is_text(kind.value_type):
        return _weights(elements, None)
    lengths = np.asarray(pc.list_value_length(present), dtype=np.int64)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return _weights(pa.array(np.arange(len(elements)) - first).cast(pa.string()), elements)


def _weights(keys: pa.Array, weights: pa.Array | None) -> tuple[dict[str, float], float]:
    encoded = keys.drop_null().dictionary_encode() if weights is None else keys.dictionary_encode()
    added = np.ones(len(encoded)) if weights is None else _as_weights(weights)
    totals = np.bincount(np.asarray(encoded.indices), weights=added, minlength=len(encoded.dictionary))
    return dict(zip(encoded.dictionary.to_pylist(), totals.tolist(), strict=True)), float((added**2).sum())


def _as_weights(numbers: pa.Array) -> Numbers:
    """The size of each number; 0 for null and for what is not finite."""
    sizes = np.abs(_as_numbers(pc.fill_null(numbers, 0)))
    return np.where(np.isfinite(sizes), sizes, 0.0)


def _entries(maps: pa.MapArray) -> slice:
    """Where the entries of the maps lie among `maps.keys` and `maps.items`."""
    return slice(maps.offsets[0].as_py(), maps.offsets[-1].as_py()) if len(maps) else slice(0, 0)


def _count_outside(finite: Numbers, bounds: tuple[float, float] | None) -> int:
    if bounds is None:
        return 0
    low, high = (bound + side * _ROUNDING * max(1.0, abs(bound)) for bound, side in zip(bounds, (-1, 1), strict=True))
    return int(((finite < low) | (finite > high)).sum())


def _sketch(finite: Numbers) -> bytes:
    cells = cells_of(pa.array(finite).cast(pa.string()))
    stored: bytes = Sketches.of_entries(1, np.zeros(len(cells), dtype=np.int64), cells).to_arrow()[0].as_py()
    return stored


def _distinct(seen: bytes) -> int:
    return int(Sketches.from_arrow(pa.array([seen], pa.binary())).counts()[0])


def _is_told_by_numbers(kind: pa.DataType) -> bool:
    """Whether its distinct numbers are counted rather than its keys: keys of lists of numbers are but places."""
    return Measure.of(kind) is not Measure.LENGTH and not pa.types.is_map(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_numbers(values: pa.Array) -> Numbers:
    return np.asarray(values.cast(pa.float64(), safe=False), dtype=np.float64)
