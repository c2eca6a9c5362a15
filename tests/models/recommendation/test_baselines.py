"""Popularity and item-kNN by hand."""

import math

import numpy as np
import pytest

from models.recommendation.batches import Vocabulary, encode
from models.recommendation.neighbours import ItemNeighbours
from models.recommendation.popularity import Popularity
from tests.models.recommendation.test_batches import table

ABC = Vocabulary(["a", "b", "c"])


def columns(*titles: int) -> np.ndarray:
    return np.array(titles, np.int32)


def test_popularity_is_the_same_for_everyone() -> None:
    scores = Popularity(ABC, {"b": 5, "c": 2, "not in the catalogue": 9}).score([columns(), columns(1)])
    assert scores.tolist() == [[0, 5, 2], [0, 5, 2]]


def test_neighbours_by_hand() -> None:
    # Viewer 0 watched a, b (in two rows); viewer 1 a, b, c; viewer 2 c.
    train = encode(table([(0, [], ["a"]), (1, ["a"], ["b"]), (2, [], ["a", "b", "c"]), (3, [], ["c"])]), ABC)
    knn = ItemNeighbours(ABC, train, np.array([0, 0, 1, 2]), shrinkage=1.0, half_life=1.0)
    # a: 2 viewers, b: 2, c: 2; together a-b: 2, a-c: 1, b-c: 1; cosine 2 and 1 over sqrt(2 x 2), plus shrinkage 1.
    ab, ac, bc = 2 / 3, 1 / 3, 1 / 3
    assert knn.score([columns(0)])[0] == pytest.approx([0, ab, ac])
    # The last title weighs 1, the one before it half.
    assert knn.score([columns(0, 1)])[0] == pytest.approx([ab, 0.5 * ab, 0.5 * ac + bc])
    assert knn.score([columns()])[0].tolist() == [0, 0, 0]


def test_only_the_nearest_neighbours_are_kept() -> None:
    train = encode(table([(0, [], ["a", "b"]), (1, [], ["a", "b", "c"])]), ABC)
    knn = ItemNeighbours(ABC, train, np.array([0, 1]), neighbours=1, shrinkage=0.0)
    assert knn.score([columns(0)])[0] == pytest.approx([0, 2 / math.sqrt(4), 0])
