"""Traffic: its proportions against the specification's table, its ledger against a count made without it."""

import hashlib
import json
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.contract.codec import encode, wire_format
from pipelines.contract.events import Contract, load_contract
from pipelines.feed import feed_traffic
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.settings import Settings
from pipelines.traffic import Traffic, TrafficConfig, trace_headers
from pipelines.traffic.config import TrafficConfigError

# Spec 3.1, messages a second in Phase 1.
PHASE_1 = {
    "playback.sessions": 5_000, "playback.heartbeats": 50_000, "catalog.changes": 50, "epg.updates": 200,
    "recommendations.served": 3_000, "recordings.events": 200, "bookmarks.updates": 10_000, "user.events": 500,
    "qoe.metrics": 20_000, "cdn.routing.events": 5_000, "search.queries": 1_000, "ad.events": 2_000,
    "ai.features.updates": 5_000, "notifications.events": 500, "content.ingest.events": 10,
}  # fmt: skip
PROLOGUE = {"title.added", "profile.updated", "consent.changed"}
T0 = 1_767_600_000_000
MIXED = TrafficConfig(
    30_000, clients=0.4, people=600, titles=50, duplicates=0.03, late=0.05, malformed=0.005, nameless=0.003,
    sessionless=0.01, analytics_refusal=0.2, events_per_batch=7_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def contract(project_root: Path) -> Contract:
    return load_contract(project_root / "configs" / "schemas")


def everything(config: TrafficConfig, contract: Contract) -> tuple[pl.DataFrame, Traffic, list[Any]]:
    """Every event as a row, in the order of its sending, with its schema's topic and consent category."""
    traffic, frames, rubbish = Traffic(config, contract), [], []
    for number, batch in enumerate(traffic):
        rubbish += batch.rubbish
        for event, table in batch.tables:
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            frames.append(
                frame.with_columns(
                    pl.lit(event.topic).alias("topic"),
                    pl.lit(event.domain).alias("domain"),
                    pl.lit(event.consent_category).alias("category"),
                    pl.lit(number).alias("batch"),
                )
            )
    return pl.concat(frames, how="diagonal_relaxed").with_row_index("sent_as"), traffic, rubbish


@pytest.fixture(scope="module")
def mixed(contract: Contract) -> tuple[pl.DataFrame, Traffic, list[Any]]:
    return everything(MIXED, contract)


def digest(config: TrafficConfig, contract: Contract) -> str:
    hashed = hashlib.sha256()
    for batch in Traffic(config, contract):
        for event, table in batch.tables:
            hashed.update(b"".join(wire_format(1, encode(event, table))))
        for message in batch.rubbish:
            hashed.update(repr(message).encode())
    return hashed.hexdigest()


def test_a_seed_gives_the_same_bytes_and_another_seed_others(contract):
    config = TrafficConfig(5_000, clients=0.3, people=200, titles=20, malformed=0.01)
    assert digest(config, contract) == digest(config, contract)
    assert digest(config, contract) != digest(TrafficConfig(5_000, 8, clients=0.3, people=200, titles=20), contract)


def test_topics_have_the_platforms_proportions_and_its_pace(contract):
    rows, _, _ = everything(TrafficConfig(200_000, people=100, duplicates=0, late=0, malformed=0), contract)
    flowing = rows.filter(~pl.col("event_name").is_in(PROLOGUE))
    counts = dict(flowing.group_by("topic").len().iter_rows())
    assert set(counts) == set(PHASE_1)
    for topic, rate in PHASE_1.items():
        wanted = 200_000 * rate / 102_460
        assert abs(counts[topic] - wanted) < 6 * wanted**0.5 + 6, topic
    times = flowing["event_timestamp"].dt.epoch("ms")
    assert times.min() >= T0
    assert times.max() - T0 == pytest.approx(200_000 / 102_460 * 1000, abs=20)


def test_a_rate_of_two_fits_them_into_half_the_time(contract):
    rows, _, _ = everything(TrafficConfig(50_000, rate=2, people=10, titles=5, late=0), contract)
    assert rows["event_timestamp"].dt.epoch("ms").max() - T0 == pytest.approx(50_000 / 204_920 * 1000, abs=20)


def test_clients_send_their_share_of_every_client_event(contract, mixed):
    rows, _, _ = mixed
    fresh = rows.filter(~pl.col("event_name").is_in(PROLOGUE)).unique("event_id")
    of_clients = fresh.filter(pl.col("topic").str.starts_with("client."))
    assert of_clients.height == pytest.approx(0.4 * fresh.height, rel=0.05)
    wanted = {(event.topic, event.name) for event in contract.events if event.topic.startswith("client.")}
    assert set(of_clients.select("topic", "event_name").unique().iter_rows()) == wanted
    assert of_clients["source"].unique().to_list() == ["CLIENT"]


def test_what_the_contract_wants_is_there(contract, mixed):
    rows, _, _ = mixed
    for event in contract.events:
        some = rows.filter((pl.col("event_name") == event.name) & (pl.col("topic") == event.topic))
        for column in event.columns:
            if some.height and not column.nullable:
                assert some[column.name].null_count() == 0, (event.name, column.name)
            if some.height and column.symbols:
                assert set(some[column.name].drop_nulls()) <= set(column.symbols)


def test_ids_are_uuids_of_version_7_that_begin_with_their_time(mixed):
    rows, _, _ = mixed
    first = rows.filter(pl.col("event_id") != "").unique("event_id", keep="first", maintain_order=True)
    for event_id, at in first.head(500).select("event_id", pl.col("event_timestamp").dt.epoch("ms")).iter_rows():
        parsed = uuid.UUID(event_id.removeprefix("evt_"))
        assert (parsed.version, parsed.int >> 80) == (7, at)


def test_a_profile_has_one_account_and_one_device_and_an_account_two_profiles(mixed):
    rows, _, _ = mixed
    known = rows.filter(pl.col("profile_id").is_not_null())
    assert known.group_by("profile_id").agg(pl.col("user_id").n_unique())["user_id"].unique().to_list() == [1]
    per_device = known.drop_nulls("device_id").group_by("device_id").agg(pl.col("profile_id").n_unique())
    assert per_device["profile_id"].unique().to_list() == [1]
    assert known.group_by("user_id").agg(pl.col("profile_id").n_unique())["profile_id"].unique().to_list() == [2]
    per_session = known.drop_nulls("session_id").group_by("session_id").agg(pl.col("device_id").n_unique())
    assert per_session["device_id"].unique().to_list() == [1]


def test_everybody_is_described_before_anything_else(contract, mixed):
    rows, _, _ = mixed
    prologue = rows.filter(pl.col("batch") == 0)
    assert set(prologue["event_name"]) == PROLOGUE
    later = rows.filter(pl.col("batch") > 0)
    assert set(later["profile_id"].drop_nulls()) <= set(prologue["profile_id"].drop_nulls())
    assert set(later["content_id"].drop_nulls()) <= set(prologue["content_id"].drop_nulls())
    assert prologue["event_timestamp"].dt.epoch("ms").max() < T0


def test_the_ledger_is_what_a_count_of_the_messages_comes_to(mixed):
    rows, traffic, rubbish = mixed
    ledger = traffic.ledger.to_json()
    refusing = set(rows.filter((pl.col("event_name") == "consent.changed") & ~pl.col("allows_analytics"))["user_id"])
    nameless = rows.filter(pl.col("event_id") == "")
    sessionless = rows.filter(pl.col("topic").str.starts_with("client.") & pl.col("session_id").is_null())
    valid = rows.filter(~pl.col("sent_as").is_in(pl.concat([nameless, sessionless])["sent_as"].implode()))
    kept = valid.filter((pl.col("category") != "analytics") | ~pl.col("user_id").is_in(list(refusing)).fill_null(False))
    once = kept.unique("event_id")
    expected = ledger["expected"]
    assert expected["messages"] == rows.height + len(rubbish)
    assert expected["dropped"] == valid.height - kept.height
    assert expected["bronze"] == dict(kept.group_by("topic").len().sort("topic").iter_rows())
    assert expected["silver"] == dict(once.group_by("domain").len().sort("domain").iter_rows())
    assert expected["duplicates"] == kept.height - once.height
    kinds = Counter(message.kind for message in rubbish)
    assert sum(expected["quarantined"].values()) == nameless.height + sessionless.height + len(rubbish)
    assert ledger["set_aside"] == {
        **kinds,
        "without_event_id": nameless.height,
        "without_session_id": sessionless.height,
    }
    for count, share in ((nameless.height, 0.003), (len(rubbish), 0.005), (expected["duplicates"], 0.03 * 0.8)):
        assert count == pytest.approx(share * 30_000, rel=0.5)


def test_resent_events_come_soon_or_at_the_very_end(mixed):
    rows, _, _ = mixed
    places = rows.filter(pl.col("event_id") != "").group_by("event_id").agg(pl.col("batch"), pl.len())
    apart = [batches[-1] - batches[0] for batches in places.filter(pl.col("len") > 1)["batch"].to_list()]
    last = rows["batch"].max()
    assert min(apart) == 1
    assert max(apart) == last - 1
    assert places["len"].max() == 2


def test_late_events_are_late_by_the_clock_that_tells(mixed):
    rows, traffic, _ = mixed
    fresh = rows.filter((pl.col("batch") > 0) & (pl.col("event_id") != "")).unique("event_id", keep="first")
    of_clients = fresh.filter(pl.col("topic").str.starts_with("client.") & pl.col("session_id").is_not_null())
    waited_ms = (of_clients["event_timestamp"] - of_clients["client_timestamp"]).dt.total_milliseconds()
    assert waited_ms.min() >= 20
    offline = int((waited_ms > 60_000).sum())
    events = traffic.ledger.to_json()["events"]
    assert offline == sum(counts["late"] for name, counts in events.items() if name.startswith("client."))
    of_servers = fresh.filter(~pl.col("topic").str.starts_with("client."))
    behind = int((of_servers["event_timestamp"].dt.epoch("ms") < T0).sum())
    assert 0.5 * 0.05 * of_servers.height < behind <= 0.06 * of_servers.height


@pytest.mark.parametrize("wrong", [{"events": -1}, {"rate": 0.0}, {"clients": 1.5}, {"people": 1}, {"late": -0.1}])
def test_a_setting_out_of_its_range_is_named(wrong):
    with pytest.raises(TrafficConfigError, match=next(iter(wrong))):
        TrafficConfig(**({"events": 10} | wrong))


def test_every_message_has_a_trace_of_its_own():
    headers = trace_headers(7, 0, 1000)
    traces = [dict(one)["trace_id"].decode() for one in headers if one]
    assert len(set(traces)) == 1000
    assert {len(trace) for trace in traces} == {32}
    assert all(int(trace, 16) for trace in traces)
    assert trace_headers(7, 400, 10) == headers[400:410]


def test_the_log_has_it_all_and_the_ledger_lies_beside_it(tmp_path, contract):
    bootstrap = f"embedded:{tmp_path / 'log.db'}"
    settings = Settings(work_dir=tmp_path, kafka={"bootstrap_servers": bootstrap, "partitions": 2})
    report = feed_traffic(
        settings, TrafficConfig(2_000, clients=0.2, people=50, titles=10, malformed=0.02), lambda n: None
    )
    ledger = json.loads((tmp_path / "traffic.json").read_text())
    log = EmbeddedLog.of(bootstrap)
    assert log is not None
    bounds = log.available(contract.topics).bounds
    stored = sum(high for partitions in bounds.values() for _, high in partitions.values())
    assert stored == ledger["expected"]["messages"] == report.wrote["messages"]
