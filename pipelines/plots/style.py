"""What all pictures have in common: colours that stay apart for the colour-blind, no frame, room for labels."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.errors import ReelError

OURS, THEIRS, ALARM, SHADE = "#1f5fa8", "#8a8a8a", "#c2451e", "#f3d9a4"
# Okabe & Ito's palette (jfly.uni-koeln.de/color, 2008), less its yellow, which is too light for a line.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
WIDTH_IN = 8.0

Numbers = npt.NDArray[np.floating]


class PlotError(ReelError):
    """What was to be drawn cannot be: nothing there, lengths that differ, values that are no numbers."""


def blank(height_in: float) -> Figure:
    """An empty figure of the common width that makes room for its labels."""
    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def bare(*all_axes: Axes) -> None:
    """Takes away the lines that frame a picture and mean nothing."""
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)


def require_alike(picture: str, **columns: npt.NDArray[np.generic]) -> None:
    """Columns of one picture have one value a row, all of them numbers.

    Raises:
        PlotError: none has a row, lengths differ, or a value is not finite.
    """
    lengths: Mapping[str, int] = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        received = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise PlotError(f"{picture} needs as many values in each column, and at least one: received {received}")
    for name, column in columns.items():
        if not np.isfinite(column.astype(np.float64)).all():
            raise PlotError(f"{picture} needs numbers in {name}: received one that is not finite; leave such rows out")


def words(name: str) -> str:
    """A metric's name as people read it."""
    return name.replace("_", " ")
