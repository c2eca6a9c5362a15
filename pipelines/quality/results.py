"""What a check found: one result for each thing it looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Check(StrEnum):
    """What is checked, in the order of spec 11.1; duplicates and exactly-once are the two sides of its third row."""

    SCHEMA_REJECTS = "schema_rejects"
    TIMESTAMPS = "timestamps"
    DUPLICATES = "duplicates"
    EXACTLY_ONCE = "exactly_once"
    MISSING_FIELDS = "missing_fields"
    REFERENCES = "references"
    VOLUME = "volume"
    FRESHNESS = "freshness"


class Status(StrEnum):
    """`warn`: somebody should look at what came in. `fail`: the lakehouse broke a promise of its own."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Window:
    """Instants [start, end), milliseconds since epoch UTC; `start` is a whole hour."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Result:
    """One check of one subject. `observed` is a share or a count of seconds, as the check says, like `threshold`."""

    check: Check
    subject: str
    status: Status
    observed: float
    threshold: float | None
    detail: str
    window: Window


@dataclass(frozen=True)
class Findings:
    """The results of one run."""

    measured_ms: int
    results: Sequence[Result]

    def count(self, status: Status) -> int:
        """How many results have `status`."""
        return sum(result.status is status for result in self.results)


def judged(above: bool, otherwise: Status = Status.WARN) -> Status:
    """`otherwise` when the observed value is above its threshold."""
    return otherwise if above else Status.OK


def value_text(result: Result, value: float | None) -> str:
    """The observed value of a result, or its threshold, in the unit of its check."""
    if value is None:
        return ""
    if result.check is Check.FRESHNESS:
        return _duration_text(value)
    is_count = result.check is Check.EXACTLY_ONCE or (result.check is Check.DUPLICATES and result.threshold == 0)
    return f"{value:,.0f}" if is_count else f"{value:.2%}"


def _duration_text(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds:.3g} s"


def as_dict(result: Result) -> dict[str, str | float | None]:
    """What was found, as plain JSON types."""
    return {
        "check": str(result.check),
        "subject": result.subject,
        "status": str(result.status),
        "observed": result.observed,
        "threshold": result.threshold,
        "detail": result.detail,
    }


def instant(at_ms: int) -> datetime:
    """Milliseconds since epoch as an instant of UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)
