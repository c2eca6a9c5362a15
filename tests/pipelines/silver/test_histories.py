"""As-of look-up against DuckDB's ASOF JOIN."""

import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipelines.lakehouse import tables
from pipelines.silver.histories import History
from tests.pipelines.silver.bronze_rows import Row, table_of
from tests.platform import HOUR, T0

YEAR_9999_MS = 253_370_764_800_000


def facts_of(dice: random.Random, count: int) -> pa.Table:
    """Subscriptions of few users at few instants, so that many meet; some say nothing, some are of nobody."""
    rows: list[Row] = [
        {
            "event_id": f"evt_{number:03d}",
            "event_timestamp": dice.choice((T0, T0 + 1, T0 + HOUR, 0, YEAR_9999_MS)),
            "user_id": dice.choice((None, "", "ann", "bob", "çé")),
            "subscription_tier": dice.choice((None, "", "basic", "premium")),
            "valid_until": dice.choice((None, T0 + HOUR)),
        }
        for number in range(count)
    ]
    dice.shuffle(rows)
    return table_of(rows, pa.schema([field.with_nullable(True) for field in tables.SUBSCRIPTIONS]))


@pytest.mark.parametrize("seed", range(20))
def test_the_row_in_force_is_duckdbs(seed: int):
    dice = random.Random(seed)
    facts = facts_of(dice, dice.choice((0, 1, 5, 40)))
    keys = [dice.choice((None, "", "ann", "bob", "çé", "nobody")) for _ in range(60)]
    at_ms = [dice.choice((T0 - 1, T0, T0 + 1, T0 + 2, T0 + HOUR, -1, YEAR_9999_MS, YEAR_9999_MS + 1)) for _ in keys]
    peer = duckdb.connect()
    peer.register("asked", pa.table({"row": range(60), "key": pa.array(keys, pa.string()), "at_ms": at_ms}))
    peer.register("told", facts)
    expected = peer.sql("""
        with known as (
            select *, epoch_ms(event_timestamp) at_ms from told
            qualify row_number() over (partition by user_id, event_timestamp order by event_id desc) = 1
        )
        select known.event_id, known.subscription_tier, known.valid_until
        from asked asof left join known on asked.key = known.user_id and asked.at_ms >= known.at_ms
        order by asked.row
    """).fetchall()

    history = History.of(facts, "user_id")
    plain = pa.array(keys, pa.string())
    for form in (plain, plain.dictionary_encode(), pa.chunked_array([plain[:7], plain[7:]]).dictionary_encode()):
        found = history.at(form, np.array(at_ms))
        columns = [history.take(name, found) for name in ("event_id", "subscription_tier", "valid_until")]
        assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == expected


def test_instants_and_keys_that_are_many_do_not_run_over():
    """Thousands of keys and of instants of all years: the numbers stay within 64 bits and in order."""
    rng = np.random.default_rng(3)
    keys = [f"user-{number}" for number in range(3_000)]
    at_ms = rng.integers(-(2**43), 2**43, 3_000)
    rows = {
        "event_id": [f"evt_{number}" for number in range(3_000)],
        "event_timestamp": pa.array(at_ms * 1000, tables.TIMESTAMP),
        "user_id": keys,
    }
    history = History.of(pa.table(rows), "user_id")
    found = history.take("event_id", history.at(pa.array(keys), at_ms)).to_pylist()
    assert found == rows["event_id"]
    assert (history.at(pa.array(keys), at_ms - 1) == -1).all()


def test_nothing_is_told_of_nothing():
    history = History.of(tables.SUBSCRIPTIONS.empty_table(), "user_id")
    found = history.at(pa.array(["ann", None]), np.array([T0, T0]))
    assert found.tolist() == [-1, -1]
    assert history.take("valid_until", found).to_pylist() == [None, None]
