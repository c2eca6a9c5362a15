"""What judging a model comes to: figures with their intervals, on all rows and on slices of them, baselines beside.

A figure is named as it is logged: `auc_pr`, a baseline's `logistic_auc_pr`, what the model is ahead by `auc_pr_gain`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.intervals import Interval

Figure = Interval | float
"""A mean with its 95 % interval; a plain number where an interval would say nothing (a share of the catalogue)."""


@dataclass(frozen=True)
class Slice:
    """Rows that have something in common, and every figure on them."""

    rows: int
    units: int
    """How many viewers, accounts, series they are of: what intervals are drawn by."""
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Line:
    """One line of a picture; `x` and `y` are equally long."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """A picture that belongs to the judgement: calibration, lift, regret over time.

    Axes say their unit; lines are named, the model's first.
    """

    x_label: str
    y_label: str
    lines: Mapping[str, Line]


@dataclass(frozen=True)
class Judged:
    """A model on its test rows."""

    whole: Slice
    slices: Mapping[str, Slice]
    """By name: "market US", "history 5-19". A slice without a row is left out."""
    shown: tuple[str, str]
    """The figure that pictures of slices show, and the baseline's beside it; both are intervals in every slice."""
    headline: tuple[str, ...]
    """Figures that are said where there is room for few."""
    unit: str = "viewers"
    """What `units` counts."""
    charts: Mapping[str, Chart] = field(default_factory=dict)
