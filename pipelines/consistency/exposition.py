"""The results of one run as Prometheus metrics, in its text format (version 0.0.4)."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from pipelines.consistency.station import Consistency

OUTCOMES = ("identical", "close", "missing", "extra", "different")


def exposition(found: Consistency) -> str:
    """The metrics of one run."""
    registry = CollectorRegistry()
    labels = ("group", "entity", "feature")
    values = Gauge(
        "reel_consistency_values", "Served values that were compared with the batch's, by outcome",
        (*labels, "outcome"), registry=registry,
    )  # fmt: skip
    share = Gauge("reel_consistency_exact_share", "Share of them that are exact", labels, registry=registry)
    smape = Gauge("reel_consistency_smape", "Mean symmetric error of their numbers, 0 to 2", labels, registry=registry)
    reasons = Gauge(
        "reel_consistency_differences", "Values that are not exact, by reason", ("group", "entity", "reason"),
        registry=registry,
    )  # fmt: skip
    left = Gauge(
        "reel_consistency_left_answers", "Answers that the batch cannot tell of yet", ("group", "entity"),
        registry=registry,
    )  # fmt: skip
    measured = Gauge("reel_consistency_measured_timestamp_seconds", "When it was compared", registry=registry)
    for one in found.results:
        where = (one.target.group.name, one.target.entity)
        left.labels(*where).set(one.left)
        for reason, count in one.reasons.items():
            reasons.labels(*where, reason).set(count)
        for name, result in one.features.items():
            for outcome in OUTCOMES:
                values.labels(*where, name, outcome).set(getattr(result.tally, outcome))
            if result.tally.exact_share is not None:
                share.labels(*where, name).set(result.tally.exact_share)
            if result.tally.smape is not None:
                smape.labels(*where, name).set(result.tally.smape)
    measured.set(found.measured_ms / 1000)
    return generate_latest(registry).decode()
