"""Reading one range of offsets to its very end, whatever lies in it.

A range may end in transaction markers or in offsets that compaction removed; neither is ever delivered as a
message. The reader therefore goes by its position and by the end-of-partition event, not by counting messages.
"""

import time
from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipelines.errors import ReelError
from pipelines.offsets import OffsetRange

POLL_S = 1.0


class ReadStalledError(ReelError):
    """Kafka stopped delivering in the middle of a range."""

    def __init__(self, wanted: OffsetRange, position: int, stall_s: float, reason: str) -> None:
        super().__init__(
            f"reading {wanted.topic}[{wanted.partition}] stopped at offset {position} of {wanted.end}: {reason} "
            f"for {stall_s:g} s. Nothing of this batch was committed; run it again when the broker answers"
        )


def read_range(
    configuration: Mapping[str, object], wanted: OffsetRange, batch: int, stall_s: float
) -> Iterator[list[Message]]:
    """Messages with offsets in [start, end), in batches, in order.

    Returns only when the position has passed the end. Raises ReadStalledError when nothing moved for `stall_s`.
    """
    consumer = Consumer(
        {
            **configuration,
            "group.id": "reel-read",  # never committed to: offsets live in the lakehouse
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 65536,
        }
    )
    try:
        consumer.assign([TopicPartition(wanted.topic, wanted.partition, wanted.start)])
        position = wanted.start
        moved = time.monotonic()
        reason = "no message arrived"
        while position < wanted.end:
            messages = consumer.consume(batch, timeout=POLL_S)
            good: list[Message] = []
            for message in messages:
                error = message.error()
                if error is None:
                    position = message.offset() + 1
                    if message.offset() < wanted.end:
                        good.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Where the partition ends: past markers that are never delivered.
                    position = max(position, message.offset())
                elif error.fatal() or (not error.retriable() and error.code() != KafkaError._TRANSPORT):
                    raise KafkaException(error)
                else:
                    reason = error.str()
            if good:
                yield good
            if messages and position > wanted.start:
                moved = time.monotonic()
            if time.monotonic() - moved > stall_s:
                raise ReadStalledError(wanted, position, stall_s, reason)
    except KafkaException as error:
        raise ReadStalledError(wanted, position, stall_s, error.args[0].str()) from None
    finally:
        consumer.close()
