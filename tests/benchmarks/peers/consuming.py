"""What the peers that consume Kafka themselves have in common: a share of the partitions each, and one clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from pipelines.kafka.offsets import OffsetRange

PROCESSES = 2
MESSAGES_PER_CALL = 10_000
_WAIT_S = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Consumed:
    """What all processes of a peer did together, from the first's start to the last's end."""

    messages: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def on_all_processes(work: Callable[[list[OffsetRange]], Result], ranges: Sequence[OffsetRange]) -> list[Result]:
    """`work` on a share of `ranges` in each of `PROCESSES` fresh processes, the largest ranges dealt out first."""
    shares: list[list[OffsetRange]] = [[] for _ in range(PROCESSES)]
    for span in sorted(ranges, key=lambda span: -span.size):
        min(shares, key=lambda share: sum(one.size for one in share)).append(span)
    fresh = get_context("spawn")
    all_there = fresh.Barrier(PROCESSES)  # their start is nobody's speed
    with ProcessPoolExecutor(PROCESSES, fresh, initializer=_wait, initargs=(all_there,)) as pool:
        return list(pool.map(work, shares))


def _wait(all_there: Barrier) -> None:
    all_there.wait()


def consume(bootstrap: str, ranges: Sequence[OffsetRange], *, whole: bool) -> Iterator[list[Message]]:
    """Every message of `ranges`, which hold one for each offset, some thousands at a time.

    `whole`: the ranges go to the ends of their partitions, so that no message needs to be looked at.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reel-peer",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 65536,
        }
    )
    consumer.assign([TopicPartition(span.topic, span.partition, span.start) for span in ranges])
    ends = {(span.topic, span.partition): span.end for span in ranges}
    left = sum(span.size for span in ranges)
    try:
        while left:
            received = consumer.consume(MESSAGES_PER_CALL, _WAIT_S)
            if error := next((message.error() for message in received if message.error()), None):
                raise KafkaException(error)
            if not whole:
                received = _inside(consumer, ends, received)
            left -= len(received)
            yield received
    finally:
        consumer.close()


def _inside(consumer: Consumer, ends: Mapping[tuple[str, int], int], received: list[Message]) -> list[Message]:
    """Messages before the end of their range; a partition that went beyond it is read no further."""
    inside = [message for message in received if message.offset() < ends[message.topic(), message.partition()]]
    if len(inside) < len(received):
        places = {(message.topic(), message.partition()): message.offset() for message in received}  # of their last
        consumer.pause([TopicPartition(*place) for place, offset in places.items() if offset >= ends[place]])
    return inside
