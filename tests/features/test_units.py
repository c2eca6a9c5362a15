"""A part of a log, made from a part of the rows, is that part of the whole log; new rows change no other days."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from features.columns import milliseconds
from features.sources import SOURCES
from features.units import (
    context_ms,
    hashes,
    is_among,
    joined,
    long_people,
    new_by_day,
    open_units,
    seen,
    spans,
    touched_days,
)
from tests.features import source_worlds
from tests.features.random_log import times_of
from tests.features.worlds import DAY, MINUTE

each_source = pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])


def bindings(source, name):
    columns = tuple(one for one in source.bound_by if one in source.reads[name])
    return (columns,) if columns else ()


def a_world(source, rng, name):
    """Tables of one world, of a person who did something in it: nobody promises what the rows of several make."""
    tables = source_worlds.tables(source, source_worlds.silver(rng, name), rng)
    people = [one for name in source.reads for one in tables[name][source.together].to_pylist()]
    person = people[int(rng.integers(len(people)))]
    whose = pa.array([person], pa.string())
    return tables | {
        name: tables[name].filter(pa.compute.is_in(tables[name][source.together], whose)) for name in source.reads
    }


def rows_seen(source, tables):
    return pl.concat([seen(tables[name], source.together, bindings(source, name)) for name in source.reads])


def chosen(source, tables, rows):
    """The rows of people's tables for which `rows(person, at_ms)` is true."""
    found = dict(tables)
    for name in source.reads:
        whose, times = hashes(tables[name][source.together]), milliseconds(tables[name]["event_timestamp"])
        found[name] = tables[name].filter(pa.array(rows(whose, times)))
    return found


@each_source
def test_a_part_is_made_from_its_days_their_context_and_all_of_long_people(source):
    rng = np.random.default_rng(21)
    reach_ms = max(source.reach_ms, 10 * MINUTE)
    parts = left_out = long_ones = 0
    for number in range(70):
        tables = a_world(source, rng, f"w{number}")
        whole = source.log(tables)
        if not whole.num_rows:
            continue
        start = int(rng.choice(times_of(whole))) // DAY * DAY
        end = start + DAY
        rows = rows_seen(source, tables).filter(pl.col("at_ms") < end)
        near = rows.filter(pl.col("at_ms") >= start - context_ms(reach_ms))
        known = joined([spans(near[: len(near) // 2]), spans(near[len(near) // 2 :])])
        units = open_units(known, start, reach_ms)
        older = rows.filter(pl.col("at_ms") < start - context_ms(reach_ms))
        older = older.filter(pl.col("unit").is_not_null())
        behind = older.filter(pl.Series(is_among(older["unit"].to_numpy(), units)))["person"].to_numpy()
        long = np.union1d(long_people(known, start, reach_ms), behind)
        active = known.filter(pl.col("last_ms") >= start)["person"].unique().sort().to_numpy()

        def is_read(whose, times, active=active, long=long, start=start, end=end):
            context = (times >= start - context_ms(reach_ms)) & (times < start) & is_among(whose, active)
            return context | ((times >= start) & (times < end)) | is_among(whose, long)

        some = chosen(source, tables, is_read)
        made, wanted = (
            log.filter(pa.array((times_of(log) >= start) & (times_of(log) < end))) for log in (source.log(some), whole)
        )
        assert made.sort_by("event_id").equals(wanted.sort_by("event_id")), number
        parts += 1
        left_out += sum(some[name].num_rows < tables[name].num_rows for name in source.reads)
        long_ones += len(long) > 0
    assert parts > 25
    assert left_out > 2
    assert long_ones > 3 or not source.bound_by


@each_source
def test_new_rows_change_the_log_of_touched_days_only(source):
    rng = np.random.default_rng(22)
    reach_ms = max(source.reach_ms, 10 * MINUTE)
    untouched = changed = 0
    for number in range(80):
        after = a_world(source, rng, f"w{number}")
        is_new = {name: rng.random(after[name].num_rows) < rng.choice([0.05, 0.3]) for name in source.reads}
        before = after | {name: after[name].filter(pa.array(~one)) for name, one in is_new.items()}
        new = after | {name: after[name].filter(pa.array(one)) for name, one in is_new.items()}
        days = touched_days(new_by_day(rows_seen(source, new)), spans(rows_seen(source, after)), reach_ms)
        old_log, new_log = source.log(before), source.log(after)
        for log, other in ((old_log, new_log), (new_log, old_log)):
            unlike = [row for row in rows_of(log) if row not in rows_of(other)]
            assert {day_of(row) for row in unlike} <= days, number
            changed += len(unlike) > 0
        untouched += len({day_of(row) for row in rows_of(new_log)} - days)
    assert changed > 12
    assert untouched > 8


def rows_of(log):
    return log.to_pylist()


def day_of(row):
    return int(row["event_timestamp"].timestamp()) // 86_400
