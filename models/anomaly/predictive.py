"""What values are expected, as distributions: Student's t with 4 degrees of freedom, whose tails bear what is odd.

Its density and distribution function have a closed form (Shaw, "Sampling Student's T distribution", J. Comp. Finance
2006): F(z) = 1/2 + 3/8 s (1 - s^2 / 12), s = z / sqrt(1 + z^2 / 4).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
FREEDOM = 4.0
LOG_NORMALIZER = math.lgamma(2.5) - math.lgamma(2.0) - 0.5 * math.log(FREEDOM * math.pi)
_FARTHEST = 1e100  # its square is still a number
CENTRAL_95 = 2.776445105197793
"""z within which 95 % lie."""


@dataclass(frozen=True)
class Predictive:
    """n distributions of n values to come: where they lie, and how wide they are, in the metric's unit."""

    location: Floats
    scale: Floats

    def log_density(self, values: Floats) -> Floats:
        """[n] of what came, in nats: the logarithmic score, a proper one; higher is better."""
        z = (values - self.location) / self.scale
        density: Floats = LOG_NORMALIZER - 2.5 * np.log1p(z * z / FREEDOM) - np.log(self.scale)
        return density

    def tail(self, values: Floats) -> Floats:
        """[n] the probability of a value at least as far out, on either side; between 0 and 1."""
        z = np.minimum(np.abs(values - self.location) / self.scale, _FARTHEST)
        s = z / np.sqrt(1 + z * z / FREEDOM)
        # 1 - F loses its digits far out. It is (2 - s)^2 (4 + s) / 32, and 2 - s is (4 - s^2) / (2 + s).
        missing = 16 / (4 + z * z) / (2 + s)
        tail: Floats = missing**2 * (4 + s) / 16
        return tail

    def band(self) -> tuple[Floats, Floats]:
        """Lowest and highest values within which 95 % are expected."""
        return self.location - CENTRAL_95 * self.scale, self.location + CENTRAL_95 * self.scale
