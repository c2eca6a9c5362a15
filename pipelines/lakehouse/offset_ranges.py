"""Ranges of offsets: what of Kafka's topics was read, put together from what many commits have read."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from pipelines.kafka.offsets import OffsetRange

Ranges = tuple[tuple[int, int], ...]
"""[start, end) each, ascending, none touching another."""
Offsets = Mapping[str, Mapping[int, Ranges]]
"""topic -> partition -> what was read"""


def offsets_of(ranges: Iterable[OffsetRange]) -> Offsets:
    """Ranges by topic and partition; those that touch are one, and empty ones are left out."""
    found: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for one in ranges:
        if one.size > 0:
            found.setdefault(one.topic, {}).setdefault(one.partition, []).append((one.start, one.end))
    return {
        topic: {partition: _joined(found[topic][partition]) for partition in sorted(found[topic])}
        for topic in sorted(found)
    }


def union(several: Iterable[Offsets]) -> Offsets:
    """All that was read, each offset once."""
    return offsets_of(
        OffsetRange(topic, partition, start, end)
        for offsets in several
        for topic, partitions in offsets.items()
        for partition, ranges in partitions.items()
        for start, end in ranges
    )


def gaps(ranges: Ranges) -> Ranges:
    """What lies between the first offset and the last, and was not read."""
    return tuple((before[1], after[0]) for before, after in pairwise(ranges))


def _joined(ranges: list[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)
