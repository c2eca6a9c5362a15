"""Rows become sequences, and every label is learnt exactly once, behind what came before it."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TrainingSetError, UnknownLabelError
from models.recommendation.batches import Sequences, Vocabulary, encode, pad_histories, training_batches, windows

LETTERS = [chr(ord("a") + number) for number in range(26)]


def table(rows: list[tuple[int, list[str] | None, list[str]]]) -> pa.Table:
    strings = pa.list_(pa.string())
    return pa.table(
        {
            "row_id": pa.array([row[0] for row in rows], pa.int64()),
            "profile_id": pa.array(["viewer"] * len(rows)),
            "history": pa.array([row[1] for row in rows], strings),
            "label": pa.array([row[2] for row in rows], strings),
        }
    )


def test_rows_are_sorted_and_unknown_titles_of_histories_left_out() -> None:
    rows = table([(7, ["a", "?", "c"], ["b"]), (2, None, ["c", "a"]), (5, ["!"], ["a"])])
    sequences = encode(rows, Vocabulary(["a", "b", "c"]))
    assert sequences.row_ids.tolist() == [2, 5, 7]
    assert [sequences.history(row).tolist() for row in range(3)] == [[], [], [0, 2]]
    assert [sequences.label(row).tolist() for row in range(3)] == [[2, 0], [0], [1]]
    assert sequences.unknown_titles == 2
    assert sequences.labels == 4


def test_rows_in_chunks_are_the_same_rows() -> None:
    rows = [(number, LETTERS[:number], LETTERS[number : number + 2]) for number in range(6)]
    chunked = pa.concat_tables([table(rows[:2]), table(rows[2:3]).slice(0, 1), table(rows[3:])])
    one, other = encode(table(rows), Vocabulary(LETTERS)), encode(chunked, Vocabulary(LETTERS))
    assert one.titles.tolist() == other.titles.tolist()
    assert one.offsets.tolist() == other.offsets.tolist()


def test_no_rows() -> None:
    assert encode(table([]), Vocabulary(["a"])).labels == 0


def test_names_what_is_missing() -> None:
    with pytest.raises(UnknownLabelError, match=r"2 label titles .* 'x', 'y'"):
        encode(table([(1, [], ["a", "y", "x"])]), Vocabulary(["a"]))
    with pytest.raises(TrainingSetError, match="lacks the columns label"):
        encode(table([]).drop_columns(["label"]), Vocabulary(["a"]))


@st.composite
def some_rows(draw: st.DrawFn) -> Sequences:
    titles = st.lists(st.sampled_from(LETTERS), max_size=12)
    rows = draw(st.lists(st.tuples(titles, titles), min_size=1, max_size=6))
    return encode(table([(number, *row) for number, row in enumerate(rows)]), Vocabulary(LETTERS))


@given(some_rows(), st.integers(2, 9), st.integers(1, 4), st.integers(1, 3))
def test_every_label_is_learnt_once_after_what_came_before_it(
    sequences: Sequences, max_length: int, batch_size: int, workers: int
) -> None:
    start = len(LETTERS)
    expected = []
    for row in range(len(sequences)):
        watched = [*sequences.history(row), *sequences.label(row)]
        expected += [(int(watched[at]), watched[:at]) for at in range(len(sequences.history(row)), len(watched))]
    learnt = []
    cut = windows(sequences, max_length, np.random.default_rng(batch_size))
    for whole in training_batches(sequences.titles, cut, batch_size, start, np.random.default_rng(0)):
        assert len(whole.inputs) <= batch_size
        for rank in range(workers):
            batch = whole.share(rank, workers)
            assert batch.inputs.shape[1] <= max_length
            for inputs, targets, wanted in zip(batch.inputs, batch.targets, batch.learnt, strict=True):
                assert inputs[0] == start
                for at in torch.nonzero(wanted).flatten().tolist():
                    learnt.append((int(targets[at]), inputs[1 : at + 1].tolist()))
    assert sorted(title for title, _ in learnt) == sorted(title for title, _ in expected)
    for title, before in learnt:  # a long row is cut, so what came before may be its last part only
        assert any(title == other and whole[len(whole) - len(before) :] == before for other, whole in expected)


def test_a_row_that_fits_is_seen_whole() -> None:
    sequences = encode(table([(1, LETTERS[:3], LETTERS[3:6])]), Vocabulary(LETTERS))
    (batch,) = training_batches(
        sequences.titles, windows(sequences, 6, np.random.default_rng(0)), 4, 26, np.random.default_rng(0)
    )
    assert batch.inputs.tolist() == [[26, 0, 1, 2, 3, 4]]
    assert batch.targets.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert batch.learnt.tolist() == [[False] * 3 + [True] * 3]


def test_the_generator_alone_decides_the_order() -> None:
    rows = [(number, [], [letter]) for number, letter in enumerate(LETTERS)]
    sequences = encode(table(rows), Vocabulary(LETTERS))

    def order(seed: int) -> list[int]:
        batches = training_batches(
            sequences.titles, windows(sequences, 4, np.random.default_rng(0)), 3, 26, np.random.default_rng(seed)
        )
        return [title for batch in batches for title in batch.targets[:, 0].tolist()]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(26))


def test_histories_keep_their_last_titles() -> None:
    histories = [np.arange(5, dtype=np.int32), np.array([], np.int32), np.array([7], np.int32)]
    inputs, last = pad_histories(histories, max_length=4, start_token=9)
    assert inputs.tolist() == [[9, 2, 3, 4], [9, 9, 9, 9], [9, 7, 9, 9]]
    assert last.tolist() == [3, 0, 1]


def test_a_long_row_is_cut_elsewhere_every_time_and_never_without_context() -> None:
    titles = [LETTERS[at % 26] for at in range(100)]
    sequences = encode(table([(1, titles[:30], titles[30:])]), Vocabulary(LETTERS))
    seen = set()
    for seed in range(20):
        cut = windows(sequences, 20, np.random.default_rng(seed))
        assert all(window.stop - window.start <= 20 for window in cut)
        assert all(window.learn_from - window.start >= 4 for window in cut[1:])  # a fifth of 20; the last cut may
        earliest = cut[-1]  # have less, where it learns all that it holds
        assert (earliest.learn_from, earliest.start) == (30, earliest.stop - 20)
        seen.add(tuple(window.learn_from for window in cut))
    assert len(seen) > 5
