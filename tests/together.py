"""Which test files run in one process, one after the other, when `make test` runs several processes at once.

Each process has a Ray, a Kafka and whatever else its fixtures start of its own. Files of a folder that share something
costly stay together; every other file goes to whoever is free, the long ones first, so that both end at about the
same time.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

# They share a platform, servers or a backlog that is made once a process, or look at what the one before has left.
FOLDERS = (
    "tests/faults",
    "tests/pipelines/training_sets",
    "tests/pipelines/lakehouse",
    "tests/pipelines/kafka",
    "tests/pipelines/quality",
)
# What takes minutes, the longest first.
LONG = (
    "tests/faults",
    "tests/pipelines/test_train.py",
    "tests/end_to_end/test_road.py",
)


def unit_of(nodeid: str) -> str:
    """What a test runs together with: its folder, if that is one of those, else its file."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in FOLDERS if file.startswith(f"{folder}/")), file)


class TogetherScheduling(LoadScopeScheduling):
    """Whole units go to the processes, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def long_ones_first(items: list[pytest.Item]) -> None:
    """Sort tests so that the long units begin first; the order within a unit stays."""
    items.sort(key=lambda item: _place(unit_of(item.nodeid), LONG))


def _place(unit: str, order: Sequence[str]) -> int:
    return order.index(unit) if unit in order else len(order)
