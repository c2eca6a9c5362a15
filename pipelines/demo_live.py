"""The demo's last part: one event, sent while the service answers, and how long until the answer is another."""

import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.cluster import connected
from pipelines.console import say
from pipelines.contract.events import load_contract
from pipelines.contract.registry import open_registry
from pipelines.kafka.log import bootstrap_servers
from pipelines.kafka.produce import Producer
from pipelines.settings import Settings
from pipelines.stream.beside import streaming

WATCHED_MS = 40 * 60_000
LONGEST_WAIT_S = 30.0
_POLL_S = 0.005


def show_live(settings: Settings, client: httpx.Client, profile: str, content_id: str) -> None:
    """Somebody finishes a title, and the answers to two questions about them change: in how many milliseconds."""
    questions = {
        "/v1/features": {"group": "user_viewing_history", "profile_id": profile},
        "/v1/recommendations": {"profile_id": profile, "k": "5"},
    }

    def said(path: str) -> Any:
        answer = client.get(path, params=questions[path]).raise_for_status().json()
        if path == "/v1/features":
            return answer["values"].get("recent_titles")
        return [(item["content_id"], item["score"]) for item in answer["items"]]

    contract = load_contract(settings.schemas)
    with (
        connected(settings, is_live=True),
        streaming(settings),
        Producer(bootstrap_servers(settings), contract, open_registry(settings.registry_location)) as producer,
    ):
        before = {path: said(path) for path in questions}
        ended_ms = _now_of(client, questions["/v1/features"]) + WATCHED_MS
        for event in _finished(settings, profile, content_id, ended_ms):
            schema = contract.event(event["event_name"])
            producer.produce(schema, pa.Table.from_pylist([event], schema=schema.arrow))
        producer.flush()
        sent = time.perf_counter()
        say(f"\n{profile} has finished {content_id}: the event is in the log, and the stream reads on")
        for path in questions:
            changed_ms = _until(lambda path=path: said(path) != before[path], sent)  # type: ignore[misc]
            what = "is as before" if changed_ms is None else f"changed {changed_ms:,.0f} ms after the event"
            say(f"  GET {path:<20} {what}")


def _until(holds: Callable[[], bool], since: float) -> float | None:
    """Milliseconds from an instant until something holds; None if it does not for half a minute."""
    while not holds():
        if time.perf_counter() - since > LONGEST_WAIT_S:
            return None
        time.sleep(_POLL_S)
    return (time.perf_counter() - since) * 1000


def _now_of(client: httpx.Client, question: dict[str, str]) -> int:
    """The instant that answers are as of: the platform's own now."""
    as_of = client.get("/v1/features", params=question).raise_for_status().json()["as_of"]
    return int(datetime.fromisoformat(as_of).timestamp() * 1000)


def _finished(settings: Settings, profile: str, content_id: str, ended_ms: int) -> list[dict[str, Any]]:
    """The first and the last event of a playback, as the viewer's client reports them."""
    viewers = pq.read_table(
        settings.work_dir / "truth" / "viewers.parquet", columns=["profile_id", "user_id", "market"]
    )
    viewer = viewers.filter(pc.equal(viewers["profile_id"], profile)).to_pylist()[0]
    playback = uuid.uuid4().hex

    def event(name: str, at_ms: int, **properties: object) -> dict[str, Any]:
        return {
            "event_id": f"evt_{uuid.uuid4()}",
            "event_name": name,
            "event_timestamp": at_ms,
            "client_timestamp": at_ms,
            "source": "CLIENT",
            **viewer,
            "session_id": f"sess_{playback}",
            "device_id": f"dev_{playback}",
            "consent_analytics": True,
            "consent_personalization": True,
            "consent_ad_targeting": True,
            "content_id": content_id,
            "content_type": "vod",
            "playback_id": f"play_{playback}",
            **properties,
        }

    ending = {
        "position_ms": WATCHED_MS,
        "total_duration_ms": WATCHED_MS,
        "completion_percent": 100.0,
        "stop_reason": "end_of_content",
    }
    return [event("playback.started", ended_ms - WATCHED_MS), event("playback.stopped", ended_ms, **ending)]
