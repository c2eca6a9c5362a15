"""Ranges of offsets cut into work: batches, each one commit, of pieces, each one task."""

from collections.abc import Sequence
from itertools import groupby

from pipelines.kafka.offsets import OffsetRange

Work = tuple[OffsetRange, ...]
"""What one task reads: ranges sorted by topic."""
Batch = list[Work]
"""What one commit carries."""


def batches(ranges: Sequence[OffsetRange], per_batch: int, per_task: int) -> list[Batch]:
    """`ranges` cut into pieces of at most `per_task` offsets, in batches of about `per_batch`.

    Partitions advance together, so that a batch is a slice of time rather than one partition's whole backlog. Small
    ranges share a piece, those of one topic before others: a piece writes one file for each event it meets.
    """
    per_task = min(per_task, per_batch)
    slices: list[list[OffsetRange]] = []
    total = sum(span.size for span in ranges)
    count = max(1, -(-total // per_batch))
    for number in range(count):
        # The same share of every partition, by whole numbers, so that the slices meet without gap or overlap.
        cut = [
            OffsetRange(
                span.topic,
                span.partition,
                span.start + span.size * number // count,
                span.start + span.size * (number + 1) // count,
            )
            for span in ranges
        ]
        # The first batch has a part of every range, be it an empty one: committing it records where each begins, and so
        # that what was lost before it was accepted.
        slices.append([span for span in cut if span.size or number == 0])
    return [_pieces(part, per_task) for part in slices if part]


def _pieces(ranges: Sequence[OffsetRange], per_task: int) -> Batch:
    """Each topic's partitions together as far as they fit, what remains of several topics together too."""
    pieces: list[tuple[OffsetRange, ...]] = []
    remains: list[list[OffsetRange]] = []
    for _, of_topic in groupby(sorted(ranges, key=lambda span: (span.topic, span.partition)), lambda span: span.topic):
        open_piece: list[OffsetRange] = []
        for span in of_topic:
            start = span.start
            while True:
                room = per_task - sum(each.size for each in open_piece)
                end = min(start + room, span.end)
                open_piece.append(OffsetRange(span.topic, span.partition, start, end))
                start = end
                if sum(each.size for each in open_piece) >= per_task:
                    pieces.append(tuple(open_piece))
                    open_piece = []
                if start >= span.end:
                    break
        if open_piece:
            remains.append(open_piece)
    shared: list[OffsetRange] = []
    for rest in sorted(remains, key=lambda part: -sum(span.size for span in part)):
        if shared and sum(span.size for span in (*shared, *rest)) > per_task:
            pieces.append(tuple(shared))
            shared = []
        shared += rest
    if shared:
        pieces.append(tuple(shared))
    # The longest first, so that the last to finish is a short one.
    return sorted(pieces, key=lambda piece: -sum(span.size for span in piece))
