"""BG/NBD: how often customers buy and when they stop, without a feature; the peer of the churn model.

P. Fader, B. Hardie, K. L. Lee, "'Counting Your Customers' the Easy Way: An Alternative to the Pareto/NBD Model",
Marketing Science 24(2), 2005. While a customer is active purchases are Poisson with a rate from Gamma(r, alpha); after
each purchase the customer stops with a probability from Beta(a, b). A customer is told by `x` repeat purchases, the
last one at `t_x`, and `T`, all since the first purchase, in weeks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import gammaln

Floats = npt.NDArray[np.float64]
_START = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Histories:
    """Customers; arrays of [customers]. Several customers with the same numbers may be one row with their count."""

    x: Floats
    t_x: Floats
    T: Floats


@dataclass(frozen=True)
class BgNbd:
    """A fitted model."""

    r: float
    alpha: float
    a: float
    b: float

    def is_active(self, customers: Histories) -> Floats:
        """[customers] the probability that a customer has not stopped (Fader, Hardie & Lee, "Computing P(alive) using
        the BG/NBD model", note of 2008); 1 for who never bought again."""
        x, t_x, T = customers.x, customers.t_x, customers.T
        odds = self.a / (self.b + np.maximum(x, 1) - 1) * ((self.alpha + T) / (self.alpha + t_x)) ** (self.r + x)
        return np.where(x > 0, 1 / (1 + odds), 1.0)

    def buys_nothing(self, customers: Histories, weeks: float) -> Floats:
        """[customers] the probability of no purchase in the next `weeks`: stopped, or active with none.

        An active customer's rate is Gamma(r + x, alpha + T) now, and nobody stops without a purchase.
        """
        none = ((self.alpha + customers.T) / (self.alpha + customers.T + weeks)) ** (self.r + customers.x)
        return 1 - self.is_active(customers) * (1 - none)


def log_likelihood(model: BgNbd, customers: Histories) -> float:
    """Of all customers; equation 6 of the paper, each factor in logarithms."""
    x, t_x, T = customers.x, customers.t_x, customers.T
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    purchases = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    stays = gammaln(a + b) + gammaln(b + x) - gammaln(b) - gammaln(a + b + x)
    is_active = -(r + x) * np.log(alpha + T)
    has_stopped = np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + t_x)
    either = np.where(x > 0, np.logaddexp(is_active, has_stopped), is_active)
    return float((purchases + stays + either).sum())


def fit(customers: Histories) -> BgNbd:
    """The parameters of the highest likelihood.

    Raises:
        RuntimeError: the search did not end.
    """

    def loss(logs: Floats) -> float:
        return -log_likelihood(BgNbd(*np.exp(logs)), customers) / len(customers.x)

    found = minimize(loss, np.log(_START), method="L-BFGS-B", tol=1e-12, options={"maxiter": 2_000})
    if not found.success:
        raise RuntimeError(f"BG/NBD: the search for the likelihood's maximum ended with {found.message}")
    return BgNbd(*(float(value) for value in np.exp(found.x)))
