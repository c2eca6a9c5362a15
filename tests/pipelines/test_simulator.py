"""The simulated platform: its events against its own truth, and against what any platform's events must satisfy."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import fastavro
import polars as pl
import pyarrow as pa
import pytest

from pipelines.contract.events import load_contract
from pipelines.errors import SimulationConfigError
from pipelines.simulator import RubbishMessage, SimulationConfig, simulate

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
CONFIG = SimulationConfig(
    households=150,
    days=14,
    titles=150,
    channels=6,
    heartbeat_s=120,
    consent_change_rate=0.03,
    daily_hazard=0.01,
    late_session_rate=0.2,
    wrong_clock_share=0.05,
    rubbish_rate=0.003,
    missing_session_rate=0.003,
)
ACCOUNT_EVENTS = {"subscription.cancelled", "auth.login_succeeded", "support.contacted", "payment.failed"}
SERVER_EVENTS = {"title.added", "profile.updated", "consent.changed"} | ACCOUNT_EVENTS


@dataclass
class Simulated:
    """All of a simulation at once, by event name, and its truth."""

    tables: dict[str, pl.DataFrame]
    rubbish: list[RubbishMessage]
    truth: Path

    def read(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.truth / f"{name}.parquet")

    def valid(self, name: str) -> pl.DataFrame:
        """Distinct valid events, by their first receipt."""
        table = self.tables[name]
        if name not in SERVER_EVENTS:
            table = table.filter(pl.col("session_id").is_not_null())
        return table.unique("event_id", keep="first", maintain_order=True)

    def all_client_events(self) -> pl.DataFrame:
        parts = [self.valid(name) for name in self.tables if name not in SERVER_EVENTS]
        return pl.concat(parts, how="diagonal")


def merged(config: SimulationConfig, truth: Path | None = None) -> tuple[dict[str, pa.Table], list[RubbishMessage]]:
    parts: dict[str, list[pa.Table]] = {}
    rubbish = []
    for batch in simulate(config, truth):
        rubbish += batch.rubbish
        for name, table in batch.tables.items():
            parts.setdefault(name, []).append(table)
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}, rubbish


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    truth = tmp_path_factory.mktemp("truth")
    tables, rubbish = merged(CONFIG, truth)
    return Simulated({name: pl.from_arrow(table) for name, table in tables.items()}, rubbish, truth)


def ms(column: str) -> pl.Expr:
    return pl.col(column).dt.epoch("ms")


def as_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


# --- Batches ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_however_they_are_sliced():
    small = SimulationConfig(households=25, days=3, titles=40, heartbeat_s=60, late_session_rate=0.3, rubbish_rate=0.01)
    tables, rubbish = merged(small)
    reference = {name: as_bytes(table) for name, table in tables.items()}
    for batch_hours in (24, 6, 1):
        again, rubbish_again = merged(replace(small, batch_hours=batch_hours))
        assert {name: as_bytes(table) for name, table in again.items()} == reference
        assert rubbish_again == rubbish
    other, _ = merged(replace(small, seed=small.seed + 1))
    assert as_bytes(other["app.launch"]) != reference["app.launch"]


@pytest.mark.parametrize("batch_hours", [24, 8])
def test_batches_are_bounded_slices_of_time_in_order(batch_hours):
    config = SimulationConfig(
        households=25, days=3, titles=40, heartbeat_s=300, batch_hours=batch_hours, rubbish_rate=0.01
    )
    batches = list(simulate(config))
    assert len(batches) == 3 * 24 // batch_hours + 1
    assert all(left.end_ms == right.start_ms for left, right in pairwise(batches))
    for number, batch in enumerate(batches):
        assert all(batch.start_ms <= message.timestamp_ms < batch.end_ms for message in batch.rubbish)
        for name, table in batch.tables.items():
            times = table["event_timestamp"].cast(pa.int64()).to_pylist()
            assert times == sorted(times)
            assert times[-1] < batch.end_ms
            introduces = number == 0 and name in SERVER_EVENTS
            assert introduces or batch.start_ms <= times[0]
    assert {"title.added", "profile.updated", "consent.changed"} <= batches[0].tables.keys()


def test_memory_does_not_grow_with_the_days():
    script = (
        "import resource, sys; from pipelines.simulator import SimulationConfig, simulate\n"
        "for batch in simulate(SimulationConfig(households=400, days=int(sys.argv[1]), heartbeat_s=60)): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", script, days], check=True, capture_output=True, text=True).stdout)
        for days in ("7", "28")
    ]
    assert peaks[1] < 1.15 * peaks[0]


# --- Contract --------------------------------------------------------------------------------------------------------


def test_tables_fit_the_contract(simulated, project_root):
    contract = load_contract(project_root / "configs" / "schemas")
    assert {"playback.heartbeat", "tile.click", "title.added", "consent.changed"} <= set(simulated.tables)
    for name, table in simulated.tables.items():
        wanted, received = contract.event(name), table.to_arrow()
        assert set(received.column_names) == set(wanted.arrow.names)
        for field in wanted.arrow:
            values = pl.Series(field.name, pa.array([], field.type))
            assert table[field.name].dtype == values.dtype, (name, field.name)
            assert field.nullable or table[field.name].null_count() == 0, (name, field.name)
        for column, symbols in wanted.symbols.items():
            assert set(table[column].drop_nulls()) <= set(symbols), (name, column)


def test_event_ids_are_uuids_of_the_clients_time_and_unique(simulated):
    distinct = pl.concat([simulated.valid(name).select("event_id") for name in simulated.tables])
    assert distinct["event_id"].n_unique() == distinct.height
    for name, table in simulated.tables.items():
        created = "event_timestamp" if name in SERVER_EVENTS else "client_timestamp"
        digits = pl.col("event_id").str.replace_all("-", "")
        parts = table.select(
            digits.str.slice(4, 12).str.to_integer(base=16).alias("time"),
            digits.str.slice(16, 1).alias("version"),
            ms(created),
        )
        assert parts["version"].unique().to_list() == ["7"]
        assert (parts["time"] == parts[created]).all()


def test_client_events_say_who_where_and_with_what(simulated):
    events = simulated.all_client_events()
    for column in (
        "user_id",
        "profile_id",
        "session_id",
        "device_id",
        "market",
        "ip",
        "user_agent",
        "consent_analytics",
    ):
        assert events[column].null_count() == 0
    assert events["ip"].str.contains(r"^(198\.1[89]\.\d+\.\d+|2001:db8:[0-9a-f:]+)$").all()
    assert events.select("profile_id", "device_id").unique().height == events["profile_id"].n_unique()
    assert events.group_by("session_id").agg(pl.col("profile_id").n_unique())["profile_id"].max() == 1


# --- Playbacks -------------------------------------------------------------------------------------------------------


def test_a_playback_adds_up(simulated):
    """What was watched is the time from start to stop less stalls and pauses; positions follow from it and the seek."""

    def total(name: str, column: str) -> pl.DataFrame:
        return simulated.valid(name).group_by("playback_id").agg(pl.col(column).sum())

    seeks = simulated.valid("playback.seeked").with_columns(jump=pl.col("to_position_ms") - pl.col("from_position_ms"))
    beats = simulated.valid("playback.heartbeat").group_by("playback_id").agg(
        beats=pl.len(), rising=pl.col("position_ms").sort_by("client_timestamp").diff().min(),
        first=pl.col("client_timestamp").min(), last=pl.col("client_timestamp").max(),
    )  # fmt: skip
    plays = (
        simulated.valid("playback.started")
        .select("playback_id", "content_id", begun=ms("client_timestamp"))
        .join(simulated.valid("playback.stopped"), on="playback_id", how="full", coalesce=True)
        .join(total("playback.rebuffer", "rebuffer_duration_ms"), on="playback_id", how="left")
        .join(total("playback.resumed", "pause_duration_ms"), on="playback_id", how="left")
        .join(seeks.select("playback_id", "jump"), on="playback_id", how="left")
        .join(beats, on="playback_id", how="left")
        .with_columns(pl.col("rebuffer_duration_ms", "pause_duration_ms", "jump", "beats").fill_null(0))
    )
    assert plays.null_count().select("begun", "position_ms", "content_id_right").row(0) == (0, 0, 0)
    assert plays.height > 3_000
    stopped = ms("client_timestamp")
    plays = plays.with_columns(
        watched=stopped - pl.col("begun") - pl.col("rebuffer_duration_ms") - pl.col("pause_duration_ms")
    )
    assert plays.select((pl.col("beats") == (pl.col("watched") - 1) // 120_000).all()).item()
    assert plays.select((pl.col("position_ms") <= pl.col("total_duration_ms")).all()).item()
    assert plays.select(
        ((pl.col("completion_percent") - 100 * pl.col("position_ms") / pl.col("total_duration_ms")).abs() < 1e-9).all()
    ).item()
    assert (plays["rising"].drop_nulls() >= 120_000).all()
    with_beats = plays.filter(pl.col("beats") > 0)
    assert with_beats.select((ms("first") > pl.col("begun")).all() & (ms("last") < stopped).all()).item()
    # A position is where it started plus what was watched plus the jump; from the beginning, unless it was resumed.
    start = plays.select(pl.col("position_ms") - pl.col("watched") - pl.col("jump"), "content_type", "stop_reason")
    assert (start["position_ms"] >= -1_000).all()
    assert (start.filter(pl.col("content_type") == "vod")["position_ms"] <= 0).mean() > 0.7
    ended = plays.filter(pl.col("stop_reason") == "end_of_content")
    assert (ended["completion_percent"] == 100).all()


def test_playbacks_are_requested_then_start_or_fail(simulated):
    requested, started = simulated.valid("playback.requested"), simulated.valid("playback.started")
    joined = requested.join(started, on="playback_id", how="left", suffix="_started")
    waited = ms("client_timestamp_started") - ms("client_timestamp")
    begun = joined.filter(pl.col("client_timestamp_started").is_not_null())
    assert begun.height == started.height
    assert (begun.select(waited).to_series() == begun["start_time_ms"]).all()
    assert (begun["content_id"] == begun["content_id_started"]).all()
    assert 0.98 < started.height / requested.height < 1


def test_nobody_watches_two_things_at_once(simulated):
    starts = simulated.valid("playback.started").select("playback_id", "profile_id", begun=ms("client_timestamp"))
    plays = starts.join(
        simulated.valid("playback.stopped").select("playback_id", end=ms("client_timestamp")), on="playback_id"
    )
    plays = plays.sort("profile_id", "begun").with_columns(after=pl.col("begun").shift(-1).over("profile_id"))
    assert plays.select((pl.col("end") < pl.col("after")).all()).item()


def test_heartbeats_carry_the_bitrate_of_the_last_switch(simulated):
    switches = simulated.valid("playback.quality_changed").select("playback_id", "client_timestamp", "new_bitrate_kbps")
    initial = simulated.valid("playback.started").select("playback_id", "initial_bitrate_kbps")
    beats = (
        simulated.valid("playback.heartbeat")
        .sort("client_timestamp")
        .join_asof(switches.sort("client_timestamp"), on="client_timestamp", by="playback_id", check_sortedness=False)
        .join(initial, on="playback_id")
        .with_columns(expected=pl.coalesce("new_bitrate_kbps", "initial_bitrate_kbps"))
    )
    assert (beats["bitrate_kbps"] == beats["expected"]).all()


def test_clicks_lead_to_playbacks_and_are_on_tiles_that_were_seen(simulated):
    clicks, requested = simulated.valid("tile.click"), simulated.valid("playback.requested")
    by_tile = requested.filter(pl.col("referrer") == "rail")
    assert clicks.height == by_tile.height
    key = ["session_id", "content_id", "rail_id", "tile_position"]
    seen = clicks.join(simulated.valid("tile.impression").select(key).unique(), on=key, how="inner")
    assert seen.height == clicks.height
    shown = simulated.valid("tile.impression")
    assert (shown["is_personalized"] == (shown["rail_id"] != "trending")).all()


# --- Behaviour -------------------------------------------------------------------------------------------------------


def test_kids_see_and_watch_nothing_above_pg(simulated):
    rated = simulated.tables["title.added"].select("content_id", "maturity_rating")
    kids = simulated.tables["profile.updated"].filter("is_kids").select("profile_id")
    for name in ("tile.impression", "playback.requested", "playback.heartbeat"):
        seen = simulated.tables[name].join(rated, on="content_id", suffix="_title")
        by_kids = seen.join(kids, on="profile_id")
        assert by_kids.height > 100
        assert set(by_kids["maturity_rating"]) <= {"G", "PG"}
        assert {"PG-13", "R"} <= set(seen["maturity_rating"])


def test_a_finished_episode_is_mostly_followed_by_the_next_one(simulated):
    next_of = simulated.read("titles").select("content_id", "next_content_id").drop_nulls()
    stopped = simulated.valid("playback.stopped").select("playback_id", "completion_percent")
    plays = (
        simulated.valid("playback.started")
        .filter(pl.col("content_type") == "vod")
        .join(stopped, on="playback_id")
        .sort("profile_id", "client_timestamp")
        .with_columns(followed_by=pl.col("content_id").shift(-1).over("profile_id"))
        .filter(pl.col("followed_by").is_not_null())
        .join(next_of, on="content_id")
    )
    goes_on = (pl.col("followed_by") == pl.col("next_content_id")).mean()
    assert plays.filter(pl.col("completion_percent") >= 90).select(goes_on).item() > 0.6
    assert plays.filter(pl.col("completion_percent") < 5).select(goes_on).item() < 0.2


def test_people_watch_what_they_like(simulated):
    """Taste shares agree with the genres of what a viewer chose far better than with those of what anybody chose."""
    tastes = simulated.read("tastes").filter(pl.col("day") == 7).select("profile_id", "taste_shares")
    genres = simulated.read("titles").select("content_id", "genre_shares")
    chosen = (
        simulated.valid("tile.click")
        .filter(pl.col("rail_id") != "continue_watching")
        .select("profile_id", "content_id")
    )
    shuffled = chosen.with_columns(pl.col("content_id").shuffle(seed=1))

    def affinity(choices: pl.DataFrame) -> float:
        both = choices.join(tastes, on="profile_id").join(genres, on="content_id")
        return (both["taste_shares"].to_numpy() * both["genre_shares"].to_numpy()).sum(axis=1).mean()

    assert affinity(chosen) > 1.5 * affinity(shuffled)


def test_tastes_drift_away_from_where_they_began(simulated):
    tastes = simulated.read("tastes")
    first = tastes.filter(pl.col("day") == 0)["taste_shares"].to_numpy()
    moved = [abs(tastes.filter(pl.col("day") == day)["taste_shares"].to_numpy() - first).mean() for day in (1, 4, 13)]
    assert 0 < moved[0] < moved[1] < moved[2]
    assert abs(first.sum(axis=1) - 1).max() < 1e-5


def test_the_hazard_is_what_its_formula_says(simulated):
    hazards = simulated.read("hazards").filter("active")
    exponent = -0.9 * (hazards["engagement_hours"] - 1) + 3 * hazards["stall_percent"]
    expected = (CONFIG.daily_hazard * exponent.exp()).clip(0, 0.5)
    assert (hazards["hazard"] - expected).abs().max() < 1e-12
    assert hazards.select(pl.corr("engagement_hours", "hazard", method="spearman")).item() < -0.2
    assert hazards.select(pl.corr("stall_percent", "hazard", method="spearman")).item() > 0.2


def test_cancellations_come_at_the_rate_of_the_hazard(simulated):
    hazards = simulated.read("hazards")
    cancelled = pl.col("cancelled_at").is_not_null()
    expected, happened = hazards["hazard"].sum(), hazards.select(cancelled.sum()).item()
    assert abs(happened - expected) < 4 * expected**0.5
    assert hazards.filter(cancelled)["hazard"].mean() > hazards.filter("active")["hazard"].mean()
    events = simulated.tables["subscription.cancelled"].select("user_id", ms("event_timestamp")).rows()
    assert sorted(events) == sorted(hazards.filter(cancelled).select("user_id", ms("cancelled_at")).rows())


def test_nothing_comes_after_a_cancellation(simulated):
    ends = simulated.tables["subscription.cancelled"].select("user_id", end=ms("event_timestamp"))
    assert ends.height > 10
    for name, table in simulated.tables.items():
        if name != "subscription.cancelled":
            after = table.join(ends, on="user_id").filter(ms("event_timestamp") >= pl.col("end"))
            assert after.height == 0, name


def test_channels_tuned_to_are_the_live_playbacks(simulated):
    live = simulated.valid("playback.started").filter(pl.col("content_type") == "live")
    tunes, aways = simulated.valid("channel.tune"), simulated.valid("channel.tune_away")
    where = ["session_id", "content_id", "event_timestamp"]
    assert tunes.height == live.height == aways.height > 200
    assert tunes.rename({"channel_id": "content_id"}).join(live, on=where).height == live.height
    moved = tunes.filter(pl.col("previous_channel_id").is_not_null())
    assert moved.height == aways.filter(pl.col("tune_away_reason") == "channel_change").height > 10
    assert (aways["view_duration_ms"] > 0).all()


def test_log_ins_come_with_cold_launches(simulated):
    cold = simulated.valid("app.launch").filter(pl.col("launch_type") == "cold").height
    assert abs(simulated.valid("auth.login_succeeded").height / cold - 0.3) < 0.05
    for name in ("support.contacted", "payment.failed"):
        assert simulated.valid(name).height > 5


def test_stalls_are_many_where_a_cdn_is_degraded_and_make_people_leave(tmp_path):
    config = replace(CONFIG, markets=(("GB", 1.0),), households=400, days=7, anomalies_per_week=3, daily_hazard=0.0)
    tables, _ = merged(config, tmp_path)
    plays = (
        pl.from_arrow(tables["playback.started"])
        .unique("playback_id")
        .select("playback_id", "cdn", "market", begun=ms("client_timestamp"))
    )
    stalls = pl.from_arrow(tables["playback.rebuffer"]).unique("event_id").group_by("playback_id").len("stalls")
    stopped = (
        pl.from_arrow(tables["playback.stopped"])
        .unique("playback_id")
        .select("playback_id", "position_ms", "completion_percent", "content_type")
    )
    plays = (
        plays.join(stalls, on="playback_id", how="left")
        .join(stopped, on="playback_id")
        .with_columns(pl.col("stalls").fill_null(0))
    )
    degraded = pl.lit(False)
    for window in json.loads((tmp_path / "anomalies.json").read_text()):
        if window["kind"] == "cdn_degradation":
            inside = pl.col("begun").is_between(window["start_ms"], window["end_ms"], closed="left")
            degraded |= inside & (pl.col("cdn") == window["cdn"]) & (pl.col("market") == window["region"])
    bad, good = plays.filter(degraded), plays.filter(~degraded)
    assert bad.height > 100
    assert bad["stalls"].mean() > 3 * good["stalls"].mean()
    assert bad["completion_percent"].mean() < good["completion_percent"].mean() - 10
    rates = pl.read_parquet(tmp_path / "cdn_effects.parquet").with_columns(begun=ms("hour"))
    assert rates.height == 3 * 1 * 24 * 7


def test_a_channel_that_is_out_cannot_be_watched(simulated):
    outages = [w for w in json.loads((simulated.truth / "anomalies.json").read_text()) if w["kind"] == "channel_outage"]
    assert len(outages) == 2
    clocks = simulated.read("viewers").select("profile_id", "clock_error_ms")
    for outage in outages:
        inside = pl.col("true").is_between(outage["start_ms"], outage["end_ms"] - 1)
        here = pl.col("content_id") == outage["content_id"]

        def during(name: str, here: pl.Expr = here, inside: pl.Expr = inside) -> pl.DataFrame:
            table = simulated.valid(name).filter(here).join(clocks, on="profile_id")
            return table.with_columns(true=ms("client_timestamp") - pl.col("clock_error_ms")).filter(inside)

        assert during("playback.started").height == 0
        assert set(during("playback.error")["error_category"]) <= {"manifest"}


# --- Consent ---------------------------------------------------------------------------------------------------------


def test_everybody_is_introduced_before_their_first_event(simulated):
    first = simulated.all_client_events().group_by("profile_id").agg(pl.col("event_timestamp").min().alias("first"))
    for name in ("profile.updated", "consent.changed"):
        known = simulated.tables[name].group_by("profile_id").agg(pl.col("event_timestamp").min())
        joined = first.join(known, on="profile_id", how="left")
        assert (joined["event_timestamp"] < joined["first"]).all()
    assert simulated.tables["title.added"]["event_timestamp"].max() < first["first"].min()


def test_the_envelopes_consent_follows_the_viewers_choices(simulated):
    choices = simulated.tables["consent.changed"]
    assert choices.height > simulated.tables["profile.updated"].height
    clocks = simulated.read("viewers").select("profile_id", "clock_error_ms")
    uses = ("analytics", "personalization", "ad_targeting")
    known = choices.select("profile_id", *(f"allows_{use}" for use in uses), at=ms("event_timestamp")).sort("at")
    events = (
        simulated.all_client_events()
        .join(clocks, on="profile_id")
        .with_columns(at=ms("client_timestamp") - pl.col("clock_error_ms"))
        .sort("at")
        .join_asof(known, on="at", by="profile_id", check_sortedness=False)
    )
    for use in uses:
        assert (events[f"consent_{use}"] == events[f"allows_{use}"]).all()
        assert events[f"consent_{use}"].n_unique() == 2
    assert (
        choices.group_by("user_id", "event_timestamp")
        .agg(pl.col("allows_analytics").n_unique())["allows_analytics"]
        .max()
        == 1
    )


# --- Mischief and counts ---------------------------------------------------------------------------------------------


def test_resent_events_are_the_same_events(simulated):
    alike = 0
    for name in set(simulated.tables) - SERVER_EVENTS:
        table = simulated.tables[name].filter(pl.col("session_id").is_not_null())
        copies = table.filter(pl.col("event_id").is_duplicated())
        assert copies.drop("event_timestamp").unique().height == copies["event_id"].n_unique()
        received = copies.group_by("event_id").agg(first=ms("event_timestamp").min(), last=ms("event_timestamp").max())
        assert ((received["last"] - received["first"]) <= 30 * 60_000).all()
        alike += (received["last"] == received["first"]).sum()
    assert alike > 100


def test_late_and_wrong_clocks_are_as_many_as_the_truth_says(simulated):
    expected = json.loads((simulated.truth / "expected.json").read_text())["events"]
    clocks = simulated.read("viewers").select("profile_id", "clock_error_ms")
    wrong = clocks.filter(pl.col("clock_error_ms") != 0)
    assert (wrong["clock_error_ms"].abs() >= HOUR_MS).all()
    for name in set(simulated.tables) - SERVER_EVENTS:
        events = simulated.valid(name).join(clocks, on="profile_id")
        delay = ms("event_timestamp") - ms("client_timestamp") + pl.col("clock_error_ms")
        late = events.filter(delay > 250)
        assert late.height == expected[name]["late"]
        assert set(late["device_type"]) <= {"phone", "tablet"}
        assert late.select(delay.max()).item() is None or late.select(delay.max()).item() < DAY_MS + 9 * HOUR_MS
        assert events.filter(delay < 20).height == 0
        assert events.filter(pl.col("clock_error_ms") != 0).height == expected[name]["wrong_clock"]
    assert expected["playback.started"]["late"] > 50


def test_the_expected_counts_are_those_of_the_events(simulated):
    truth = json.loads((simulated.truth / "expected.json").read_text())
    kids = set(simulated.tables["profile.updated"].filter("is_kids")["profile_id"])
    assert set(truth["events"]) == set(simulated.tables)
    received, quarantined, dropped, kept = 0, len(simulated.rubbish), 0, 0
    for name, table in simulated.tables.items():
        counts, distinct = truth["events"][name], simulated.valid(name)
        invalid = 0 if name in SERVER_EVENTS else table["session_id"].null_count()
        refused = pl.col("consent_analytics").eq_missing(False)
        if name == "auth.login_succeeded":  # essential: kept whatever the viewer said
            refused = pl.lit(False)
        elif name in ACCOUNT_EVENTS:
            answers = simulated.tables["consent.changed"].select("user_id", "event_timestamp", "allows_analytics")
            told = distinct.sort("event_timestamp").join_asof(
                answers.sort("event_timestamp"), on="event_timestamp", by="user_id", check_sortedness=False
            )
            refused = pl.col("event_id").is_in(told.filter(~pl.col("allows_analytics"))["event_id"].implode())
        assert counts["without_session"] == invalid
        assert counts["distinct"] == distinct.height
        assert counts["resent"] == table.height - invalid - distinct.height
        assert counts["refused_distinct"] == distinct.filter(refused).height
        assert counts["kept"] == distinct.filter(~refused).height
        if name not in SERVER_EVENTS:
            assert counts["kids"] == distinct["profile_id"].is_in(kids).sum()
            assert table.filter(pl.col("session_id").is_null() & refused).height == 0
            dropped += table.filter(refused).height
        else:
            dropped += distinct.filter(refused).height
        received += table.height
        quarantined += invalid
        kept += counts["kept"]
    expected = truth["expected"]
    assert expected["messages"] == received + len(simulated.rubbish)
    assert expected["quarantined"] == quarantined
    assert expected["dropped_without_consent"] == dropped
    assert expected["kept_distinct"] == kept
    assert expected["messages"] == quarantined + dropped + expected["duplicates"] + kept
    for kind in {message.kind for message in simulated.rubbish}:
        assert truth["rubbish"][kind] == sum(message.kind == kind for message in simulated.rubbish)


def test_rubbish_is_rubbish(simulated, project_root):
    contract = load_contract(project_root / "configs" / "schemas")
    kinds = {message.kind for message in simulated.rubbish}
    assert kinds == {"truncated_body", "unknown_schema_id", "wrong_magic_byte", "empty", "random_bytes"}
    for message in simulated.rubbish:
        assert message.topic in contract.topics
        match message.kind:
            case "truncated_body":
                event = contract.event(message.event_name)
                assert event.topic == message.topic
                with pytest.raises((EOFError, IndexError, ValueError)):
                    fastavro.schemaless_reader(io.BytesIO(message.value), fastavro.parse_schema(event.avro), None)
            case "empty":
                assert message.value == b""
            case "unknown_schema_id":
                assert message.value[0] == 0
                assert int.from_bytes(message.value[1:5], "big") > 1_000_000_000
            case _:
                assert message.value[0] != 0


def test_truth_that_was_not_finished_has_no_expected_counts(tmp_path):
    config = SimulationConfig(households=5, days=2, titles=20)
    merged(config, tmp_path)
    assert (tmp_path / "expected.json").exists()
    stream = simulate(config, tmp_path)
    next(stream)
    stream.close()
    assert not (tmp_path / "expected.json").exists()
    assert pl.read_parquet(tmp_path / "tastes.parquet")["day"].unique().to_list() == [0]


# --- Configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"households": 0},
        {"days": 0},
        {"seed": -1},
        {"titles": 9},
        {"channels": 1},
        {"heartbeat_s": 0},
        {"batch_hours": 7},
        {"resend_rate": 1.5},
        {"kids_share": -0.1},
        {"taste_drift": -1},
        {"markets": ()},
        {"markets": (("US", 0.0),)},
        {"markets": (("XX", 1.0),)},
    ],
)
def test_a_wrong_setting_is_named(wrong):
    (name,) = wrong
    with pytest.raises(SimulationConfigError, match=name) as raised:
        SimulationConfig(**wrong)
    assert raised.value.exit_code == 2


def test_the_smallest_platform_of_one_quiet_household():
    tables, _ = merged(SimulationConfig(households=1, days=1, titles=10, channels=2, kids_share=0.0))
    assert tables["title.added"].num_rows == 12
    assert tables["profile.updated"].num_rows in (1, 2)
