"""What a station tells its caller: what it read, did and wrote, with counts and seconds."""

import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

Facts = dict[str, int | float | str]


@dataclass
class StationReport:
    """One run of one station. Keys are what is counted (`playback_events`), values how many or which."""

    station: str
    read: Facts = field(default_factory=dict)
    did: Facts = field(default_factory=dict)
    wrote: Facts = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """The report as plain JSON types, for `--json`."""
        return {
            "station": self.station,
            "read": self.read,
            "did": self.did,
            "wrote": self.wrote,
            "seconds": round(self.seconds, 3),
        }


_not_counted_s = [0.0]
_current: ContextVar[StationReport | None] = ContextVar("report", default=None)


def current_report() -> StationReport | None:
    """The report of the innermost `timed` block that is open."""
    return _current.get()


@contextmanager
def timed(station: str) -> Iterator[StationReport]:
    """A report for `station` whose `seconds` is the time spent in the block, but for what is `not_counted`."""
    report = StationReport(station)
    started, before = time.perf_counter(), _not_counted_s[0]
    token = _current.set(report)
    try:
        yield report
    finally:
        _current.reset(token)
    report.seconds = time.perf_counter() - started - (_not_counted_s[0] - before)


@contextmanager
def not_counted() -> Iterator[None]:
    """Time that is no station's own: a Ray that starts."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _not_counted_s[0] += time.perf_counter() - started


def add_counts(total: MutableMapping[str, Any], counts: Mapping[str, int], prefix: str = "") -> None:
    """Add `counts` into `total` in place, each name led by `prefix`."""
    for name, count in counts.items():
        total[prefix + name] = total.get(prefix + name, 0) + count


def summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of all parts together."""
    total: dict[str, int] = {}
    for counts in parts:
        add_counts(total, counts)
    return total
