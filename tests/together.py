"""Which test files run in one process, one after the other, when `make test` runs several processes at once.

Each process has a Ray, a Kafka and whatever else its fixtures start of its own. Files that share something
costly stay together; every other file goes to whoever is free, the long ones first, so that all end at about the same
time.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

# They share a platform, servers or a backlog that is made once a process, or look at what the one before has left.
TOGETHER = (
    ("tests/faults/",),
    ("tests/pipelines/contract/test_registry",),
    ("tests/pipelines/feast/test_feast.py", "tests/pipelines/point_in_time/test_join.py"),
    ("tests/pipelines/kafka/",),
    ("tests/pipelines/training_sets/",),
    ("tests/serving/watch/",),
)
# What takes minutes, the longest first.
LONG = (
    "tests/end_to_end/test_road.py",
    "tests/faults/",
)


def unit_of(nodeid: str) -> str:
    """What a test runs together with: the files that one of `TOGETHER` begins the names of, else its own."""
    file = nodeid.partition("::")[0]
    return next((beginnings[0] for beginnings in TOGETHER if file.startswith(beginnings)), file)


class TogetherScheduling(LoadScopeScheduling):
    """Whole units go to the processes, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def long_ones_first(items: list[pytest.Item]) -> None:
    """Sort tests so that the long units begin first; the order within a unit stays."""
    items.sort(key=lambda item: _place(unit_of(item.nodeid), LONG))


def _place(unit: str, order: Sequence[str]) -> int:
    return order.index(unit) if unit in order else len(order)
