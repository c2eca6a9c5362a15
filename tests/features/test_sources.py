"""Every source against loops over events, and what holds for all of them: no order, and no future, changes a log."""

import numpy as np
import pyarrow as pa
import pytest

from features.errors import LogError
from features.sources import SOURCES
from features.sources.session_quality import LADDER_KBPS
from pipelines.contract.events import load_contract
from pipelines.feature_logs import check_sources, silver_schemas
from pipelines.settings import Settings
from tests.features import source_oracle, source_worlds
from tests.features.random_log import times_of

each_source = pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])


def tables(source, silver, rng, before=None):
    """What the source reads of the world, of events before an instant only."""
    return {
        name: source_worlds.as_table(
            [event for event in silver[name] if before is None or name in source.shared or event["time"] < before],
            columns,
            rng,
        )
        for name, columns in (source.reads | source.shared).items()
    }


def rows_of(log):
    return [one | {"time": int(one["event_timestamp"].timestamp() * 1000)} for one in log.to_pylist()]


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if source.name != "viewing_log"], ids=lambda one: one.name
)
def test_logs_equal_the_oracle(source):
    """The viewing log has an oracle of its own, with the groups that read it."""
    rng = np.random.default_rng(11)
    seen = dict.fromkeys(source.schema.names, 0)
    for number in range(150):
        silver = source_worlds.silver(rng, f"w{number}")
        got = source.log(tables(source, silver, rng))
        assert got.schema == source.schema
        expected = source_oracle.in_order(getattr(source_oracle, source.name)(silver))
        assert got.num_rows == len(expected)
        for row, wanted in zip(rows_of(got), expected, strict=True):
            for name in set(source.schema.names) - {"event_timestamp"}:
                value = wanted.get(name)
                if name == "score" and value is not None:
                    assert row[name] == pytest.approx(value, abs=0.501), (number, row, wanted)
                else:
                    assert row[name] == value, (number, name, row, wanted)
                seen[name] += value is not None
    assert all(count for name, count in seen.items() if name != "event_timestamp"), seen


@each_source
def test_no_order_and_no_later_event_changes_what_was_known(source):
    rng = np.random.default_rng(12)
    moved = 0
    for number in range(60):
        silver = source_worlds.silver(rng, f"w{number}")
        whole = source.log(tables(source, silver, rng))
        assert source.log(tables(source, silver, rng)).equals(whole)
        times = [event["time"] for name in source.reads for event in silver[name]]
        now = int(rng.choice(times)) + int(rng.integers(-1, 2))
        seen = source.log(tables(source, silver, rng, before=now))
        assert seen.equals(whole.filter(pa.array(times_of(whole) < now)))
        moved += 0 < seen.num_rows < whole.num_rows
    assert moved > 20


@each_source
def test_microseconds_and_nothing_at_all_are_taken(source):
    rng = np.random.default_rng(13)
    micro = pa.timestamp("us", tz="UTC")
    found = tables(source, source_worlds.silver(rng, "w"), rng)
    fine = {
        name: table.cast(
            pa.schema([one.with_type(micro) if pa.types.is_timestamp(one.type) else one for one in table.schema])
        )
        for name, table in found.items()
    }
    assert source.log(fine).equals(source.log(found))
    empty = {name: table.slice(0, 0) for name, table in found.items()}
    assert source.log(empty).equals(source.schema.empty_table())


@each_source
def test_wrong_tables_are_refused(source):
    rng = np.random.default_rng(14)
    few = [source_worlds.silver(rng, f"w{number}") for number in range(9)]
    found = tables(source, {name: [event for one in few for event in one[name]] for name in few[0]}, rng)
    for name in source.reads:
        column = source.reads[name][-1]
        with pytest.raises(LogError, match=rf"lacks the column\(s\) {column}"):
            source.log(found | {name: found[name].drop_columns(column)})
    if "time_zone" in source.reads[name]:
        place = found[name].column_names.index("time_zone")
        elsewhere = pa.array(["Mars/Olympus"] * found[name].num_rows)
        with pytest.raises(LogError, match="a time zone of the"):
            source.log(found | {name: found[name].set_column(place, "time_zone", elsewhere)})


def test_the_contract_has_all_that_sources_read():
    contract = load_contract(Settings().schemas)
    check_sources(SOURCES, contract, silver_schemas(contract, "day"))


def test_a_quality_score_by_hand():
    """Ten minutes at 3 Mbit/s, the sixth of nine rungs, after a start of 1 s, with a stall of 4 s."""
    assert tuple(source_oracle.LADDER) == LADDER_KBPS
    rng = np.random.default_rng(1)
    common = {"profile_id": "p", "user_id": "u", "viewer_token": "p", "session_id": "s", "playback_id": "b",
              "content_id": "c", "cdn": "akamai", "market": "DE"}  # fmt: skip
    started = {"event_name": "playback.started", "start_time_ms": 1_000, "initial_bitrate_kbps": 3_000}
    stalled = {"event_name": "playback.rebuffer", "rebuffer_duration_ms": 4_000}
    events = [
        common | started | {"event_id": "1", "time": 0},
        common | {"event_name": "playback.heartbeat", "event_id": "2", "time": 300_000, "bitrate_kbps": 3_000},
        common | stalled | {"event_id": "3", "time": 600_000},
    ]
    (source,) = [one for one in SOURCES if one.name == "playback_quality"]
    log = source.log(tables(source, {"silver.playback": events}, rng)).to_pylist()
    assert [(row["watch_ms"], row["score"]) for row in log] == [
        (0, None),
        # (5.67 * 6 / 9 + 0.17 - 0.963 * log10(6.381 / 5.381)) / 5.84
        (300_000, 66_416),
        # One stall in 600 s is too rare to cost anything but its length: 4.95 * 1/8 * 4 / 15 less.
        (300_000, 63_591),
    ]
