"""What is tried when a model is tuned: the start first, no configuration twice, nothing outside the declared space."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ConfigurationError
from models.search import configurations
from models.task import load_task, model_names

START = {"lr": 0.1, "depth": 4, "epochs": 10, "seed": 3}
SPACE = {"lr": (0.01, 0.1, 0.5), "depth": (2, 4)}


def test_all_of_a_small_space_is_tried_once_and_the_start_first() -> None:
    tried = configurations(START, SPACE, 100, seed=1)
    assert tried[0] == START
    pairs = sorted((one["lr"], one["depth"]) for one in tried)
    assert pairs == sorted(itertools.product(*SPACE.values()))
    assert all(one.keys() == START.keys() and one["epochs"] == 10 for one in tried)


def test_a_start_outside_the_space_is_tried_beside_it() -> None:
    tried = configurations({**START, "lr": 7.0}, SPACE, 100, seed=1)
    assert len(tried) == 7
    assert tried[0]["lr"] == 7.0


@given(st.integers(1, 6), st.integers(0, 1000))
def test_fewer_trials_are_the_beginning_of_more(count: int, seed: int) -> None:
    tried = configurations(START, SPACE, count, seed)
    assert len(tried) == count
    assert tried == configurations(START, SPACE, 6, seed)[:count]
    assert len({tuple(sorted(one.items())) for one in tried}) == count


def test_a_space_that_fits_no_model_is_named() -> None:
    with pytest.raises(ConfigurationError, match="learning_rate"):
        configurations(START, {"learning_rate": (1,)}, 3, seed=0)
    with pytest.raises(ConfigurationError, match="no value of \\['lr'\\]"):
        configurations(START, {"lr": ()}, 3, seed=0)


@pytest.mark.parametrize("name", model_names())
def test_every_declared_space_is_one_that_the_model_takes(name: str) -> None:
    task = load_task(name)
    for one in configurations(task.configure({}).as_dict(), task.search_space, 20, seed=0):
        assert task.configure(one).as_dict() == one
