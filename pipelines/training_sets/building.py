"""Building a declared training set.

input   a `TrainingSet`, silver, the offline store, the catalogue
does    rows → who allows it → splits → negatives → labels → balance → features, part by part, nothing on the driver
output  Parquet under `{work_dir}/training_sets/{name}-…/split=…/`, and a manifest to build it again from

    built = build(settings, CHURN)
    built.rows, built.left_out        {"train": 81234, …}, {"withdrawn_since": 310, …}
    built.frame("train")              a split as Polars; `built.paths("train")` for what does not fit in memory
    built.log_to_mlflow()             into the active MLflow run
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.groups import GROUPS
from features.training.candidates import Available, Catalogue, SeenIn
from features.training.declaration import TrainingSet
from features.training.sampling import IS_DRAWN, WEIGHT
from features.training.spine import Every, FileRows, PerEvent
from features.training.splits import SPLITS, Bounds
from features.training.written import as_json
from pipelines.cluster import connected, run_tasks
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import in_groups
from pipelines.point_in_time.exchange import Plan
from pipelines.point_in_time.join import Request, planned, run_plan, snapshots_of
from pipelines.point_in_time.left import ROWS_PER_PART, FilePart, LeftTableError, parts_of
from pipelines.report import add_counts
from pipelines.settings import Settings
from pipelines.training_sets.built import BuiltTrainingSet, folder_of, publish
from pipelines.training_sets.inputs import DataSpan, Inputs
from pipelines.training_sets.labels import label_plan, log_schema
from pipelines.training_sets.rows import (
    Admit,
    Counts,
    Draw,
    KeepBalanced,
    OfFiles,
    OfLog,
    OfTable,
    Write,
    columns_of_features,
    digest_of,
    each_part,
)
from pipelines.version import code_version

STAGED_SUFFIX = ".unfinished"


class EmptyTrainingSetError(ReelError):
    """No row would be left to train on."""


class RowsChangedError(ReelError):
    """Files of rows are not what they were when the training set was made from them."""


@dataclass(frozen=True)
class Recipe:
    """All that one build needs, opened and checked; nothing was read yet but metadata."""

    declared: TrainingSet
    admit: Admit
    parts: Callable[[], list[Any]]
    candidates: Callable[[], Available | None]
    labels: Plan
    features: Plan
    columns: Mapping[str, str]
    snapshots: Mapping[str, int]
    events_left_out: Mapping[str, Mapping[str, int]]
    files_read: Mapping[str, str]
    data: DataSpan


@dataclass(frozen=True)
class Outcome:
    """What was written to a folder, and counted."""

    bounds: Bounds
    counts: dict[str, int]
    left_out: dict[str, int]
    rows: dict[str, int]
    late: dict[str, int]
    files: dict[str, str]
    schema: pa.Schema


def build(settings: Settings, declared: TrainingSet) -> BuiltTrainingSet:
    """Build a training set, or find that these inputs have one already; Ray is joined or started if it is not there.

    Raises:
        FeatureError: what is declared does not fit what there is, or is not allowed.
        FeaturesNotBuiltError, NoDataError: there is nothing to build it from.
        EmptyTrainingSetError: no row would be left to train on.
        SilverMovedError: new events came while it was built.
    """
    with connected(settings), lineage.run(settings, "training-set") as made:
        made.serves(declared.purpose)
        lakehouse = Lakehouse.open(settings)
        sources = [source for source, _ in declared.logs]
        inputs = Inputs.now(settings, lakehouse, made, declared.purpose, sources, now_ms())
        recipe = recipe_of(declared, inputs, inputs.data(sources))
        made.inputs.append(lineage.Inputs(tables=recipe.snapshots))
        facts = facts_of(recipe)
        folder = folder_of(settings, declared.name, facts)
        if not (folder / "manifest.json").exists():
            staged = staged_beside(folder)
            outcome = run(recipe, staged, None)
            made.require_no_erasure_since(folder.name)
            publish(staged, folder, manifest_of(recipe, facts, outcome))
        built = BuiltTrainingSet.read(folder)
        made.wrote_folder(folder, built.schema, sum(built.rows.values()))
        made.report = built.report()
    return built


def recipe_of(declared: TrainingSet, inputs: Inputs, data: DataSpan) -> Recipe:
    """Open and check everything that the set is made from. Raises as `build` does."""
    rows = _rows_of(declared, inputs, data)
    declared.selections(rows.columns)
    admit = Admit(rows.read, declared, inputs.people(rows.columns, declared.keys), data)
    labels = label_plan(declared.labels, declared.horizon_ms, declared.instant, inputs.log)
    added = [*(label.name for label in declared.labels), WEIGHT, *([IS_DRAWN] if declared.sampling.negatives else [])]
    request = Request(
        declared.features, declared.purpose, declared.instant, declared.keys, at_ms=inputs.at_ms,
        snapshots=inputs.recorded or {},
    )  # fmt: skip
    left = pa.schema([pa.field(name, pa.null()) for name in (*rows.columns, *added)])
    features = planned(inputs.lakehouse, left, request, lambda one: inputs.log(one.group.source, one.entity))
    candidates = _candidates(declared, inputs)
    snapshots = dict(sorted({**inputs.snapshots, **snapshots_of(features)}.items()))
    return Recipe(
        declared, admit, rows.parts, candidates, labels, features, columns_of_features(declared, rows.columns),
        snapshots, inputs.left_out, rows.files, data,
    )  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """How rows are read, the parts that tasks read, their columns, and the digests of the files that they lie in."""

    read: OfLog | OfFiles | OfTable
    parts: Callable[[], list[Any]]
    columns: list[str]
    files: dict[str, str] = field(default_factory=dict)


def _rows_of(declared: TrainingSet, inputs: Inputs, data: DataSpan) -> _Rows:
    spine = declared.spine
    if isinstance(spine, Every | PerEvent):
        read = OfLog(spine, inputs.log(spine.source, spine.entity), data.until_ms)
        negatives = declared.sampling.negatives
        most = ROWS_PER_PART // (1 + negatives.per_row if negatives else 1)
        return _Rows(read, partial(read.parts, max(most, 1)), list(spine.columns))
    if isinstance(spine, FileRows):
        pieces = [part for part in parts_of(spine.path) if isinstance(part, FilePart)]
        digests, columns = _files_of_rows(list(dict.fromkeys(part.path for part in pieces)))
        return _Rows(OfFiles(), partial(list, pieces), columns, dict(sorted(digests.items())))
    table, snapshot_id = inputs.table(spine.table)
    scan = table.scan(snapshot_id=snapshot_id)
    columns = list(scan.projection().column_names)  # of then, whatever was added since
    tasks = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
    groups = list(in_groups(tasks, lambda task: task.file.record_count, ROWS_PER_PART))
    return _Rows(OfTable(TableFiles.of(table), tuple(columns)), partial(list, groups), columns)


def run(recipe: Recipe, folder: Path, bounds: Bounds | None) -> Outcome:
    """Make the parts and write them; the splits begin where `bounds` says, else where the declaration does.

    Raises:
        EmptyTrainingSetError: no row is left to train on.
    """
    declared = recipe.declared
    admitted, parts = each_part(recipe.admit, recipe.parts())
    bounds = bounds or _bounds(declared, admitted)
    drawn, parts = each_part(Draw(declared, bounds, recipe.candidates()), parts)
    parts = run_plan(recipe.labels, parts).parts
    balanced, parts = each_part(KeepBalanced(declared), parts)
    joined = run_plan(recipe.features, parts)
    written, _ = each_part(Write(folder), joined.parts)
    left_out: dict[str, int] = {}
    rows = dict.fromkeys(SPLITS, 0)
    for one in (*admitted, *drawn, *balanced):
        add_counts(left_out, one.left_out)
    for one in written:
        add_counts(rows, one.by_split)
    if rows["train"] == 0:
        raise EmptyTrainingSetError(
            f"the training set {declared.name} would have no train row; left out were {left_out or 'none'}: see to its "
            "spine, horizon and split"
        )
    counts = {"rows": sum(one.rows for one in admitted), "drawn": sum(one.rows for one in drawn)}
    files = {name: digest for one in written for name, digest in one.files.items()}
    schema = next(one.schema for one in written if one.schema is not None)
    left_out, files = dict(sorted(left_out.items())), dict(sorted(files.items()))
    return Outcome(bounds, counts, left_out, rows, joined.late, files, schema)


def facts_of(recipe: Recipe) -> dict[str, Any]:
    """All that decides what is written, as JSON."""
    declared = recipe.declared
    return {
        "format": 1,
        "name": declared.name,
        "description": declared.description,
        "declaration": as_json(declared),
        "purpose": str(declared.purpose),
        "seed": declared.sampling.seed,
        "horizon_ms": declared.horizon_ms,
        "features": list(declared.features),
        "labels": [label.name for label in declared.labels],
        "feature_fingerprints": fingerprints_of(declared),
        "snapshots": dict(recipe.snapshots),
        "files_read": dict(recipe.files_read),
        "data_ms": {"since": recipe.data.since_ms, "until": recipe.data.until_ms},
        "code_version": code_version(),
        "written_by": f"pyarrow {pa.__version__}",
    }


def manifest_of(recipe: Recipe, facts: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The facts, and what came of them."""
    bounds = outcome.bounds
    return {
        **facts,
        "split_ms": {
            "train_end": bounds.validation_ms - bounds.gap_ms,
            "validation_begin": bounds.validation_ms,
            "validation_end": bounds.test_ms - bounds.gap_ms,
            "test_begin": bounds.test_ms,
            "gap": bounds.gap_ms,
        },
        "counts": outcome.counts,
        "excluded": outcome.left_out,
        "rows": outcome.rows,
        "late": outcome.late,
        "events_left_out": {name: dict(why) for name, why in sorted(recipe.events_left_out.items()) if why},
        "columns": dict(recipe.columns),
        "schema": [[one.name, str(one.type)] for one in outcome.schema],
        "schema_hash": hashlib.sha256(str(outcome.schema).encode()).hexdigest(),
        "files": outcome.files,
    }


