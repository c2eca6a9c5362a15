"""Routing where every choice was measured: round trips between hosts, slice by slice, so that regret is exact.

Round-trip times of the Seattle network (Zhu et al., IEEE/ACM Transactions on Networking 25(2), 2017), in seconds.

- Ten hosts are what can be chosen (a delivery network's servers), all others are clients. In every slice each client
  chooses one and is told its round trip, and no other: bandit feedback, one measurement a client and round. All clients
  share one policy, which knows before slice `t` what they were told in the slices before. It starts knowing nothing.
- Settings were chosen on the even hosts (as clients and as servers); judged are the odd ones, of which the servers are
  drawn 40 times. No pair of hosts is in both.
- A pair that ever reads 0 is not on offer: 0 is less than the 10 ms that the clock resolves, or no answer.
- Regret is what a client's round trips took beyond those of its best fixed host in hindsight, ms a round, mean over
  clients. `best_of_each_round` is beyond what anyone could know.
- Baselines choose for each client by itself: `last_best` the host whose latest round trip was the shortest,
  `epsilon_greedy` the one of the lowest mean and now and then any (the best epsilon on the even hosts); both ask each
  host once first. `all_probed` is last-best if every host were asked in every slice: ten times the feedback.
- Intervals: bootstrap over client hosts, which bring all their draws.

Folder: files `NAME_T` of a square matrix each, T the slice from 1; a single slice is no sequence and is left out.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.cdn.policy import draw, inverse_gap
from models.cdn.round_trips import RoundTrips, Settings
from models.intervals import bootstrap

SERVERS = 10
DRAWS = 40
GAMMA = 1e4
EPSILON = 0.02
SEED = 20260417
_FILE = re.compile(r"(.+)_(\d+)")
Played = np.ndarray
"""[slices, clients] what each client's choice took."""


def judge(folder: Path) -> dict[str, Any]:
    """Regrets and costs of the policy and the baselines on the odd hosts."""
    found = {name: play_all(slices, parity=1) for name, slices in read(folder).items()}
    if not found:
        raise FileNotFoundError(f"{folder}: no files NAME_T of at least two slices T")
    return found if len(found) > 1 else next(iter(found.values()))


def read(folder: Path) -> dict[str, np.ndarray]:
    """[slices, hosts, hosts] by the name of the sequence."""
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.rglob("*_*")):
        named = _FILE.fullmatch(path.name)
        if named:
            files[named[1]][int(named[2])] = path
    return {
        name: np.stack([np.loadtxt(slices[number]) for number in sorted(slices)])
        for name, slices in files.items()
        if len(slices) > 1
    }


def play_all(slices: np.ndarray, parity: int, settings: Settings | None = None, gamma: float = GAMMA) -> dict[str, Any]:
    """All policies on the hosts of one parity, over all draws of servers."""
    hosts = np.arange(slices.shape[1])[parity::2]
    costs: dict[str, list[np.ndarray]] = defaultdict(list)
    clients_of = []
    for number in range(DRAWS):
        random = np.random.default_rng([SEED, number])
        servers = random.choice(hosts, SERVERS, replace=False)
        clients = np.setdiff1d(hosts, servers)
        trips = slices[:, clients][:, :, servers]
        offered = (trips > 0).all(axis=0)
        trips, offered, clients = (
            trips[:, offered.any(axis=1)],
            offered[offered.any(axis=1)],
            clients[offered.any(axis=1)],
        )
        for name, played in _policies(trips, offered, random, settings, gamma).items():
            costs[name].append(played.mean(axis=0))
        clients_of.append(clients)
    return _report({name: np.concatenate(each) for name, each in costs.items()}, np.concatenate(clients_of))


def _policies(
    trips: np.ndarray, offered: np.ndarray, random: np.random.Generator, settings: Settings | None, gamma: float
) -> dict[str, Played]:
    known = np.where(offered, trips, np.inf)
    fixed = known.mean(axis=0).argmin(axis=1)
    client = np.arange(len(offered))
    before = np.concatenate([known[:1], known[:-1]]).argmin(axis=2)
    return {
        "policy": play_ours(trips, offered, random, settings, gamma),
        "last_best": _play(trips, offered, random, _latest, 0.0),
        "epsilon_greedy": _play(trips, offered, random, _mean, EPSILON),
        "greedy": _play(trips, offered, random, _mean, 0.0),
        "all_probed": np.take_along_axis(trips, before[:, :, None], axis=2)[:, :, 0],
        "best_fixed": trips[:, client, fixed],
        "best_of_each_round": known.min(axis=2),
    }


def play_ours(
    trips: np.ndarray, offered: np.ndarray, random: np.random.Generator, settings: Settings | None, gamma: float
) -> Played:
    """The contextual policy: expected round trips, then inverse gap weighting in units of their median."""
    belief = RoundTrips(*offered.shape, settings)
    client = np.arange(len(offered))
    played = np.empty(trips.shape[:2])
    for now, slice_ in enumerate(trips):
        expected = belief.expected(now)
        chosen, _ = draw(inverse_gap(-expected / np.median(expected), offered, gamma), random)
        played[now] = slice_[client, chosen]
        belief.observe(now, chosen, played[now])
    return played


def _latest(totals: np.ndarray, counts: np.ndarray, last: np.ndarray) -> np.ndarray:
    return last


def _mean(totals: np.ndarray, counts: np.ndarray, last: np.ndarray) -> np.ndarray:
    return totals / np.maximum(counts, 1)


def _play(
    trips: np.ndarray,
    offered: np.ndarray,
    random: np.random.Generator,
    score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    epsilon: float,
) -> Played:
    """A baseline: the host with the lowest score, those never asked first, in an order drawn for each client."""
    totals, counts, last = np.zeros(offered.shape), np.zeros(offered.shape), np.zeros(offered.shape)
    client, order = np.arange(len(offered)), random.random(offered.shape)
    played = np.empty(trips.shape[:2])
    for now, slice_ in enumerate(trips):
        known = np.where(counts > 0, score(totals, counts, last), order - 2)
        best = np.where(offered, known, np.inf).argmin(axis=1)
        any_one = np.where(offered, random.random(offered.shape), -1).argmax(axis=1)
        chosen = np.where(random.random(len(offered)) < epsilon, any_one, best)
        played[now] = slice_[client, chosen]
        totals[client, chosen] += played[now]
        counts[client, chosen] += 1
        last[client, chosen] = played[now]
    return played


def _report(costs: dict[str, np.ndarray], clients: np.ndarray) -> dict[str, Any]:
    names = [name for name in costs if name != "best_fixed"]
    best = costs["best_fixed"]
    table = np.column_stack([costs[name] for name in names])

    def measured(times: np.ndarray) -> np.ndarray:
        total, ideal = times @ table / times.sum(), times @ best / times.sum()
        regret_ms = 1000 * (total - ideal)
        return np.concatenate([regret_ms, total / ideal, (regret_ms[0] - regret_ms[1:])])

    found = [[round(x, 4) for x in (one.mean, one.low, one.high)] for one in bootstrap(measured, clients, SEED)]
    count = len(names)
    return {
        "clients": len(np.unique(clients)),
        "regret_ms": dict(zip(names, found[:count], strict=True)),
        "cost_over_best_fixed": dict(zip(names, found[count : 2 * count], strict=True)),
        "policy_less_ms": dict(zip(names[1:], found[2 * count :], strict=True)),
        "best_fixed_ms": round(float(1000 * best.mean()), 2),
    }
