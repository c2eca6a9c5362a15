"""Which event how often: the platform's Phase-1 rates (spec 3.1) over all events of the contract."""

import numpy as np

from pipelines.contract.events import Contract, EventSchema

# Messages a second on each server topic (spec 3.1).
RATES = {
    "playback.sessions": 5_000,
    "playback.heartbeats": 50_000,
    "catalog.changes": 50,
    "epg.updates": 200,
    "recommendations.served": 3_000,
    "recordings.events": 200,
    "bookmarks.updates": 10_000,
    "user.events": 500,
    "qoe.metrics": 20_000,
    "cdn.routing.events": 5_000,
    "search.queries": 1_000,
    "ad.events": 2_000,
    "ai.features.updates": 5_000,
    "notifications.events": 500,
    "content.ingest.events": 10,
}
RATE_PER_S = sum(RATES.values())

# How often an event is against the others of its topic, where they are not alike.
_WEIGHTS = {
    "qoe.degraded": 0.02,
    "session.error": 0.04,
    "cdn.switched": 0.1,
    "title.updated": 0.2,
}
# How often a client event is against the others: the specification gives no rates for these.
_CLIENT_WEIGHTS = {"playback.heartbeat": 60.0, "tile.impression": 40.0, "rail.impression": 12.0, "screen.view": 8.0}

# What changes who may be counted, or erases: only the prologue says it, so that what is expected stays plain.
PROLOGUE = ("title.added", "profile.updated", "consent.changed")
_NEVER = {*PROLOGUE, "user.deleted"}


def mix(contract: Contract, clients: float) -> list[tuple[EventSchema, float]]:
    """Every event that flows with its share of all, `clients` of it the client events'; the shares sum to 1."""
    shares: list[tuple[EventSchema, float]] = []
    for topic, rate in RATES.items():
        events = [event for event in contract.events if event.topic == topic and event.name not in _NEVER]
        weights = np.array([_WEIGHTS.get(event.name, 1.0) for event in events])
        shares += _shared(events, weights, (1 - clients) * rate / RATE_PER_S)
    if clients:
        events = [event for event in contract.events if is_client(event)]
        shares += _shared(events, np.array([_CLIENT_WEIGHTS.get(event.name, 1.0) for event in events]), clients)
    return shares


def is_client(event: EventSchema) -> bool:
    """Whether clients report the event."""
    return event.topic.startswith("client.")


def _shared(events: list[EventSchema], weights: np.ndarray, share: float) -> list[tuple[EventSchema, float]]:
    return list(zip(events, (share * weights / weights.sum()).tolist(), strict=True))
