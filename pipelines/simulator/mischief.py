"""Between the client and the server: delays, offline phones, wrong clocks, resends, and messages that are no events."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.event_batch import RubbishMessage
from pipelines.identifiers import event_ids, splitmix64
from pipelines.simulator.accounts import ANALYTICS, ConsentDay
from pipelines.simulator.columns import Columns, concatenate, length, take
from pipelines.simulator.config import DAY_MS
from pipelines.simulator.platform import DEVICES, Platform

ORIGINAL, RESENT, WITHOUT_SESSION = range(3)
NO_SESSION = -1
RUBBISH_KINDS = ("truncated_body", "unknown_schema_id", "wrong_magic_byte", "empty", "random_bytes")

_RUBBISH_TOPICS = ("client.playback", "client.browse", "client.navigation")
_RUBBISH_TOPIC_SHARES = (0.80, 0.15, 0.05)
_EVENT_OF_TOPIC = dict(zip(_RUBBISH_TOPICS, ("playback.heartbeat", "tile.impression", "app.launch"), strict=True))
_UNKNOWN_SCHEMA_ID = 0x7FFF0000
_MAX_RESEND_MS = 1_800_000
_MIN_LATE_MS = 600_000


@dataclass(frozen=True)
class Post:
    """How a day's sessions reach the server: `flush_ms` per session is when a late one's events start to arrive.

    `flush_ms` is 0 for sessions that are delivered as they happen; `last_ms` is the household's cancellation, before
    which everything has arrived. Sessions are counted from `first_session`.
    """

    first_session: int
    start_ms: NDArray[np.int64]
    flush_ms: NDArray[np.int64]
    last_ms: NDArray[np.int64]


def post_sessions(
    platform: Platform, sessions: Columns, cancel_ms: NDArray[np.int64], random: np.random.Generator
) -> Post:
    """Choose the sessions on mobile devices that are offline, and when (10 minutes to a day later) they reconnect."""
    ordered = take(sessions, np.argsort(sessions["session"]))
    rows = length(ordered)
    is_mobile = np.array([device.is_mobile for device in DEVICES])[platform.viewers.device[ordered["viewer"]]]
    late = is_mobile & (random.random(rows) < platform.config.late_session_rate)
    last_ms = cancel_ms[platform.viewers.household[ordered["viewer"]]]
    longest_ms = np.minimum(last_ms - ordered["end_ms"] - 2 * _MAX_RESEND_MS, DAY_MS - _MAX_RESEND_MS)
    wait_ms = np.exp(random.uniform(np.log(_MIN_LATE_MS), np.log(DAY_MS), rows)).astype(np.int64)
    flush_ms = np.where(late, ordered["end_ms"] + np.minimum(wait_ms, longest_ms), 0)
    return Post(int(ordered["session"][0]), ordered["start_ms"], flush_ms, last_ms)


def deliver(
    platform: Platform,
    events: dict[str, Columns],
    post: Post,
    consent: ConsentDay,
    first_number: int,
    random: np.random.Generator,
) -> dict[str, Columns]:
    """Turn what clients reported into what the server receives.

    Replaces `true_ms` by `client_ms` (by the device's clock) and `receive_ms`, and adds `consent` (bits), `late`,
    `copy` (`ORIGINAL`, `RESENT`, `WITHOUT_SESSION`) and `event_number`, which counts on from `first_number` and is what
    the event id is made of.
    """
    delivered = {}
    for name, columns in events.items():
        rows = length(columns)
        received = _receive(platform, columns, post, consent)
        received["event_number"] = first_number + np.arange(rows)
        resent = _resend(platform, received, random)
        stripped = _strip_session(platform, received, first_number + rows, random)
        first_number += rows + length(stripped)
        delivered[name] = concatenate([received, resent, stripped])
    return delivered


def _receive(platform: Platform, columns: Columns, post: Post, consent: ConsentDay) -> Columns:
    """Originals: received in the order they happened, after the session's own network delay of 20 to 250 ms."""
    row = columns["session"] - post.first_session
    scattered = splitmix64(columns["session"].astype(np.uint64), platform.config.seed)
    delay_ms = 20 + (scattered % np.uint64(231)).astype(np.int64)
    true_ms, flush_ms = columns["true_ms"], post.flush_ms[row]
    # A client that reconnects sends its backlog a thousand times faster than it gathered it, in order.
    flushed_ms = flush_ms + (true_ms - post.start_ms[row]) // 1_000
    household = platform.viewers.household[columns["viewer"]]
    return {name: values for name, values in columns.items() if name != "true_ms"} | {
        "client_ms": true_ms + platform.viewers.clock_error_ms[columns["viewer"]],
        "receive_ms": np.where(flush_ms > 0, flushed_ms, true_ms + delay_ms),
        "consent": consent.at(household, true_ms),
        "copy": np.full(len(row), ORIGINAL, dtype=np.int8),
        "late": flush_ms > 0,
    }


def _resend(platform: Platform, received: Columns, random: np.random.Generator) -> Columns:
    """Copies of some events: half are repeated on the way (alike in every byte), half sent and received again later."""
    resent = take(received, random.random(length(received)) < platform.config.resend_rate)
    rows = length(resent)
    delay_ms = np.minimum(random.exponential(300_000, rows), _MAX_RESEND_MS).astype(np.int64)
    resent["receive_ms"] = resent["receive_ms"] + np.where(random.random(rows) < 0.5, 0, delay_ms)
    return resent | {"copy": np.full(rows, RESENT, dtype=np.int8)}


def _strip_session(platform: Platform, received: Columns, first_number: int, random: np.random.Generator) -> Columns:
    """Extra events like some of the others, with ids of their own but no session id: well formed, yet invalid.

    Only adults who allow analytics get them, so that each must be set aside and none dropped for another reason.
    """
    eligible = (received["consent"] & ANALYTICS > 0) & ~platform.viewers.is_kids[received["viewer"]]
    stripped = take(received, eligible & (random.random(length(received)) < platform.config.missing_session_rate))
    rows = length(stripped)
    return stripped | {
        "session": np.full(rows, NO_SESSION),
        "event_number": first_number + np.arange(rows),
        "copy": np.full(rows, WITHOUT_SESSION, dtype=np.int8),
        "late": np.zeros(rows, dtype=bool),
    }


def make_rubbish(
    platform: Platform, midnight_ms: int, events: int, random: np.random.Generator
) -> list[RubbishMessage]:
    """A day's messages that are no events, by time; their number is Poisson around `rubbish_rate` of its `events`."""
    times_ms = midnight_ms + np.sort(random.integers(0, DAY_MS, random.poisson(platform.config.rubbish_rate * events)))
    kinds = random.integers(0, len(RUBBISH_KINDS), len(times_ms))
    topics = random.choice(_RUBBISH_TOPICS, len(times_ms), p=_RUBBISH_TOPIC_SHARES)
    return [
        _rubbish(str(topic), RUBBISH_KINDS[kind], int(time_ms), random)
        for topic, kind, time_ms in zip(topics, kinds, times_ms, strict=True)
    ]


def _rubbish(topic: str, kind: str, time_ms: int, random: np.random.Generator) -> RubbishMessage:
    noise = random.bytes(int(random.integers(20, 200)))
    match kind:
        case "truncated_body":
            event_name = _EVENT_OF_TOPIC[topic]
            return RubbishMessage(topic, kind, _truncated(event_name, time_ms, random), time_ms, event_name)
        case "unknown_schema_id":
            schema_id = _UNKNOWN_SCHEMA_ID + int(random.integers(1 << 16))
            value = b"\x00" + schema_id.to_bytes(4, "big") + noise
        case "wrong_magic_byte":
            value = b"\x01" + (1).to_bytes(4, "big") + noise
        case "empty":
            value = b""
        case _:
            value = bytes([int(random.integers(2, 256))]) + noise
    return RubbishMessage(topic, kind, value, time_ms)


def _truncated(event_name: str, time_ms: int, random: np.random.Generator) -> bytes:
    """The first fields of an Avro body (event id, event name), cut off somewhere: those after them are not there."""
    high, low = random.integers(0, 1 << 63, 2, dtype=np.uint64)
    event_id = event_ids(np.array([time_ms]), np.array([high]), np.array([low]))[0].as_py()
    # Avro writes a string as its length, zigzag coded (doubled; one byte up to 63), then its bytes.
    body = b"".join(bytes([2 * len(text)]) + text.encode() for text in (event_id, event_name))
    return body[: int(random.integers(1, len(body) + 1))]
