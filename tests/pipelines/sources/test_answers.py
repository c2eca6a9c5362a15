"""Answers about consent that are no booleans: the stricter reading, counted."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.contract.events import load_contract
from pipelines.settings import TableMapping
from pipelines.sources.admission import RowReader
from pipelines.sources.mapping import MappingError, resolve
from tests.platform import T0, consent, event

CONTRACT = load_contract(Path("configs/schemas"))
COLUMNS = ("consent_analytics", "consent_personalization", "consent_ad_targeting")


def read(rows: pa.Table):
    (found,), strangers = RowReader(CONTRACT, resolve(CONTRACT, rows.schema, TableMapping(), "sources.shop")).read(rows)
    assert strangers == []
    assert found.bad == []
    return found


def launches(answers: pa.Array) -> pa.Table:
    """An event for each answer about personalization."""
    events = [event("app.launch", T0 + n, launch_type="cold", launch_duration_ms=1) for n in range(len(answers))]
    rows = pa.Table.from_pylist(events)
    return rows.set_column(rows.column_names.index(COLUMNS[1]), COLUMNS[1], answers)


def test_on_an_event_a_text_refuses_and_what_is_missing_is_missing():
    found = read(launches(pa.array(["true", "false", "yes", None])))
    assert found.rows[COLUMNS[1]].to_pylist() == [False, False, False, None]
    assert found.rows[COLUMNS[0]].to_pylist() == [True] * 4
    assert found.not_boolean == 3


def test_a_column_of_numbers_answers_nothing_and_is_not_read():
    with pytest.raises(MappingError, match="int64, which cannot be read as consent_personalization, a bool"):
        read(launches(pa.array([1, 0])))


def test_in_a_statement_too():
    rows = pa.Table.from_pylist([consent("ann", T0) | {"allows_personalization": "true"}])
    found = read(rows)
    assert found.rows["allows_personalization"].to_pylist() == [False]
    assert found.rows["allows_analytics"].to_pylist() == [True]
    assert found.not_boolean == 1


def test_booleans_are_taken_as_they_are():
    rows = pa.Table.from_pylist([event("app.launch", T0, launch_type="cold", launch_duration_ms=1)])
    assert (read(rows).not_boolean, read(rows).rows[COLUMNS[2]].to_pylist()) == (0, [True])
