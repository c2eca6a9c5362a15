"""Why served values differ, one by one: every reason is one under which the value, worked out anew, is the served one.

    consent changed since       what is the batch's by now was withheld; with consent as it stood it is the served value
    event not yet processed     without the last events before the instant, which the stream had not come to, or which
                                waited, of what is no person, for older ones
    late event after the answer the same, where one of these events came after newer ones of its partition
    boundary not yet published  at the newest boundary that had been published when it was answered
    unexplained                 none of these

What the stream had processed was noted with the answer before its values were read: a batch that was being written
just then may be in them, in part or whole. So not only all unseen events are left out, but also all but the first few.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from features.columns import flat, milliseconds, timestamps
from features.entities import entity as entity_of
from features.plain import python_values
from features.selection import Selection
from features.windows import Cadence
from pipelines.cluster import regroup
from pipelines.consistency.comparing import WITHHELD, Reason, Results, is_same, nothing_of
from pipelines.consistency.histories import Asked, CrowdsHistory, History, PersonsHistory, SilverOf, Unseen, since_of
from pipelines.consistency.served import Cut, key_column, texts
from pipelines.contract.events import load_contract
from pipelines.feature_logs import shared_tables, silver_schemas
from pipelines.feature_tables import Target
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import bucket_of, file_groups
from pipelines.point_in_time.join import Request, join_within
from pipelines.point_in_time.logs import SortedLogs, now_ms
from pipelines.point_in_time.people import People
from pipelines.point_in_time.stored import BucketedTable
from pipelines.settings import Settings
from pipelines.viewing import KnownPeople, Viewing

ROWS_PER_TASK = 500_000
MOST_ROWS = 2_000
"""Rows of one target that are looked into in one run."""
MOST_TRIED = 40
"""Of unseen events: how many of them were seen after all is tried for so many numbers."""


Reasons = dict[str, Reason]
"""Of the features of a row that differ."""


@dataclass(frozen=True)
class Explaining:
    """What is needed to work values out anew."""

    settings: Settings
    lakehouse: Lakehouse
    made: lineage.Run
    people: KnownPeople

    def explain(self, target: Target, cut: Cut, rows: pa.Table) -> Results:
        """The reasons for differences of some rows of a target, by feature."""
        looked_at, rest = rows.slice(0, MOST_ROWS), rows.slice(MOST_ROWS)
        found = nothing_of(target)
        _count(found, [dict.fromkeys(names, Reason.NOT_EXAMINED) for names in rest["differing"].to_pylist()])
        if looked_at.num_rows == 0:
            return found
        if target.group.cadence is not Cadence.EVENT:
            reasons = self._of_boundaries(target, cut, looked_at)
        elif entity_of(target.entity).is_personal:
            reasons = self._of_people(target, looked_at)
        else:
            reasons = self._of_crowds(target, looked_at)
        _count(found, reasons)
        return found

    def _of_people(self, target: Target, rows: pa.Table) -> list[Reasons]:
        silver = self._silver_of(target, rows)
        items = silver.items(partial(file_groups, rows_per_group=ROWS_PER_TASK))
        explain = _ExplainPeople(silver, _asked(target, rows), self._changes(target, rows))
        reasons: list[Reasons] = [{}] * rows.num_rows
        for some in regroup(items, silver.people, explain, silver.buckets).results():
            for place, reason in some.items():
                reasons[place] = reason
        return reasons

    def _of_crowds(self, target: Target, rows: pa.Table) -> list[Reasons]:
        silver = replace(self._silver_of(target, rows), buckets=1)
        logs = SortedLogs(self.settings, self.lakehouse, self.made, target.group.purpose, {})
        stored = BucketedTable.of(logs.table(target.group.source, target.entity))
        items = silver.items(partial(file_groups, rows_per_group=ROWS_PER_TASK))
        explain = _ExplainCrowds(target, stored, _asked(target, rows))
        (reasons,) = regroup(items, silver.events, explain, 1).results()
        found: list[Reasons] = reasons
        return found

    def _of_boundaries(self, target: Target, cut: Cut, rows: pa.Table) -> list[Reasons]:
        """Hourly and daily groups: asked for again as of when what was served had been published."""
        changed = self._changes(target, rows)
        published_ms = _published_ms(cut, rows)
        asked_ms = np.where(published_ms < 0, 0, published_ms + target.group.delay)
        left = rows.select([key_column(target)]).append_column("asked", timestamps(asked_ms))
        request = Request([selection_of(target)], target.group.purpose, "asked")
        joined = join_within(self.made, self.settings, self.lakehouse, left, request).table()
        again = _aged(target, joined, milliseconds(rows["as_of"]) - asked_ms)
        reasons = []
        for text, differing, values, is_changed in zip(
            texts(rows["values"]), rows["differing"].to_pylist(), again, changed, strict=True
        ):
            served = json.loads(text or "{}")
            reasons.append(
                {
                    name: Reason.CONSENT_CHANGED
                    if is_changed
                    else Reason.NOT_YET_PUBLISHED
                    if is_same(served.get(name), values[name])
                    else Reason.UNEXPLAINED
                    for name in differing
                }
            )
        return reasons

    def _changes(self, target: Target, rows: pa.Table) -> list[bool]:
        """Which rows are withheld by now, and were allowed when they were answered; decided as at both instants."""
        if not entity_of(target.entity).is_personal:
            return [False] * rows.num_rows
        users = (target.entity,) if target.entity == "user_id" else ()
        profiles = (target.entity,) if target.entity == "profile_id" else ()
        people = People(self.people.known, users, profiles, target.group.purpose, now_ms())
        changed = []
        as_of_ms = milliseconds(rows["as_of"])
        for place, withheld in enumerate(texts(rows[WITHHELD])):
            if withheld is None:
                changed.append(False)
                continue
            then = replace(people, at_ms=int(as_of_ms[place]) - target.group.delay)
            why, _ = then.reasons(rows.slice(place, 1))
            changed.append(why[0].as_py() is None)
        return changed

    def _silver_of(self, target: Target, rows: pa.Table) -> SilverOf:
        source, personal = target.group.source, entity_of(target.entity).is_personal
        found = {
            name: Viewing.of(
                self.lakehouse, target.group.purpose, now_ms(), name, is_personal=personal, people=self.people
            )
            for name in source.reads
        }
        asked = _asked(target, rows)
        schemas = silver_schemas(load_contract(self.settings.schemas), self.settings.lakehouse.event_partition)
        return SilverOf(
            target,
            {name: one for name, one in found.items() if one is not None},
            {name: schemas[name] for name in source.reads},
            shared_tables(self.lakehouse, [source]),
            pa.array(sorted({one.key for one in asked}), pa.string()),
            since_of(asked),
            max(one.as_of_ms for one in asked),
            self.settings.lakehouse.buckets,
        )


@dataclass(frozen=True)
class _ExplainPeople:
    silver: SilverOf
    asked: Sequence[Asked]
    changed: Sequence[bool]

    def __call__(self, bucket: int, parts: list[pa.Table]) -> dict[int, Reasons]:
        """By the place of a row, the reasons of those whose people are in the bucket."""
        keys = self.silver.keys.to_pylist()[bucket :: self.silver.buckets]
        histories = dict(zip(keys, PersonsHistory.of_all(self.silver, parts, keys), strict=True))
        return {
            place: reasons_of(one, histories[one.key], is_changed=self.changed[place])
            for place, one in enumerate(self.asked)
            if one.key in histories
        }


@dataclass(frozen=True)
class _ExplainCrowds:
    target: Target
    stored: BucketedTable
    asked: Sequence[Asked]

    def __call__(self, _: int, parts: list[pa.Table]) -> list[Reasons]:
        """The reasons, row by row."""
        events = pa.concat_tables(parts)
        keys = sorted({one.key for one in self.asked})
        buckets = bucket_of(pa.array(keys, pa.string()), self.stored.buckets).tolist()
        histories = {
            key: CrowdsHistory.of(self.target, self.stored, bucket, key, events)
            for key, bucket in zip(keys, buckets, strict=True)
        }
        return [reasons_of(one, histories[one.key], is_changed=False) for one in self.asked]


def reasons_of(asked: Asked, history: History, *, is_changed: bool) -> Reasons:
    """Of each differing feature the first reason under which its value is the served one; `is_changed`: consent is
    another since the answer.
    """
    found: Reasons = {}
    for missing in _candidates(history.unseen(asked)):
        values = history.values(asked, frozenset(one.event_id for one in missing), as_allowed_then=is_changed)
        if is_changed:
            reason = Reason.CONSENT_CHANGED
        elif not missing:
            continue  # it is what the batch says, and differs
        else:
            reason = Reason.LATE_EVENT if any(one.is_late for one in missing) else Reason.NOT_YET_PROCESSED
        for name in asked.differing:
            if name not in found and is_same(asked.served.get(name), values[name]):
                found[name] = reason
        if len(found) == len(asked.differing):
            return found
    return found | {name: Reason.UNEXPLAINED for name in asked.differing if name not in found}


def _candidates(unseen: Sequence[Unseen]) -> Iterator[Sequence[Unseen]]:
    """Which events may be missing: all that are unseen, all but the first few, at last none."""
    size = len(unseen)
    for count in sorted({*range(min(size, MOST_TRIED)), *range(0, size, 1 + size // MOST_TRIED)}):
        yield unseen[count:]
    yield ()


def selection_of(target: Target) -> Selection:
    """A target as the join is asked for it, by the log's column of its keys."""
    return Selection(target.name, target.group, target.entity, (key_column(target),))


