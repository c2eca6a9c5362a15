"""The actors of a run of the stream, in their order, and what is asked of all of them at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray

from pipelines.cluster import WorkersLostError, as_list, join_cluster, result_of
from pipelines.kafka.offsets import Offsets
from pipelines.stream.worker import Setup, Worker

# A batch's tables are small: Polars' threads would wait for each other, and actors that share a machine for its cores.
_WORKER = {"env_vars": {"POLARS_MAX_THREADS": "1"}}


class Actors:
    """As many as are asked for, each with its share of the partitions; `process_ids`: of those at work."""

    def __init__(self) -> None:
        self._workers: list[Any] = []
        self.process_ids: list[int] = []

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._workers)

    def start(self, count: int, setup: Setup, first: Offsets) -> None:
        """Have so many take up the rows there are, and read on at the `first` offsets."""
        join_cluster()
        shared = ray.put(setup)
        wheres = [(topic, one) for topic, partitions in first.items() for one in partitions]
        for place in range(count):
            mine: Offsets = {}
            for topic, one in share_of(wheres, place, count):
                mine.setdefault(topic, {})[one] = first[topic][one]
            self._workers.append(ray.remote(Worker).options(runtime_env=_WORKER).remote(place, count, shared, mine))
        self.process_ids = self.of_all("begin")
        logs = self.in_parts("first_logs")
        results([worker.fill.remote(*(some[place] for some in logs)) for place, worker in enumerate(self._workers)])

    def of_all(self, method: str, *arguments: Any) -> list[Any]:
        """What the method of every actor returns."""
        return results([getattr(worker, method).remote(*arguments) for worker in self._workers])

    def in_parts(self, method: str, *arguments: Any) -> list[list[Any]]:
        """References to what the method of every actor returns for each actor."""
        count = len(self._workers)
        return [
            as_list(getattr(worker, method).options(num_returns=count).remote(*arguments)) for worker in self._workers
        ]

    def close(self) -> None:
        """Let go of them."""
        if self._workers:  # `ray.get` of nothing would start a Ray
            with suppress(ray.exceptions.RayError):  # an actor that was lost needs no letting go
                ray.get([worker.close.remote() for worker in self._workers], timeout=5)
        for worker in self._workers:
            ray.kill(worker)


def results(references: list[Any]) -> list[Any]:
    """What the calls return. Raises WorkersLostError, also where what a call was given came from a lost actor."""
    try:
        return [result_of(reference) for reference in references]
    except ray.exceptions.RayError as lost:
        raise WorkersLostError(lost) from None


def share_of(wheres: Sequence[tuple[str, int]], place: int, actors: int) -> list[tuple[str, int]]:
    """The partitions that an actor reads: those of the same number, of whatever topic, by the same one."""
    return [(topic, partition) for topic, partition in wheres if partition % actors == place]


def merged(parts: Iterable[Mapping[str, Mapping[int, int]]]) -> Offsets:
    """The greatest of each partition."""
    whole: Offsets = {}
    for part in parts:
        for topic, partitions in part.items():
            known = whole.setdefault(topic, {})
            for one, at in partitions.items():
                known[one] = max(at, known.get(one, at))
    return whole
