"""Bulk identifiers against Python's own `uuid` and SplitMix64's published outputs."""

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.identifiers import event_ids, hex_ids, splitmix64

GOLDEN = 0x9E3779B97F4A7C15


def test_splitmix64_gives_the_published_sequence_of_seed_0():
    # The reference implementation's first outputs for the seed 0: its state grows by GOLDEN before every output.
    states = np.array([0, GOLDEN, 2 * GOLDEN % 2**64], dtype=np.uint64)
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(states, 0).tolist() == outputs


def test_splitmix64_keeps_numbers_apart_and_depends_on_the_seed():
    numbers = np.arange(200_000, dtype=np.uint64)
    assert len(np.unique(splitmix64(numbers, 5))) == len(numbers)
    assert not np.array_equal(splitmix64(numbers, 5), splitmix64(numbers, 6))


@given(
    st.lists(
        st.tuples(st.integers(0, 2**48 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
        min_size=1,
        max_size=20,
    )
)
def test_event_ids_are_uuids_version_7_of_their_time_and_bits(rows):
    time_ms, high, low = (np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True))
    ids = event_ids(time_ms.astype(np.int64), high, low).to_pylist()
    for text, (at_ms, first, second) in zip(ids, rows, strict=True):
        assert text.startswith("evt_")
        parsed = uuid.UUID(text[4:])
        assert str(parsed) == text[4:]
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert parsed.int >> 80 == at_ms
        assert parsed.int >> 64 & 0xFFF == first & 0xFFF
        assert parsed.int & (2**62 - 1) == second & (2**62 - 1)


def test_hex_ids_show_every_digit():
    numbers = np.array([0, 255, 2**64 - 1], dtype=np.uint64)
    assert hex_ids("sess_", numbers).to_pylist() == [f"sess_{number:016x}" for number in numbers.tolist()]
    assert hex_ids("x", numbers[:0]).to_pylist() == []