def _asked(target: Target, rows: pa.Table) -> list[Asked]:
    columns = (texts(rows[key_column(target)]), milliseconds(rows["at"]).tolist(), milliseconds(rows["as_of"]).tolist(),
               texts(rows["values"]), rows["differing"].to_pylist(), texts(rows["stream"]))  # fmt: skip
    return [
        Asked(key or "", at_ms, as_of_ms, json.loads(values or "{}"), tuple(differing), stream)
        for key, at_ms, as_of_ms, values, differing, stream in zip(*columns, strict=True)
    ]


def _published_ms(cut: Cut, rows: pa.Table) -> np.ndarray:
    """The boundary each row was served of; of a key that nothing was known of, the newest that any other was by then;
    -1 for none.
    """
    served = [None if one is None else round(one.timestamp() * 1000) for one in rows["boundary"].to_pylist()]
    at_ms = milliseconds(rows["at"]).tolist()
    found = [
        max((each for each, first_ms in cut.boundaries.items() if first_ms <= answered_ms), default=-1)
        if boundary is None
        else boundary
        for boundary, answered_ms in zip(served, at_ms, strict=True)
    ]
    return np.array(found, dtype=np.int64)


def _aged(target: Target, joined: pa.Table, later_ms: np.ndarray) -> list[dict[str, Any]]:
    """The features of each row of a join as they are so much later: null if they are older than the TTL by then."""
    names = [feature.name for feature in target.group.features]
    columns = [python_values(flat(joined[f"{target.name}__{name}"])) for name in names]
    ages_ms = joined[f"{target.name}__age_ms"].to_pylist()
    found = []
    for values, age_ms, more_ms in zip(zip(*columns, strict=True), ages_ms, later_ms.tolist(), strict=True):
        is_fresh = age_ms is not None and age_ms + more_ms <= target.group.ttl_ms
        found.append(dict(zip(names, values if is_fresh else [None] * len(names), strict=True)))
    return found


def _count(results: Results, reasons: Sequence[Reasons]) -> None:
    for of_row in reasons:
        for name, reason in of_row.items():
            results[name].explain(reason)
