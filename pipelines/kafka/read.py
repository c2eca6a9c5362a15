"""Reading one range of offsets to its very end, whatever lies in it.

A range may end in transaction markers or in offsets that compaction removed; neither is ever delivered as a
message. The reader therefore goes by its position and by the end-of-partition event, not by counting messages.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipelines.errors import ReelError
from pipelines.kafka.offsets import OffsetRange

POLL_S = 1.0


class ReadStalledError(ReelError):
    """Kafka stopped delivering in the middle of a range."""

    def __init__(self, wanted: OffsetRange, position: int, reason: str) -> None:
        super().__init__(
            f"reading {wanted.topic}[{wanted.partition}] stopped at offset {position} of {wanted.end}: {reason}. "
            "Nothing of this batch was committed; run it again when the broker answers"
        )


def read_range(
    configuration: Mapping[str, Any], wanted: OffsetRange, batch: int, stall_s: float
) -> Iterator[list[Message]]:
    """Messages with offsets in [start, end), in batches, in order.

    Returns only when the position has passed the end. Raises ReadStalledError when nothing moved for `stall_s`, or
    when the messages cannot be had: deleted since the range was planned, say.
    """
    silence = f"no message arrived for {stall_s:g} s"
    broker_errors: list[str] = []  # a broker that cannot be reached is never an error of the reading itself
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
            "error_cb": lambda error: broker_errors.append(error.str()),
        }
    )
    position = wanted.start
    try:
        consumer.assign([TopicPartition(wanted.topic, wanted.partition, wanted.start)])
        moved = time.monotonic()
        while position < wanted.end:
            before = position
            good: list[Message] = []
            for message in consumer.consume(batch, timeout=POLL_S):
                error, offset = message.error(), message.offset()
                assert offset is not None, "messages of an assigned partition have one"
                if error is None:
                    position = offset + 1
                    if offset < wanted.end:
                        good.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Where the partition ends: past markers that are never delivered.
                    position = max(position, offset)
                else:
                    raise ReadStalledError(wanted, position, error.str())
            if good:
                yield good
            if position > before:
                moved = time.monotonic()
            elif time.monotonic() - moved > stall_s:
                raise ReadStalledError(wanted, position, ", ".join([silence, *broker_errors[-1:]]))
    except KafkaException as error:
        raise ReadStalledError(wanted, position, error.args[0].str()) from None
    finally:
        consumer.close()
