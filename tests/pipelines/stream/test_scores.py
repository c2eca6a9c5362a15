"""What is told of a playback, by hand; and told twice to a real Kafka it is the same event."""

import uuid

import pyarrow as pa
import pytest

from features.finished_playbacks import finished_playbacks
from features.pseudonyms import Pseudonymizer
from pipelines.contract.codec import encode
from pipelines.contract.events import load_contract
from pipelines.kafka.log import open_log
from pipelines.kafka.offsets import OffsetRange
from pipelines.kafka.produce import open_producer
from pipelines.messages import MessageDecoder
from pipelines.settings import KafkaSettings, Settings
from pipelines.stream.scores import EVENT, session_scores
from tests.features.test_finished_playbacks import WIDER
from tests.platform import SALT, T0, hashed

COMMON = {
    "profile_id": "a-profile", "user_id": "a-user", "viewer_token": "a-profile", "session_id": "a-session",
    "playback_id": "b-1", "content_id": "vod-1", "content_type": "vod", "cdn": "akamai", "market": "GB",
    "geo_country": "FR", "platform": "web", "device_type": "tv", "isp": "Free",
}  # fmt: skip
STARTED = {"event_name": "playback.started", "start_time_ms": 1_000, "initial_bitrate_kbps": 3_000}
BEAT = {"event_name": "playback.heartbeat", "bitrate_kbps": 3_001}
STALLED = {"event_name": "playback.rebuffer", "rebuffer_duration_ms": 4_000}
STOPPED = {"event_name": "playback.stopped", "completion_percent": 90.0}


def versions(*events, **changes):
    """Of a playback whose events come five minutes apart."""
    rows = [
        COMMON | changes | event | {"event_id": f"e{place}", "event_timestamp": (T0 + place * 300_000) * 1000}
        for place, event in enumerate(events)
    ]
    return finished_playbacks(pa.Table.from_pylist(rows, WIDER))


def scores(*events, **changes):
    return session_scores(versions(*events, **changes), Pseudonymizer((SALT,))).to_pylist()


def test_a_playback_by_hand():
    (row,) = scores(STARTED, BEAT, STALLED, STOPPED)
    over_ms = T0 + 3 * 300_000 + 5_000
    assert int(row.pop("event_timestamp").timestamp() * 1000) == over_ms
    number = uuid.UUID(row.pop("event_id").removeprefix("evt_"))
    assert (number.version, number.variant, number.int >> 80) == (7, uuid.RFC_4122, over_ms)
    # (5.67 * 6 / 9 + 0.17 - 0.963 * log10(6.381 / 5.381)) / 5.84, less 4.95 * 1/8 * 4 / 15 / 5.84 for the stall
    assert row.pop("qoe_score") == pytest.approx(63.591, abs=0.001)
    assert row.pop("rebuffer_ratio") == pytest.approx(4_000 / 900_000)
    assert {name: value for name, value in row.items() if value is not None} == {
        "event_name": EVENT, "source": "SERVER", "device_type": "tv", "platform": "web", "market": "GB",
        "playback_id": hashed("b-1"), "content_id": "vod-1", "content_type": "vod", "start_time_ms": 1_000,
        "rebuffer_count": 1, "average_bitrate_kbps": 3_001, "bitrate_switch_count": 0, "watched_ms": 900_000,
        "cdn": "akamai", "region": "FR", "isp": "Free",
    }  # fmt: skip


def test_what_it_cannot_say_it_does_not_tell():
    beat = BEAT | {"bitrate_kbps": None}
    assert scores(STARTED | {"initial_bitrate_kbps": None}, beat, STOPPED) == [], "no bitrate"
    assert scores(STARTED, BEAT, STOPPED, cdn=None) == []
    assert scores(STARTED, BEAT, STOPPED, geo_country=None, market=None) == []
    assert scores(STARTED) == [], "nothing was watched"
    assert [row["region"] for row in scores(STARTED, BEAT, STOPPED, geo_country=None)] == ["GB"]


def test_what_differs_has_another_id():
    some = [scores(STARTED, BEAT, *more, **changes) for more in ((), (STALLED,), (BEAT,)) for changes in ({}, COMMON)]
    assert [len(rows) for rows in some] == [1] * 6
    assert len({rows[0]["event_id"] for rows in some}) == 3
    assert scores(STARTED, BEAT, playback_id=None)[0]["playback_id"] != hashed("b-1")


def test_told_twice_to_a_real_kafka_it_is_the_same_event(kafka_bootstrap, tmp_path):
    settings = Settings(work_dir=tmp_path, kafka=KafkaSettings(bootstrap_servers=kafka_bootstrap, partitions=2))
    contract = load_contract(settings.schemas)
    event, log = contract.event(EVENT), open_log(settings)
    told = session_scores(versions(STARTED, BEAT, STALLED, STOPPED), Pseudonymizer((SALT,)))
    with open_producer(settings, contract, [event.topic]) as producer:
        before = log.available([event.topic]).bounds[event.topic]
        for _ in range(2):
            producer.produce(EVENT, told)
    after = log.available([event.topic]).bounds[event.topic]
    ranges = [
        OffsetRange(event.topic, one, before[one][1], end) for one, (_, end) in after.items() if end > before[one][1]
    ]
    values = [value for span in ranges for part in log.read([span], 10) for value in part.values]
    assert len(values) == 2
    assert values[0] == values[1]
    assert values[0][5:] == encode(event, told)[0]
    decoded = MessageDecoder(settings.registry_location, str(settings.schemas)).decode(values)
    ((_, rows, _),) = decoded.events
    assert rows.select(told.column_names).to_pylist() == told.to_pylist() * 2
