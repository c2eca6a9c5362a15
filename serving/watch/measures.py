"""The metrics of the service, each declared once (Prometheus). No label ever holds an id, of a person or of anything.

Every process has its own; `scrape.py` shows those of all of them with a label `replica`, and sums are Prometheus's:
`sum without (replica) (rate(reel_requests_total[1m]))`.
"""

from statistics import median_low

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from features.packing import Values

REGISTRY = CollectorRegistry()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_AGES_S = (1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)

REQUESTS = Counter(
    "reel_requests", "Requests answered, by endpoint and status.", ("endpoint", "method", "status"), registry=REGISTRY
)
DURATION = Histogram(
    "reel_request_duration_seconds",
    "From the first byte read to the last byte written, by endpoint and, where one answered, model and version.",
    ("endpoint", "model", "version"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
IN_PROGRESS = Gauge("reel_requests_in_progress", "Requests being worked on now.", registry=REGISTRY)
SHOWN_AT = Gauge(
    "reel_metrics_timestamp_seconds", "When a replica's metrics were as a scrape shows them, Unix time.",
    registry=REGISTRY,
)  # fmt: skip
FALLBACKS = Counter(
    "reel_fallback_answers",
    "Answers that hold less than was asked for, by reason; degraded: something failed, else a rule spoke.",
    ("endpoint", "reason", "degraded"),
    registry=REGISTRY,
)
TURNED_AWAY = Counter(
    "reel_turned_away_requests",
    "Requests not worked on: rate_limited (429), overloaded (503), too_slow (504).",
    ("endpoint", "cause"),
    registry=REGISTRY,
)
STORE = Histogram(
    "reel_store_read_duration_seconds",
    "One request's look-ups in the online store, by outcome: read, slow, unavailable.",
    ("outcome",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
FEATURE_AGE = Histogram(
    "reel_feature_age_seconds",
    "Age of the features of a look-up, the median of its keys, by feature group.",
    ("group",),
    buckets=_AGES_S,
    registry=REGISTRY,
)
FEATURE_VALUES = Counter(
    "reel_feature_values", "Values served of keys that are known, by feature group.", ("group",), registry=REGISTRY
)
FEATURE_NULLS = Counter(
    "reel_feature_null_values", "Those of them that are null, by feature group.", ("group",), registry=REGISTRY
)
UNKNOWN_KEYS = Counter(
    "reel_feature_unknown_keys", "Keys of which nothing was known or shown, by feature group.", ("group",),
    registry=REGISTRY,
)  # fmt: skip
LOGGED = Counter(
    "reel_logged_rows",
    "Rows of the logs of answers, by log (features, predictions) and outcome: written, not_allowed (of people who are "
    "not to be logged), dropped (for want of room, of a disk, or of a store that says who allows it).",
    ("log", "outcome"),
    registry=REGISTRY,
)


def served(group: str, found: Values) -> None:
    """Count what a look-up gave of a feature group."""
    known = [age_ms for age_ms in found.ages_ms if age_ms is not None]
    unknown = len(found.ages_ms) - len(known)
    UNKNOWN_KEYS.labels(group).inc(unknown)
    if not known:
        return
    FEATURE_AGE.labels(group).observe(median_low(known) / 1000)
    FEATURE_VALUES.labels(group).inc(len(known) * len(found.columns))
    FEATURE_NULLS.labels(group).inc(sum(column.count(None) - unknown for column in found.columns.values()))
