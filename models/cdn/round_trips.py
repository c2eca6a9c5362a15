"""How long a round trip to every host would take now, from those that were measured: of chosen hosts only.

Three things are put together, all of them learnt while it goes on:

- What a client can expect of a host: the mean log of its own measurements, drawn towards what the others' say. Round
  trips between hosts are of low rank (Zhu, Liu, Niu, Li & Zhao, "Network latency estimation for personal devices: a
  matrix completion approach", IEEE/ACM Transactions on Networking 25(2), 2017): `log cost = mean + client + host +
  client's place . host's place`, least squares with a ridge, one side after the other.
- How long a measurement holds: when one host's round trip changes, so do those of the client's other hosts, a while
  after the last change. That while is learnt from clients that asked the same host twice: the share of changes by
  rounds since the last one, so the chance that nothing has changed since a host was asked.
- How little is known: a host that was asked `n` times gets the benefit of the doubt, `optimism / sqrt(n + 1)` off the
  log (Auer, Cesa-Bianchi & Fischer, Machine Learning 47, 2002, in its shape; the factor is a setting).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.cdn.off_policy import Floats

Ints = npt.NDArray[np.int64]

_SWEEPS = 8
_LONGEST_ROUNDS = 60
"""Rounds since a change beyond which they count as this many."""


@dataclass(frozen=True)
class Settings:
    """Chosen on the validation hosts of `tests/benchmarks/judged/netlatency.py`."""

    rank: int = 2
    ridge: float = 5.0
    own_weight: float = 2.0
    """A client's own measurements count as one each, what the others say of the pair as this many."""
    optimism: float = 0.4
    least_cost: float = 0.005
    """Costs below it count as it: half of what the clock resolves, in the costs' unit (s)."""
    changes_per_round: float = 0.2
    """Believed before anything is seen, with the weight of one round."""


class RoundTrips:
    """All clients and hosts; costs in any one unit."""

    def __init__(self, clients: int, hosts: int, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        shape = (clients, hosts)
        self._log_sums, self._counts = np.zeros(shape), np.zeros(shape)
        self._last = np.full(shape, np.nan)
        self._asked: Ints = np.full(shape, -1)
        self._changed: Ints = np.zeros(clients, np.int64)
        self._stayed_or_not = np.ones(_LONGEST_ROUNDS + 1)
        self._changes = np.full(_LONGEST_ROUNDS + 1, self.settings.changes_per_round)

    def expected(self, now: int) -> Floats:
        """[clients, hosts] cost of asking each host in round `now`, in the costs' unit, doubts in its favour."""
        if not self._counts.any():
            return np.ones_like(self._counts)
        others = complete(self._log_sums, self._counts, self.settings.rank, self.settings.ridge)
        own = self.settings.own_weight
        usual = (self._log_sums + own * others) / (self._counts + own)
        hoped = np.exp(usual - self.settings.optimism / np.sqrt(self._counts + 1))
        holds = self._holds(now)
        expected: Floats = np.where(holds > 0, holds * np.nan_to_num(self._last) + (1 - holds) * hoped, hoped)
        return expected

    def observe(self, now: int, hosts: Ints, costs: Floats) -> None:
        """What the round trips of round `now` took; [clients] which host each asked, and its cost."""
        client = np.arange(len(hosts))
        before, asked = self._last[client, hosts], self._asked[client, hosts]
        differs = costs != before
        is_known = (asked >= self._changed) & (asked >= 0)
        since = np.minimum(now - self._changed, _LONGEST_ROUNDS)
        twice = is_known & (asked == now - 1)
        np.add.at(self._stayed_or_not, since[twice], 1)
        np.add.at(self._changes, since[twice & differs], 1)
        # A host that was not asked since the last change says nothing of another: then the likelier is believed.
        has_changed = np.where(is_known, differs, self._survival()[since] < 1 / 2)
        self._changed = np.where(has_changed, now, self._changed)
        self._log_sums[client, hosts] += np.where(differs, np.log(np.maximum(costs, self.settings.least_cost)), 0)
        self._counts[client, hosts] += differs
        self._last[client, hosts], self._asked[client, hosts] = costs, now

    def _survival(self) -> Floats:
        """[rounds + 1] the chance that up to so many rounds after a change there was no other; 1 after none."""
        survival: Floats = np.append(1.0, np.cumprod(1 - (self._changes / self._stayed_or_not)[1:]))
        return survival

    def _holds(self, now: int) -> Floats:
        """[clients, hosts] the chance that the last measurement of each pair still holds; 0 where there is none."""
        survival, changed = self._survival(), self._changed[:, None]
        is_known = (self._asked >= changed) & (self._asked >= 0)
        until_now = survival[np.minimum(now - changed, _LONGEST_ROUNDS)]
        until_asked = survival[np.clip(self._asked - changed, 0, _LONGEST_ROUNDS)]
        return np.where(is_known, until_now / np.maximum(until_asked, 1e-9), 0.0)


def complete(sums: Floats, counts: Floats, rank: int, ridge: float) -> Floats:
    """[rows, columns] means of a matrix of which some cells were observed, the others told from those.

    Args:
        sums: [rows, columns] of a cell's observations.
        counts: [rows, columns] how many there were, 0 for none; at least one in all.
        rank: of what remains beside rows' and columns' own levels.
        ridge: penalty on the squares of levels and places, in observations.
    """
    mean = sums.sum() / counts.sum()
    rest = np.divide(sums, counts, out=np.full_like(sums, mean), where=counts > 0) - mean
    random = np.random.default_rng(0)
    rows = np.column_stack([np.zeros(len(rest)), np.ones(len(rest)), random.normal(0, 0.3, (len(rest), rank))])
    count = rest.shape[1]
    columns = np.column_stack([np.ones(count), np.zeros(count), random.normal(0, 0.3, (count, rank))])
    row_free, column_free = [0, *range(2, 2 + rank)], [1, *range(2, 2 + rank)]
    for _ in range(_SWEEPS):
        columns[:, column_free] = _ridge((rest - rows[:, :1]).T, counts.T, rows[:, 1:], ridge)
        rows[:, row_free] = _ridge(rest - columns[:, 1], counts, columns[:, row_free], ridge)
    completed: Floats = mean + rows @ columns.T
    return completed


def _ridge(targets: Floats, weights: Floats, features: Floats, ridge: float) -> Floats:
    """[rows, features] weighted ridge regressions of each row's targets on the same features."""
    squares = np.einsum("ij,ja,jb->iab", weights, features, features) + ridge * np.eye(features.shape[1])
    solved: Floats = np.linalg.solve(squares, ((weights * targets) @ features)[..., None])[..., 0]
    return solved
