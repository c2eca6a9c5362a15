"""Columns as numbers: known answers, and columns nothing can be learnt from."""

import numpy as np
import pyarrow as pa
import pytest

from models.churn.columns import EmptyFeatureError, Encoding
from models.errors import TrainingSetError

ROWS = pa.table(
    {
        "count": pa.array([3, None, 0]),
        "is_new": pa.array([True, False, None]),
        "hours": pa.array([[1.0, 2.5], None, []], pa.list_(pa.float64())),
        "kind": pa.array(["vod", None, "live"]),
    }
)


def test_known_answers() -> None:
    encoding = Encoding.of(ROWS, ROWS.column_names)
    assert encoding.names == ("count", "is_new", "hours[0]", "hours[1]", "hours.sum", "kind=live", "kind=vod")
    nan = np.nan
    expected = [[3, 1, 1, 2.5, 3.5, 0, 1], [nan, 0, nan, nan, nan, 0, 0], [0, nan, nan, nan, nan, 1, 0]]
    np.testing.assert_array_equal(encoding.values(ROWS), np.array(expected, np.float32))
    assert Encoding.from_dict(encoding.as_dict()) == encoding


def test_other_rows_have_the_same_columns() -> None:
    encoding = Encoding.of(ROWS, ROWS.column_names)
    other = pa.table({"count": pa.nulls(1), "is_new": [True], "hours": [[1.0, 2.0, 40.0]], "kind": ["catchup"]})
    np.testing.assert_array_equal(encoding.values(other), np.array([[np.nan, 1, 1, 2, 43, 0, 0]], np.float32))


def test_rows_of_which_nothing_is_known_are_unknown_throughout() -> None:
    encoding = Encoding.of(ROWS, ROWS.column_names)
    nothing = pa.table({name: pa.nulls(2) for name in ROWS.column_names})
    nan = np.nan
    np.testing.assert_array_equal(encoding.values(nothing), np.array([[nan] * 5 + [0, 0]] * 2, np.float32))


def test_what_nothing_can_be_learnt_from_is_named() -> None:
    with pytest.raises(EmptyFeatureError, match="count: null in all 3 train rows"):
        Encoding.of(ROWS.set_column(0, "count", pa.nulls(3, pa.int64())), ROWS.column_names)
    with pytest.raises(TrainingSetError, match="lack the columns tier"):
        Encoding.of(ROWS, ["tier"])
    with pytest.raises(TrainingSetError, match="when is date32"):
        Encoding.of(pa.table({"when": pa.array([0], pa.date32())}), ["when"])
