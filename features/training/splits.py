"""Splits: train, validation and test lie one after another in time, with a gap between them.

    train            t < validation - gap
    validation       validation <= t < test - gap
    test             test <= t

A row of the gap is in none. The gap is at least the horizon, so that no label of a split reaches into the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from features.errors import DeclarationError
from features.windows import HOUR_MS, Int64s

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Bounds:
    """When validation and test begin, and how long before it nothing is taken."""

    validation_ms: int
    test_ms: int
    gap_ms: int

    def split_of(self, instants_ms: Int64s) -> Int64s:
        """The place in `SPLITS` of each instant, [n]; -1 in a gap."""
        place = np.full(len(instants_ms), -1, dtype=np.int64)
        place[instants_ms < self.validation_ms - self.gap_ms] = 0
        place[(instants_ms >= self.validation_ms) & (instants_ms < self.test_ms - self.gap_ms)] = 1
        place[instants_ms >= self.test_ms] = 2
        return place


@dataclass(frozen=True)
class SplitAt:
    """Validation and test begin at given instants (ms since 1970). `gap_ms`: None is the horizon."""

    validation_ms: int
    test_ms: int
    gap_ms: int | None = None

    @classmethod
    def days(cls, validation: str, test: str, gap_ms: int | None = None) -> "SplitAt":
        """From days or instants in UTC: `SplitAt.days("2026-03-01", "2026-04-01")`."""
        return cls(_instant_ms(validation), _instant_ms(test), gap_ms)

    def bounds(self, gap_ms: int, rows_by_hour: Mapping[int, int]) -> Bounds:
        """As declared, whatever rows there are."""
        return Bounds(self.validation_ms, self.test_ms, gap_ms)

    def check(self, gap_ms: int) -> None:
        """Raise `DeclarationError` where no validation row could be."""
        if self.test_ms - gap_ms <= self.validation_ms:
            raise DeclarationError(
                f"split: validation would last from {self.validation_ms} to {self.test_ms} less the gap of {gap_ms} "
                "ms, which is not at all; begin the test later, or shorten the horizon"
            )


@dataclass(frozen=True)
class SplitByShare:
    """Validation and test are the last shares of the rows in time, to the hour. `gap_ms`: None is the horizon.

    The shares are of the rows before those of the gaps are left out.
    """

    validation: float = 0.1
    test: float = 0.1
    gap_ms: int | None = None

    def bounds(self, gap_ms: int, rows_by_hour: Mapping[int, int]) -> Bounds:
        """From how many rows each hour since 1970 has; not empty."""
        return Bounds(
            boundary_ms(rows_by_hour, 1 - self.validation - self.test), boundary_ms(rows_by_hour, 1 - self.test), gap_ms
        )

    def check(self, gap_ms: int) -> None:
        """Raise `DeclarationError` where they are no shares."""
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise DeclarationError(
                f"split: the shares {self.validation} and {self.test} leave nothing to train on, or are none"
            )


Split = SplitAt | SplitByShare


def boundary_ms(rows_by_hour: Mapping[int, int], share: float) -> int:
    """End of the first hour by which at least this share of the rows has come; of at least one row."""
    hours = sorted(rows_by_hour)
    cumulated = np.cumsum([rows_by_hour[hour] for hour in hours])
    return (hours[int(np.searchsorted(cumulated, share * cumulated[-1]))] + 1) * HOUR_MS


def _instant_ms(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise DeclarationError(f"split: {text!r} is no day or instant; write it as 2026-03-01") from None
    return round((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)
