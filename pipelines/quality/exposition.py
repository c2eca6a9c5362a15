"""The newest results as Prometheus metrics, in its text format (version 0.0.4)."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from pipelines.quality.results import Findings, Status

STATUS_VALUES = {Status.OK: 0, Status.WARN: 1, Status.FAIL: 2}


def exposition(findings: Findings | None) -> str:
    """The metrics of one run; of none, no sample but that nothing was measured."""
    registry = CollectorRegistry()
    labels = ("check", "subject")
    status = Gauge("reel_quality_status", "0 = ok, 1 = look at it, 2 = a promise is broken", labels, registry=registry)
    observed = Gauge("reel_quality_observed", "What the check found, a share or seconds", labels, registry=registry)
    threshold = Gauge("reel_quality_threshold", "Above this it is no longer ok", labels, registry=registry)
    measured = Gauge("reel_quality_measured_timestamp_seconds", "When the checks ran; 0 = never", registry=registry)
    for one in findings.results if findings is not None else ():
        status.labels(one.check, one.subject).set(STATUS_VALUES[one.status])
        observed.labels(one.check, one.subject).set(one.observed)
        if one.threshold is not None:
            threshold.labels(one.check, one.subject).set(one.threshold)
    measured.set(findings.measured_ms / 1000 if findings is not None else 0)
    return generate_latest(registry).decode()
