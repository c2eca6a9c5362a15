"""The vocabulary of aggregates: what a feature is of the events in its window.

An aggregate says which states it needs, which parts of the window it reads them over, and what it makes of them.
Empty windows: counts and sums are 0, everything else is null; a ratio with denominator 0 is null.
"""

from features.aggregates.base import Aggregate, Amount, Reading, Span
from features.aggregates.by_key import Mode, RatioByKey, Share, Survival, TopShares, Vector
from features.aggregates.changes import Delta, Slope, Trend
from features.aggregates.totals import Count, DistinctCount, Mean, Rate, Ratio, Sum
from features.aggregates.values import First, Last, Max, Min, Percentile

__all__ = [
    "Aggregate", "Amount", "Count", "Delta", "DistinctCount", "First", "Last", "Max", "Mean", "Min", "Mode",
    "Percentile", "Rate", "Ratio", "RatioByKey", "Reading", "Share", "Slope", "Span", "Sum", "Survival", "TopShares",
    "Trend", "Vector",
]  # fmt: skip
