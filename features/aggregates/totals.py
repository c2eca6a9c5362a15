"""Counts, sums, and what is divided out of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.aggregates.base import Aggregate, Amount, Reading, as_is, quotient
from features.filters import Where
from features.states import Distinct, State, Total
from features.windows import Int64s


@dataclass(frozen=True)
class Count(Amount):
    """Number of events, or of those that meet the condition."""

    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """One total."""
        return (Total(where=self.where),)

    def amounts(self, reading: Reading) -> Int64s:
        """The total."""
        return reading.totals(0)


@dataclass(frozen=True)
class Sum(Amount):
    """Sum of a whole-number or Boolean column (null counts 0)."""

    column: str
    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """One total."""
        return (Total(self.column, self.where),)

    def amounts(self, reading: Reading) -> Int64s:
        """The total."""
        return reading.totals(0)


@dataclass(frozen=True)
class DistinctCount(Amount):
    """How many distinct values of a text column: a HyperLogLog estimate, standard error 0.81 %."""

    column: str
    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """One sketch."""
        return (Distinct(self.column, self.where),)

    def amounts(self, reading: Reading) -> Int64s:
        """The estimate."""
        return as_is(reading.bundles[0]).counts()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Rate(Aggregate):
    """An amount divided by a constant: `Rate(Count(), per=7)` is events a day, over 7 days."""

    of: Amount
    per: int

    @property
    def states(self) -> tuple[State, ...]:
        """Those of the amount."""
        return self.of.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def mistake(self, window_ms: int) -> str | None:
        """A rate is per something."""
        return None if self.per > 0 else f"a rate per {self.per} is none; give a whole number above 0"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """0 for an empty window, as the amount."""
        return pa.array(self.of.amounts(readings[0]) / self.per)


@dataclass(frozen=True)
class Ratio(Aggregate):
    """One amount over another, which is counted in units of `per`; null where the other is 0."""

    numerator: Amount
    denominator: Amount
    per: int = 1

    @property
    def states(self) -> tuple[State, ...]:
        """Those of both."""
        return self.numerator.states + self.denominator.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def mistake(self, window_ms: int) -> str | None:
        """The unit is one."""
        return None if self.per > 0 else f"a ratio per {self.per} is none; give a whole number above 0"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """First amount over the second."""
        upper, lower = readings[0].split(len(self.numerator.states))
        return quotient(self.numerator.amounts(upper) * self.per, self.denominator.amounts(lower))


@dataclass(frozen=True)
class Mean(Aggregate):
    """Mean of a whole-number or Boolean column over the events that have a value in it, in units of `unit`.

    With a `weight`, a whole-number column, each value counts as much as its weight.
    """

    column: str
    where: Where = None
    weight: str | None = None
    unit: int = 1

    @property
    def states(self) -> tuple[State, ...]:
        """The sum, and how many values it has or what they weigh."""
        return (
            Total(self.column, self.where, times=self.weight),
            Total(self.column, self.where, present=True, times=self.weight),
        )

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def mistake(self, window_ms: int) -> str | None:
        """The unit is one."""
        return None if self.unit > 0 else f"a unit of {self.unit} is none; give a whole number above 0"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Sum over number; null where no event has a value that weighs anything."""
        return quotient(readings[0].totals(0), readings[0].totals(1) * self.unit)

    def means(self, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
        """(mean, whether there is one), [n] each."""
        means = self.finish([reading])
        return np.asarray(means.fill_null(0.0)), np.asarray(means.is_valid())
