"""One trouble, one alarm: what goes on for hours, or comes back within them, is said once."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class Debounce:
    """Lets a score through where it is above all of the last `rows`, those not let through among them; else it is 0.

    So a trouble is told again while it gets worse, and not while it stays as it is. No threshold comes in.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._row = 0
        self._falling: deque[tuple[int, float]] = deque()  # (row, score), ever lower: the first is the highest

    def passed(self, score: float) -> float:
        """The score, or 0."""
        while self._falling and self._falling[0][0] < self._row - self._rows:
            self._falling.popleft()
        is_highest = not self._falling or score > self._falling[0][1]
        while self._falling and self._falling[-1][1] <= score:
            self._falling.pop()
        self._falling.append((self._row, score))
        self._row += 1
        return score if is_highest else 0.0

    def state(self) -> dict[str, Any]:
        """All that `resume` needs, as JSON has it."""
        return {"row": self._row, "falling": [list(kept) for kept in self._falling]}

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self._row = state["row"]
        self._falling = deque((row, score) for row, score in state["falling"])


def debounced(scores: Sequence[float] | npt.NDArray[np.float64], rows: int) -> npt.NDArray[np.float64]:
    """[scores] what a new `Debounce` lets through of them."""
    debounce = Debounce(rows)
    return np.array([debounce.passed(float(score)) for score in scores])
