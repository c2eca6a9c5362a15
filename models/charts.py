"""What a judgement's own pictures are of: arrays by name, drawn elsewhere (`pipelines/plots/`).

Equal charts hold equal arrays, so that two judgements can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating]
Outcomes = npt.NDArray[np.generic]


class _Arrays:
    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [one.name for one in fields(self)]  # type: ignore[arg-type]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Mapping):
        return ours.keys() == theirs.keys() and all(_same(one, theirs[name]) for name, one in ours.items())
    return bool(np.array_equal(ours, theirs)) if isinstance(ours, np.ndarray) else bool(ours == theirs)


@dataclass(frozen=True, eq=False)
class Calibration(_Arrays):
    """Are probabilities kept?"""

    predicted: Numbers
    """[rows] probabilities."""
    happened: Outcomes
    """[rows] 0 or 1."""
    what: str
    """Such as "cancels within 30 days"."""


@dataclass(frozen=True, eq=False)
class Lift(_Arrays):
    """How much a short list holds."""

    scores: Numbers
    """[rows], higher is likelier."""
    happened: Outcomes
    """[rows] 0 or 1."""
    what: str
    baselines: Mapping[str, Numbers] = field(default_factory=dict)
    """[rows] scores of others, by name."""


@dataclass(frozen=True, eq=False)
class Regret(_Arrays):
    """What choosing cost, as it went on."""

    policies: Mapping[str, Numbers]
    """[decisions] the best choice's reward less the chosen one's, in the order they were taken; the model's first."""
    unit: str
    """Of one regret, such as "quality points"."""
    bands: Mapping[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    """Ends of a policy's cumulated regret's 95 % interval, each [decisions], where they are known."""


@dataclass(frozen=True, eq=False)
class Timeline(_Arrays):
    """Alerts on one metric."""

    times_ms: npt.NDArray[np.int64]
    """[points] milliseconds since the epoch, UTC, ascending."""
    observed: Numbers
    expected: Numbers
    """[points] what was held likeliest before the point was seen."""
    low: Numbers
    high: Numbers
    """[points] ends of the band."""
    alerts: npt.NDArray[np.bool_]
    metric: str
    """Whose it is, such as "stalls, CDN a, region west"."""
    unit: str
    """Such as "stalls per hour watched"."""
    windows_ms: tuple[tuple[int, int], ...] = ()
    """(start, end) of what people have labelled as wrong."""
    severity: Numbers | None = None
    """[points] 0 to 1."""
