"""Ranges cut into work: nothing lost, nothing twice, nothing out of order."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.kafka.offsets import OffsetRange
from pipelines.work import batches

places = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3))
spans = st.dictionaries(places, st.tuples(st.integers(0, 9), st.integers(0, 30))).map(
    lambda found: [
        OffsetRange(topic, partition, start, start + size) for (topic, partition), (start, size) in found.items()
    ]
)
sizes = st.integers(1, 20)


def offsets_of(ranges):
    return Counter((span.topic, span.partition, offset) for span in ranges for offset in range(span.start, span.end))


@settings(deadline=None)
@given(ranges=spans, per_batch=sizes, per_task=sizes)
def test_every_offset_is_in_one_piece_and_a_batch_leaves_no_gap_behind_it(ranges, per_batch, per_task):
    cut = batches(ranges, per_batch, per_task)
    assert offsets_of(span for batch in cut for work in batch for span in work) == offsets_of(ranges)
    assert all(batch and all(batch) for batch in cut)
    assert all(sum(span.size for span in work) <= per_task for batch in cut for work in batch)
    # Shares are whole numbers, so that a batch may have one message of each range more than its size.
    assert all(sum(span.size for work in batch for span in work) <= per_batch + len(ranges) for batch in cut)
    read_to = {(span.topic, span.partition): span.start for span in ranges}
    for batch in cut:
        own = sorted((span for work in batch for span in work), key=lambda span: (span.start, span.end))
        for span in own:
            assert span.start == read_to[span.topic, span.partition]
            read_to[span.topic, span.partition] = span.end
    assert read_to == {(span.topic, span.partition): span.end for span in ranges}


@settings(deadline=None)
@given(ranges=spans, per_task=sizes)
def test_a_piece_reads_a_partition_once_and_its_topics_one_after_the_other(ranges, per_task):
    for batch in batches(ranges, 1_000, per_task):
        for work in batch:
            assert len({(span.topic, span.partition) for span in work}) == len(work)
            topics = [span.topic for span in work]
            assert [topic for at, topic in enumerate(topics) if topics[at - 1 : at] != [topic]] == list(
                dict.fromkeys(topics)
            )


def test_partitions_advance_together():
    ranges = [OffsetRange("t", 0, 0, 40), OffsetRange("t", 1, 0, 40), OffsetRange("t", 2, 5, 25)]
    first, *_ = batches(ranges, per_batch=25, per_task=100)
    assert first == [(OffsetRange("t", 0, 0, 10), OffsetRange("t", 1, 0, 10), OffsetRange("t", 2, 5, 10))]


def test_an_empty_range_is_read_so_that_an_accepted_loss_is_recorded():
    assert batches([OffsetRange("t", 0, 7, 7)], 10, 10) == [[(OffsetRange("t", 0, 7, 7),)]]


def test_small_topics_share_a_piece():
    ranges = [
        OffsetRange("big", 0, 0, 100),
        OffsetRange("s", 0, 0, 3),
        OffsetRange("s", 1, 0, 3),
        OffsetRange("u", 0, 0, 4),
    ]
    (batch,) = batches(ranges, 1_000, 50)
    assert sorted(sorted({span.topic for span in work}) for work in batch) == [["big"], ["big"], ["s", "u"]]
