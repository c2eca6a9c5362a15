"""Decoding heartbeats in bulk against fastavro's per-message reader, one core each, same messages.

    python -m tests.benchmarks.decode [--rows N]

The two outputs are compared row by row, and so are the two encoders' bytes. Times are processor seconds, the best of
some rounds, because the machine may be shared. `with_bad` is the same with one message in 50,000 damaged.
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

from pipelines.contract.codec import Decoded, decode, encode
from pipelines.contract.events import EventSchema, load_contract
from tests.pipelines.event_rows import example_row, fastavro_row, nested, rows_of, table_of

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    count = parser.parse_args().rows
    pa.set_cpu_count(1)
    event = load_contract(Path(__file__).parents[2] / "configs" / "schemas").event("playback.heartbeat")
    rows = [{**typical_row(event, index), "playback_id": f"play-{index // 20:08d}"} for index in range(count)]
    table = table_of(event, rows)
    parsed = fastavro.parse_schema(json.loads(event.avro_json))

    records = [nested(row) for row in rows]
    bodies, encode_s = best(lambda: encode(event, table))
    theirs, fastavro_encode_s = best(lambda: [fastavro_write(parsed, record) for record in records], 2)
    assert bodies == theirs, "the two encoders differ"

    decoded, decode_s = best(lambda: decode(event.avro, bodies, event))
    _, fastavro_s = best(lambda: [fastavro.schemaless_reader(io.BytesIO(body), parsed, None) for body in bodies], 2)
    check(decoded, rows, event, bodies)

    damaged = [b"\xff" * 9 if index % 50_000 == count // 2 % 50_000 else body for index, body in enumerate(bodies)]
    with_bad, with_bad_s = best(lambda: decode(event.avro, damaged, event))
    assert 1 <= len(with_bad.bad) == count - with_bad.table.num_rows

    print(
        json.dumps(
            {
                "vs_fastavro": round(fastavro_s / decode_s, 2),
                "events_per_s": round(count / decode_s),
                "fastavro_events_per_s": round(count / fastavro_s),
                "with_bad_events_per_s": round(count / with_bad_s),
                "encode_vs_fastavro": round(fastavro_encode_s / encode_s, 2),
                "encode_events_per_s": round(count / encode_s),
                "rows": count,
                "bytes_per_event": round(sum(map(len, bodies)) / count),
            }
        )
    )


def typical_row(event: EventSchema, index: int) -> dict[str, Any]:
    """An ordinary heartbeat of about 280 bytes, nearly every column given."""
    return {
        **example_row(event, index + 1 if index % 5 == 4 else index),
        "event_id": f"evt_018f3a5c-7b2e-7c1d-9a4f-{index:012x}",
        "source": "CLIENT",
        "user_id": f"usr_{index % 9_999:06d}",
        "profile_id": f"prf_{index % 9_999:06d}",
        "session_id": f"sess_{index // 20:08d}",
        "device_id": f"dev_{index % 9_999:06d}",
        "device_type": "android_tv",
        "platform": "android_tv",
        "market": "GB",
        "app_version": "2.3.1",
        "os_version": "Android TV 14",
        "connection_type": "wifi",
        "ip": f"192.0.2.{index % 255}",
        "user_agent": "Mozilla/5.0 (Linux; Android 14; TV)",
        "consent_analytics": True,
        "consent_personalization": True,
        "consent_ad_targeting": False,
        "content_id": f"vod_{index % 5_000:05d}",
        "content_type": "vod",
        "position_ms": index % 240 * 30_000,
        "bitrate_kbps": 4_500,
        "resolution": "1080p",
        "buffer_length_ms": 12_000,
        "dropped_frames": index % 4,
        "cdn": "akamai",
    }


def best(work: Callable[[], Any], rounds: int = ROUNDS) -> tuple[Any, float]:
    """The result of `work` and its least processor seconds."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return result, min(seconds)


def fastavro_write(schema: Any, record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def check(decoded: Decoded, rows: list[dict[str, Any]], event: EventSchema, bodies: list[bytes]) -> None:
    assert decoded.bad == []
    assert rows_of(decoded.table) == rows, "decoded rows differ from what was written"
    for index in range(0, len(bodies), max(1, len(bodies) // 200)):
        assert fastavro_row(event.avro, bodies[index]) == rows[index], "fastavro reads another row"


if __name__ == "__main__":
    main()
