"""The point-in-time join.

input   a left table of (entity's key, instant, …) rows, the features that are asked for, a purpose
does    brings to each row what a service asked at its instant would have answered
output  the left table, in its order, with the features' columns and their ages: in Ray's store, or as Parquet

What "would have answered" means is in `features.point_in_time` (boundaries, ties, corrections, TTL),
`features.timeline` (windows) and `people` (consent). Left rows are never dropped, merged or reordered.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from features.declarations import FeatureGroup
from features.errors import SelectionError
from features.groups import GROUPS
from features.purposes import Purpose
from features.selection import Selection, require_purpose, select
from features.windows import Cadence
from pipelines.cluster import as_list, join_cluster, result_of
from pipelines.errors import ReelError, UsageError
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.point_in_time.exchange import Done, NotCutError, Pass, Plan, answer, ask, place
from pipelines.point_in_time.left import Left, Part, parts_of, schema_of
from pipelines.point_in_time.logs import SortedLogs, now_ms
from pipelines.point_in_time.people import People
from pipelines.point_in_time.stored import BucketedTable, Kind, Source
from pipelines.report import summed
from pipelines.settings import Settings

STAGED_SUFFIX = ".unfinished"


class EventValues(StrEnum):
    """How groups of event cadence are valued."""

    EXACT = "exact"
    """At the row's instant less the delay, straight from the sorted log: what serving would have answered."""
    TILES = "tiles"
    """From stored tiles: as of the last tile boundary (5 min, 1 h or 1 d by window), without needing the log."""


class FeaturesNotBuiltError(ReelError):
    """A group has no table of values, or one of an older declaration."""


class OutputExistsError(UsageError):
    """The folder to write to holds something."""


@dataclass(frozen=True)
class Joined:
    """A left table with its features, in parts."""

    parts: list["ray.ObjectRef[Any]"]
    """Tables in Ray's store; empty if they were written."""
    paths: list[Path]
    rows: int
    excluded: dict[str, int]
    """Rows that got no personal feature, by reason."""
    late: dict[str, int]
    """By group, rows after its last boundary that is built: they got that one's values; build the features first."""
    snapshots: dict[str, int]
    """The tables that values came from, each as of which snapshot."""

    def table(self) -> pa.Table:
        """The whole, in this process."""
        return pa.concat_tables([result_of(part) for part in self.parts])


@dataclass(frozen=True)
class Request:
    """What is to be joined, and how.

    features      groups, or group.feature (`features.selection`)
    instant       the left table's column with each row's instant
    keys          an entity, or one of its columns, to the left table's column that holds it, where that is called
                  otherwise
    cut_by        the left table's parts (files, or tables in Ray's store) are the buckets of this column, in their
                  order: nothing is shuffled for it
    reason        a column to add that says why a row got no personal feature; null where it did
    at_ms         consent as known at this instant; None is now
    snapshots     the snapshots as of which stored values are read; a table that is not named is read as it is
    """

    features: Sequence[str | Selection]
    purpose: Purpose | None
    instant: str = "event_timestamp"
    keys: Mapping[str, str] = field(default_factory=dict)
    event_values: EventValues = EventValues.EXACT
    cut_by: str | None = None
    reason: str | None = None
    at_ms: int | None = None
    groups: Sequence[FeatureGroup] = GROUPS
    snapshots: Mapping[str, int] = field(default_factory=dict)


def join(settings: Settings, left: Left, request: Request, output: Path | None = None) -> Joined:
    """Bring features to the left table, on the Ray that is connected; into the folder `output` if one is named.

    A task holds one part of the left table, or the bucket of one entity: memory does not grow with either table.

    Raises:
        SelectionError, UnknownGroupError, PurposeNotAllowedError: what is asked for is not there, or not allowed.
        FeaturesNotBuiltError: there are no values to bring.
        NotCutError, OutputExistsError, LeftTableError: the call does not fit the left table or the folder.
    """
    with lineage.run(settings, "join") as made:
        made.serves(*([request.purpose] if request.purpose is not None else []))
        joined = join_within(made, settings, Lakehouse.open(settings), left, request, output)
        made.report.read = {"rows": joined.rows}
        made.report.did = {f"without personal features: {reason}": n for reason, n in joined.excluded.items()}
        return joined


