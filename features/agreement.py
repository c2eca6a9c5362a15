"""How far a value that was served agrees with the one that is worked out later for the same instant.

    identical   equal to the bit, or null both
    close       numbers that differ by no more than 1e-9 of the larger, or lists and maps of such
    missing     served as null, and there is one
    extra       served, and there is none
    different   all else

Errors of numbers are symmetric: 2 |a - b| / (|a| + |b|), 0 where both are 0, so from 0 to 2; their mean is SMAPE
(J. S. Armstrong, Long-Range Forecasting, 1985; S. Makridakis, Accuracy measures: theoretical and practical concerns,
International Journal of Forecasting 9, 1993). Lists and maps are compared element by element; one that a side lacks
has the greatest error. Pairs with a null are left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

CLOSE = 1e-9
GREATEST_ERROR = 2.0


class Agreement(StrEnum):
    """Of one value."""

    IDENTICAL = "identical"
    CLOSE = "close"
    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"

    @property
    def is_exact(self) -> bool:
        """Whether the values are the same, but for the last digits of a number."""
        return self in (Agreement.IDENTICAL, Agreement.CLOSE)


def agreement(served: Any, offline: Any) -> Agreement:
    """How far two values agree: numbers, texts, booleans, lists and maps of them, or None."""
    if served is None or offline is None:
        if served is offline:
            return Agreement.IDENTICAL
        return Agreement.MISSING if served is None else Agreement.EXTRA
    if served == offline:
        return Agreement.IDENTICAL
    return Agreement.CLOSE if _are_close(served, offline) else Agreement.DIFFERENT


def errors(served: Any, offline: Any) -> Iterator[float]:
    """The symmetric error of each pair of numbers in two values; none where there are no numbers."""
    if served is None or offline is None:
        return
    if _is_number(served) and _is_number(offline):
        yield _error(served, offline)
    elif isinstance(served, list) and isinstance(offline, list):
        for one, other in zip(served, offline, strict=False):
            yield from errors(one, other)
        longer = max(served, offline, key=len)
        yield from _lacking(longer[min(len(served), len(offline)) :])
    elif isinstance(served, dict) and isinstance(offline, dict):
        for key in served.keys() & offline.keys():
            yield from errors(served[key], offline[key])
        yield from _lacking([(served | offline)[key] for key in served.keys() ^ offline.keys()])


@dataclass
class Tally:
    """How many values of one feature agree how far, and the sum of their numbers' errors."""

    identical: int = 0
    close: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    error_sum: float = 0.0
    pairs: int = 0
    """Pairs of numbers."""

    def add(self, served: Any, offline: Any) -> Agreement:
        """Count one value; how far it agrees."""
        found = agreement(served, offline)
        setattr(self, found, getattr(self, found) + 1)
        for error in errors(served, offline):
            self.error_sum += error
            self.pairs += 1
        return found

    def merge(self, other: "Tally") -> None:
        """Count what another has counted."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def compared(self) -> int:
        """Values."""
        return self.identical + self.close + self.missing + self.extra + self.different

    @property
    def exact_share(self) -> float | None:
        """Share of values that are identical or close; None of none."""
        return (self.identical + self.close) / self.compared if self.compared else None

    @property
    def smape(self) -> float | None:
        """Mean error, from 0 to 2; None where there is no pair of numbers."""
        return self.error_sum / self.pairs if self.pairs else None


def _are_close(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=0.0)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_close, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_close(one[key], other[key]) for key in one)
    return bool(one == other)


def _error(one: float, other: float) -> float:
    scale = abs(one) + abs(other)
    return 0.0 if scale == 0 else GREATEST_ERROR * abs(one - other) / scale


def _lacking(elements: list[Any]) -> Iterator[float]:
    return (GREATEST_ERROR for element in elements if _is_number(element))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
