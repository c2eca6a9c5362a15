"""Consistency.

input   the log of served features, and what the batch has: sorted logs of silver, built boundaries
does    works every logged value out anew for its instant, compares the two, and finds the reason of each difference
output  Iceberg `quality.consistency`; a page and metrics made from the same results

An answer is compared once everything it could have known is in silver; those after the first of which that cannot be
said yet are left for the next run, group by group.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from features.agreement import Tally
from features.purposes import Purpose
from pipelines.cluster import result_of
from pipelines.consistency.comparing import WITHHELD, Results, compare, merged, nothing_of
from pipelines.consistency.explaining import MOST_ROWS, Explaining, selection_of
from pipelines.consistency.known import Known
from pipelines.consistency.record import TargetResult, compared_until, record
from pipelines.consistency.served import TARGETS, Cut, Period, cut, first_untold, portions, reading
from pipelines.feature_tables import Target
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.point_in_time.join import Request, join_within
from pipelines.report import StationReport, timed
from pipelines.settings import Settings
from pipelines.viewing import KnownPeople

STATION = "consistency"


@dataclass(frozen=True)
class Consistency:
    """What one run found, target by target."""

    measured_ms: int
    results: list[TargetResult]
    report: StationReport

    @property
    def whole(self) -> Tally:
        """Of all values."""
        return whole_of(self.results)

    @property
    def reasons(self) -> dict[str, int]:
        """Values that are not exact, by reason."""
        counts: dict[str, int] = {}
        for one in self.results:
            for reason, count in one.reasons.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    @property
    def smape_max(self) -> float | None:
        """The greatest of all features."""
        found = [one.tally.smape for each in self.results for one in each.features.values()]
        return max((one for one in found if one is not None), default=None)


def whole_of(results: list[TargetResult]) -> Tally:
    """The tally of all features."""
    whole = Tally()
    for one in results:
        for found in one.features.values():
            whole.merge(found.tally)
    return whole


def consistency(
    settings: Settings,
    since_ms: int | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Consistency:
    """Compare answers given since an instant, or since the last run, and record what is found.

    `on_progress` hears of targets done and in all. Answers that the service may still be about to write are left for
    the next run. Raises as the point-in-time join does where features were never built.
    """
    with timed(STATION) as report, lineage.run(settings, STATION) as made:
        measured_ms = int(time.time() * 1000)
        lakehouse, folder = Lakehouse.open(settings), settings.served_features_folder
        # An answer waits `flush_s` to be written, and then for the writing.
        settled_ms = measured_ms - int(2_000 * settings.serving.served_features.flush_s)
        before = compared_until(lakehouse)
        first_ms = {one.name: before.get(one.name, -1) if since_ms is None else since_ms - 1 for one in TARGETS}
        results: list[TargetResult] = []
        until = dict(before)
        if folder.exists():
            periods = {name: Period(at_ms, max(at_ms, settled_ms)) for name, at_ms in first_ms.items()}
            with reading(folder):
                files = portions(folder)
                left = first_untold(files, periods, {one.name: Known.of(lakehouse, one) for one in TARGETS})
                for name, (at_ms, _) in left.items():
                    periods[name] = Period(periods[name].since_ms, at_ms - 1)
                cuts = cut(files, periods)
            work = _Work(Explaining(settings, lakehouse, made, KnownPeople.now(lakehouse)), made)
            seen = [one for one in TARGETS if one.name in cuts or one.name in left]
            for done, target in enumerate(seen):
                results.append(work(target, cuts.get(target.name, Cut()), left.get(target.name, (0, 0))[1]))
                on_progress(done + 1, len(seen))
            until |= {name: max(one.until_ms, before.get(name, -1)) for name, one in periods.items()}
        found = Consistency(measured_ms, results, report)
        made.serves(Purpose.ANALYTICS, *{one.target.group.purpose for one in results})
        if any(one.answers for one in results):
            report.wrote = {"quality.consistency": record(lakehouse, made, results, until, measured_ms)}
        report.read = {"answers": sum(one.answers for one in results)}
        report.did = _did(found)
    return found


def _did(found: Consistency) -> dict[str, Any]:
    whole = found.whole
    counts = {
        "values": whole.compared,
        "identical": whole.identical,
        "close": whole.close,
        "missing": whole.missing,
        "extra": whole.extra,
        "different": whole.different,
        **found.reasons,
        "answers left for the next run": sum(one.left for one in found.results),
        "answers without an instant": sum(one.without_instant for one in found.results),
    }
    return {name: count for name, count in counts.items() if count or name == "values"}


@dataclass(frozen=True)
class _Work:
    """Of one target after the other: its rows are joined, compared, and what differs is explained."""

    explaining: Explaining
    made: lineage.Run

    def __call__(self, target: Target, found: Cut, left: int) -> TargetResult:
        features: Results = nothing_of(target)
        if found.rows:
            features = self._compared(target, found)
        return TargetResult(target, found.rows, left, found.without_instant, features)

    def _compared(self, target: Target, found: Cut) -> Results:
        request = Request([selection_of(target)], target.group.purpose, "as_of", reason=WITHHELD)
        joined = join_within(self.made, self.explaining.settings, self.explaining.lakehouse, found.parts, request)
        task: Any = ray.remote(compare).options(num_returns=2)
        shared = ray.put(target)
        compared = [task.remote(shared, part) for part in joined.parts]
        facts = [result_of(fact) for fact, _ in compared]
        results = merged([nothing_of(target), *(one for one, _ in facts)])
        differing: list[pa.Table] = []
        seen = 0
        for (_, count), (_, rows) in zip(facts, compared, strict=True):
            if count and seen < MOST_ROWS:
                differing.append(result_of(rows))
            elif count:
                differing.append(result_of(ray.remote(_features_alone).remote(rows)))
            seen += count
        if differing:
            rows = pa.concat_tables(differing, promote_options="default")
            results = merged([results, self.explaining.explain(target, found, rows)])
        return results


def _features_alone(rows: pa.Table) -> pa.Table:
    return rows.select(["differing"])