def join_within(
    made: lineage.Run,
    settings: Settings,
    lakehouse: Lakehouse,
    left: Left,
    request: Request,
    output: Path | None = None,
    silver: Mapping[str, int] | None = None,
) -> Joined:
    """`join` as a part of a station's run, which may have read snapshots of silver already.

    Raises as `join` does, and SilverMovedError where exact values would come from others.
    """

    def log_of(one: Selection) -> BucketedTable:
        logs = SortedLogs(settings, lakehouse, made, one.group.purpose, silver or {})
        return BucketedTable.of(logs.table(one.group.source, one.entity))

    parts = parts_of(left, whole_files=request.cut_by is not None)
    plan = planned(lakehouse, _schema(parts[0]), request, log_of)
    made.inputs.append(lineage.Inputs(tables=snapshots_of(plan)))
    return run_plan(plan, parts, output)


def run_plan(plan: Plan, parts: Sequence["Part | ray.ObjectRef[Any]"], output: Path | None = None) -> Joined:
    """Do what is planned, as Ray tasks. Raises NotCutError, OutputExistsError."""
    for one in plan.local:
        if one.buckets != len(parts):
            raise NotCutError(
                f"the left table has {len(parts)} parts, and {one.key_columns[0]} is cut into {one.buckets} buckets"
            )
    staged = _staged(output)
    done, tables = _run(plan, parts, staged)
    if output is not None and staged is not None:
        staged.rename(output)
    excluded, late = summed(one.excluded for one in done), summed(one.late for one in done)
    paths = [output / Path(one.path).name for one in done if output is not None and one.path is not None]
    return Joined([] if output else tables, paths, sum(one.rows for one in done), excluded, late, snapshots_of(plan))


def planned(
    lakehouse: Lakehouse, left: pa.Schema, request: Request, log_of: Callable[[Selection], BucketedTable]
) -> Plan:
    """What a join reads, from where, and in which passes; checked before anything is read.

    `log_of` gives the sorted log that an exact selection is read from.

    Raises as `join` does.
    """
    selections = select(request.features, left.names, request.groups, request.keys)
    purpose = require_purpose(request.purpose, selections)
    columns = [column for one in selections for column in one.columns.values()]
    added = [*columns, *([request.reason] if request.reason else [])]
    doubled = [name for name in added if name in left.names]
    if doubled:
        raise SelectionError(f"the left table has column(s) {', '.join(doubled)} already; rename or drop them there")
    if request.instant not in left.names:
        raise SelectionError(f"the left table has no column {request.instant}; it has {', '.join(left.names)}")
    at_ms = now_ms() if request.at_ms is None else request.at_ms
    people = People.of(lakehouse, selections, left.names, request.keys, purpose, at_ms)
    passes = passes_of(sources_of(lakehouse, selections, request, log_of))
    local = tuple(one for one in passes if one.key_columns == (request.cut_by,))
    exchanged = tuple(one for one in passes if one.key_columns != (request.cut_by,))
    return Plan(request.instant, local, exchanged, tuple(columns), people, request.reason)


def sources_of(
    lakehouse: Lakehouse,
    selections: Sequence[Selection],
    request: Request,
    log_of: Callable[[Selection], BucketedTable],
) -> list[Source]:
    """Where each selection is read; those that read the same log by the same key together."""
    declared = {group.name: group for group in request.groups}
    sources: list[Source] = []
    logs: dict[tuple[str, str, tuple[str, ...]], list[Selection]] = {}
    for one in selections:
        is_event = one.group.cadence is Cadence.EVENT
        if is_event and request.event_values is EventValues.EXACT:
            logs.setdefault((one.group.source.name, one.entity, one.key_columns), []).append(one)
            continue
        group = declared[one.group.name]
        stored = _built(lakehouse, group, one.entity, request.snapshots)
        sources.append(Source(Kind.TILES if is_event else Kind.ROWS, stored, (one,), group))
    for ones in logs.values():
        sources.append(Source(Kind.LOG, log_of(ones[0]), tuple(ones), declared[ones[0].group.name]))
    return sources