def fingerprints_of(declared: TrainingSet) -> dict[str, str]:
    """What each group that is asked for means, by its name."""
    asked = {name.partition(".")[0] for name in declared.features}
    return {
        group.name: group.fingerprint.hex()
        for group in GROUPS
        if asked & {group.name, *map(group.stored_as, group.entities)}
    }


def staged_beside(folder: Path) -> Path:
    """An empty folder to write to until all is there."""
    staged = folder.with_name(folder.name + STAGED_SUFFIX)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def now_ms() -> int:
    """The wall clock: consent is asked for as of now."""
    return int(time.time() * 1000)


def _bounds(declared: TrainingSet, admitted: Sequence[Counts]) -> Bounds:
    hours: dict[int, int] = {}
    for one in admitted:
        for hour, count in one.hours.items():
            hours[hour] = hours.get(hour, 0) + count
    if not hours:
        left_out: dict[str, int] = {}
        for one in admitted:
            add_counts(left_out, one.left_out)
        raise EmptyTrainingSetError(
            f"the training set {declared.name} has no row that may be used; left out were {left_out or 'none'}: see to "
            "its spine and horizon"
        )
    return declared.split.bounds(declared.gap_ms, hours)


def _candidates(declared: TrainingSet, inputs: Inputs) -> Callable[[], Available | None]:
    """What negatives are drawn from, read when it is needed."""
    negatives = declared.sampling.negatives
    if negatives is None:
        return _none
    if isinstance(negatives.candidates, Catalogue):
        return partial(_offered, negatives.candidates, inputs.titles())
    return partial(_seen, negatives.candidates, inputs.log(negatives.candidates.source, negatives.candidates.entity))


def _none() -> None:
    return None


def _offered(catalogue: Catalogue, titles: pa.Table) -> Available:
    return catalogue.available(titles)


def _seen(candidates: SeenIn, stored: Any) -> Available:
    firsts = run_tasks(partial(_firsts, candidates, stored), range(stored.buckets))
    return candidates.available(pa.concat_tables(list(firsts)))


def _firsts(candidates: SeenIn, stored: Any, bucket: int) -> pa.Table:
    schema = log_schema(candidates.source, ["event_timestamp"])
    return candidates.firsts(stored.read(bucket, candidates.entity, schema))


def _files_of_rows(paths: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(digest of each file, the columns of all). Raises LeftTableError where files differ in their columns."""
    digests, schemas = {}, {}
    for path, digest, schema in run_tasks(_file_of_rows, paths):
        digests[path], schemas[path] = digest, schema
    for path in paths:
        if schemas[path] != schemas[paths[0]]:
            raise LeftTableError(f"{path} has other columns than {paths[0]}; write the rows with the same ones")
    return digests, list(schemas[paths[0]].names)


def _file_of_rows(path: str) -> tuple[str, str, pa.Schema]:
    return path, digest_of(path), pq.read_schema(path).remove_metadata()
