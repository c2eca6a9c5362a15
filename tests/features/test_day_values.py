"""Which values a day has: brute force over logs and rows."""

import numpy as np
import pyarrow as pa
import pytest

from features.backfill import backfill
from features.day_values import entities_of, values_of_days
from features.groups import GROUPS
from features.tiles import tiles
from features.values import values_at
from features.windows import Cadence
from tests.features.random_log import DAY_MS, FIRST_MS, random_log, times_of

FIRST = FIRST_MS // DAY_MS
EVENT = [pytest.param(g, e, id=f"{g.name}-{e}") for g in GROUPS if g.cadence is Cadence.EVENT for e in g.entities]
BOUNDARY = [
    pytest.param(g, e, id=f"{g.name}-{e}") for g in GROUPS if g.cadence is not Cadence.EVENT for e in g.entities
]


@pytest.mark.parametrize(("group", "entity"), EVENT)
def test_event_groups_are_valued_at_the_end_of_the_day_for_who_was_seen(group, entity):
    log = random_log(np.random.default_rng(4), group.source, group.entities, 500)
    seen = {(time // DAY_MS, who) for time, who in zip(times_of(log).tolist(), log[entity].to_pylist(), strict=True)}
    for first, last in ((FIRST - 2, FIRST + 120), (FIRST + 40, FIRST + 44), (FIRST + 41, FIRST + 41)):
        got = values_of_days(group, entity, tiles(group, entity, log), first, last)
        expected = sorted((day, who) for day, who in seen if who is not None and first <= day <= last)
        assert sorted(zip(got["day"].to_pylist(), got[entity].to_pylist(), strict=True)) == expected
        assert got["day"].to_pylist() == sorted(got["day"].to_pylist())
        asked = (np.asarray(got["day"]) + 1) * DAY_MS + group.delay
        told = values_at(group, entity, log, got[entity], asked).drop_columns([group.age_column])
        assert got.select(told.column_names).equals(told)
        assert entities_of(got, entity) == len({who for _, who in expected})


@pytest.mark.parametrize(("group", "entity"), BOUNDARY)
def test_the_other_groups_have_the_boundaries_up_to_the_end_of_the_day(group, entity):
    log = random_log(np.random.default_rng(5), group.source, group.entities, 300)
    rows = backfill(group, entity, log, FIRST_MS - DAY_MS, FIRST_MS + 60 * DAY_MS)
    hours = 24 if group.cadence is Cadence.HOURLY else 1
    first, last = FIRST + 40, FIRST + 45
    got = values_of_days(group, entity, rows.take(pa.array(np.arange(rows.num_rows)[::-1])), first, last)
    times = [round(at.timestamp() * 1000) for at in rows["event_timestamp"].to_pylist()]
    expected = []
    for time, row in zip(times, rows.to_pylist(), strict=True):
        of_day = [
            d for d in range(first, last + 1) if time in {(d + 1) * DAY_MS - n * DAY_MS // hours for n in range(hours)}
        ]
        expected += [{"day": day, **row} for day in of_day]
    names = ["day", entity, *(feature.name for feature in group.features)]

    def order(row):
        return repr([row[name] for name in names])

    told = sorted(([{name: row[name] for name in names} for row in expected]), key=order)
    assert told
    assert sorted(got.to_pylist(), key=order) == told


def test_of_a_row_that_was_corrected_the_newest_version_counts():
    group = next(group for group in GROUPS if group.name == "content_popularity")
    log = random_log(np.random.default_rng(6), group.source, group.entities, 80)
    rows = backfill(group, "content_id", log, FIRST_MS, FIRST_MS + 60 * DAY_MS)
    late = rows.slice(5, 60)
    moved = pa.array(np.asarray(late["created_timestamp"].cast(pa.int64())) + 90 * DAY_MS).cast(
        pa.timestamp("ms", "UTC")
    )
    place = rows.schema.get_field_index("hourly_viewers")
    corrected = late.set_column(place, "hourly_viewers", pa.array([1000] * 60))
    corrected = corrected.set_column(rows.schema.get_field_index("created_timestamp"), "created_timestamp", moved)
    days = FIRST - 1, FIRST + 60
    whole = values_of_days(group, "content_id", rows, *days)
    for order in ([corrected, rows], [rows, corrected]):
        got = values_of_days(group, "content_id", pa.concat_tables(order).cast(rows.schema), *days)
        assert got.num_rows == whole.num_rows
        assert got["hourly_viewers"].to_pylist().count(1000) == 60


@pytest.mark.parametrize(("group", "entity"), [*EVENT[:1], *BOUNDARY[:1]])
def test_nothing_stored_has_no_day(group, entity):
    log = random_log(np.random.default_rng(7), group.source, group.entities, 10).slice(0, 0)
    stored = tiles(group, entity, log) if group.cadence is Cadence.EVENT else backfill(group, entity, log, 0, DAY_MS)
    got = values_of_days(group, entity, stored, FIRST, FIRST + 3)
    assert got.num_rows == 0
    assert got.column_names == ["day", entity, *(feature.name for feature in group.features)]