def passes_of(sources: Sequence[Source]) -> list[Pass]:
    """Sources that are read together: by the same key, from as many buckets."""
    alike: dict[tuple[tuple[str, ...], int, bool], list[Source]] = {}
    for source in sources:
        first = source.selections[0]
        alike.setdefault((first.key_columns, source.stored.buckets, first.is_personal), []).append(source)
    return [Pass(columns, buckets, personal, tuple(ones)) for (columns, buckets, personal), ones in alike.items()]


def _built(lakehouse: Lakehouse, group: FeatureGroup, entity: str, snapshots: Mapping[str, int]) -> BucketedTable:
    name = f"features.{group.stored_as(entity)}"
    table = lakehouse.existing(name)
    if table is None or table.current_snapshot() is None:
        raise FeaturesNotBuiltError(f"there is no {name} yet; run `reel features` first")
    declared = group.fingerprint.hex()
    if progress_of(table, snapshots.get(name)).get("fingerprint", declared) != declared:
        raise FeaturesNotBuiltError(f"{name} was built from another declaration of {group.name}; run `reel features`")
    return BucketedTable.of(table, snapshots.get(name))


def _run(
    plan: Plan, parts: Sequence["Part | ray.ObjectRef[Any]"], output: Path | None
) -> tuple[list[Done], list["ray.ObjectRef[Any]"]]:
    """The join as Ray tasks; what became of each part, in their order."""
    join_cluster()
    shared = ray.put(plan)
    width = sum(one.buckets for one in plan.exchanged)
    asking = ray.remote(_ask).options(num_returns=1 + width)
    placing = ray.remote(place).options(num_returns=2)
    references = [part if isinstance(part, ray.ObjectRef) else ray.put(part) for part in parts]
    asked: list[list[Any]] = [[None] for _ in parts]  # where nothing travels, nobody is asked
    if plan.exchanged:
        asked = [as_list(asking.remote(shared, part)) for part in references]
    answers: list[list[ray.ObjectRef[Any]]] = [[] for _ in parts]
    first = 1
    for one in plan.exchanged:
        answering = ray.remote(_answer).options(num_returns=len(parts))
        pass_ref = ray.put(one)
        for bucket in range(one.buckets):
            said = as_list(answering.remote(pass_ref, bucket, *(each[first + bucket] for each in asked)))
            for mine, values in zip(answers, said, strict=True):
                mine.append(values)
        first += one.buckets
    placed = [
        placing.remote(shared, number, output, part, asked[number][0], *answers[number])
        for number, part in enumerate(references)
    ]
    return [result_of(done) for done, _ in placed], [table for _, table in placed]


def _ask(plan: Plan, part: Part) -> Any:
    asked = ask(plan, part)
    return asked if len(asked) > 1 else asked[0]


def _answer(one: Pass, bucket: int, *asked: pa.Table) -> Any:
    answers = answer(one, bucket, *asked)
    return answers if len(answers) > 1 else answers[0]


def _schema(part: "Part | ray.ObjectRef[Any]") -> pa.Schema:
    if not isinstance(part, ray.ObjectRef):
        return schema_of(part)
    return result_of(ray.remote(schema_of).remote(part))


def snapshots_of(plan: Plan) -> dict[str, int]:
    """The tables that a plan reads, each as of which snapshot."""
    stored = [source.stored for one in (*plan.local, *plan.exchanged) for source in one.sources]
    return {one.name: one.snapshot_id for one in stored if one.snapshot_id is not None}


def _staged(output: Path | None) -> Path | None:
    """Where the parts are written until all are there."""
    if output is None:
        return None
    if output.exists():
        raise OutputExistsError(f"{output} is there already; name a folder that is not, or remove it")
    staged = output.with_name(output.name + STAGED_SUFFIX)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged
