"""Feature statistics.

input   the offline store: `features.{group}_by_{entity}`
does    describes every feature's values on each of the newest days that are over (`features.day_values` says which)
output  Iceberg `features.statistics`: the days that it had before, as they are now

A table that is as it was when these days were described is not read again. One that is not may have changed anywhere,
since late events move old values: all days that are asked for are described anew, and put in place in one commit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.columns import flat
from features.day_values import DAY, entities_of, values_of_days
from features.declarations import CREATED, LAST_EVENT, TILE_LENGTH, TILE_START, FeatureGroup
from features.groups import GROUPS
from features.runs import run_starts
from features.source import EVENT_TIME
from features.statistics import Summary, describe, merge, summarize
from features.windows import DAY_MS, Cadence
from pipelines.cluster import run_tasks
from pipelines.errors import ReelError, UsageError
from pipelines.feature_statistics.record import STATISTICS_TABLE, Subject, replace_days, row_of, statistics_table
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import live_files, upper_instant_ms
from pipelines.point_in_time.stored import STORED_TIME, BucketedTable
from pipelines.report import StationReport, timed
from pipelines.settings import Settings

DEFAULT_DAYS = 28
Summaries = dict[Subject, Summary]


class NothingToDescribeError(ReelError):
    """There is no feature table, or none knows of a day that is over."""


@dataclass(frozen=True)
class Described:
    """A feature table, and the days of it that are described."""

    group: FeatureGroup
    entity: str
    stored: BucketedTable
    days: range

    @property
    def record(self) -> dict[str, object]:
        """What it is described from, as the commit keeps it."""
        fingerprint = self.group.fingerprint.hex()
        return {"snapshot": self.stored.snapshot_id, "fingerprint": fingerprint, "first_day": self.days.start,
                "last_day": self.days.stop - 1}  # fmt: skip

    def is_known(self, recorded: Mapping[str, object]) -> bool:
        """Whether these days were described from this table as it is."""
        ours, first, last = self.record, recorded.get("first_day"), recorded.get("last_day")
        is_same = all(recorded.get(name) == ours[name] for name in ("snapshot", "fingerprint"))
        return is_same and isinstance(first, int) and first <= self.days.start and last == self.days.stop - 1


def feature_statistics(
    settings: Settings,
    *,
    days: int = DEFAULT_DAYS,
    groups: Sequence[FeatureGroup] = GROUPS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> StationReport:
    """Describe the newest `days` days of every feature table, on the Ray that is connected.

    Raises:
        UsageError: less than one day is asked for.
        NothingToDescribeError: no table of features has a day that is over.
        ConcurrentCommitError: another run did the same meanwhile.
    """
    if days < 1:
        raise UsageError(f"statistics of {days} days are none; ask for 1 or more")
    with timed("feature-statistics") as report, lineage.run(settings, "feature-statistics") as made:
        made.serves(*(group.purpose for group in groups))
        lakehouse = Lakehouse.open(settings)
        found = list(_described(lakehouse, groups, days))
        if not found:
            raise NothingToDescribeError(
                "no table of features has a day that is over; run `reel features` once there are events of two days"
            )
        table = lakehouse.table(statistics_table())
        recorded: dict[str, dict[str, object]] = progress_of(table).get("tables", {})
        due = [one for one in found if not one.is_known(recorded.get(one.stored.name, {}))]
        report.read = {"feature tables": len(found), "changed since": len(due)}
        on_progress(0, max(1, sum(one.stored.buckets for one in due)))
        if not due:
            report.did = {"already described": "from these snapshots and declarations"}
            return report
        rows = list(_rows(due, on_progress))
        snapshots = {one.stored.name: one.stored.snapshot_id for one in due if one.stored.snapshot_id is not None}
        record = {"tables": {**recorded, **{one.stored.name: one.record for one in due}}}
        days_of = {(one.group.name, one.entity): one.days for one in due}
        replace_days(table, made, rows, days_of, record, made.facts(lineage.Inputs(tables=snapshots)))
        report.did = {"days": max(len(one.days) for one in due)}
        report.wrote = {STATISTICS_TABLE: len(rows)}
    return report


def _described(lakehouse: Lakehouse, groups: Sequence[FeatureGroup], days: int) -> Iterator[Described]:
    """The tables that were built from today's declarations and know of something after the end of a day."""
    for group in groups:
        for entity in group.entities:
            table = lakehouse.existing(f"features.{group.stored_as(entity)}")
            if table is None or progress_of(table).get("fingerprint") != group.fingerprint.hex():
                continue
            column = LAST_EVENT if group.cadence is Cadence.EVENT else EVENT_TIME
            bounds = [upper_instant_ms(table, file, column) for file in live_files(table)]
            newest_ms = max((bound for bound in bounds if bound is not None), default=None)
            if newest_ms is not None:
                after = newest_ms // DAY_MS
                yield Described(group, entity, BucketedTable.of(table), range(after - days, after))


def _rows(due: Sequence[Described], on_progress: Callable[[int, int], None]) -> Iterator[dict[str, object]]:
    items = [(place, bucket) for place, one in enumerate(due) for bucket in range(one.stored.buckets)]
    parts: dict[tuple[int, int], Summaries] = {}
    for done, (item, summaries) in enumerate(run_tasks(_Summarizer(tuple(due)), items)):
        parts[item] = summaries
        on_progress(done + 1, len(items))
    for place, one in enumerate(due):
        by_subject: dict[Subject, list[Summary]] = {}
        for bucket in range(one.stored.buckets):  # in this order, so that sums come out the same every time
            for subject, summary in parts[place, bucket].items():
                by_subject.setdefault(subject, []).append(summary)
        kinds = {feature.name: feature.arrow_type for feature in one.group.features}
        for subject, found in by_subject.items():
            description = describe(merge(found), kinds[subject.feature])
            yield row_of(subject, description, one.stored.snapshot_id or 0, one.group.fingerprint.hex())


@dataclass(frozen=True)
class _Summarizer:
    """Summarizes one bucket of one table, by feature and day; no two buckets share an entity."""

    due: tuple[Described, ...]

    def __call__(self, item: tuple[int, int]) -> tuple[tuple[int, int], Summaries]:
        place, bucket = item
        one = self.due[place]
        stored = one.stored.read(bucket, one.entity, _columns(one.group))
        values = values_of_days(one.group, one.entity, stored, one.days.start, one.days.stop - 1)
        return item, summaries_of(one.group, one.entity, values)


def summaries_of(group: FeatureGroup, entity: str, values: pa.Table) -> Summaries:
    """Summaries of the values that `values_of_days` gave."""
    days = np.asarray(flat(values[DAY]), dtype=np.int64)
    starts = run_starts(days)
    found: Summaries = {}
    for start, stop in zip(starts, np.append(starts[1:], len(days)), strict=True):
        part = values.slice(int(start), int(stop - start))
        entities = entities_of(part, entity)
        for feature in group.features:
            subject = Subject(group.name, entity, feature.name, int(days[start]))
            found[subject] = summarize(part[feature.name], entities, feature.range)
    return found


def _columns(group: FeatureGroup) -> pa.Schema:
    """What is read of a table, besides the entity."""
    if group.cadence is Cadence.EVENT:
        times = [(TILE_LENGTH, pa.int64()), (TILE_START, STORED_TIME), (LAST_EVENT, STORED_TIME)]
        return pa.schema([*times, *((state.name, state.arrow_type) for state in group.states)])
    return pa.schema([(EVENT_TIME, STORED_TIME), (CREATED, STORED_TIME), *group.feature_schema()])
