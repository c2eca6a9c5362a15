"""Training set.

input   silver, the offline store, and a purpose
does    one row per instant at which a viewer chose: features as they were then, labels strictly after, rows of
        viewers who do not allow the purpose left out and counted, splits by time
output  Parquet under `{work_dir}/training_sets/recommendation-…/split=…/`, and a manifest to rebuild it from
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from features.decision import DECISION_COLUMNS
from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.playbacks import viewing_log
from features.purposes import Purpose
from features.training.splits import SPLITS, boundary_ms
from pipelines.cluster import buckets_for, regroup, result_of, run_tasks
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import read_all
from pipelines.point_in_time.join import Request, join_within
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.training_sets.built import folder_of, newest, point_to, publish
from pipelines.version import code_version
from pipelines.viewing import Viewing, excluded_in

HOUR_MS = 3_600_000
LABELS_PER_ROW = 100  # a train row stands for a chunk of a viewer's sequence; as long as the longest history
FINISHED_PERCENT = 50  # what `recent_titles` calls finished
# A feature, and the column that it becomes.
FEATURES = {
    f"{USER_VIEWING_HISTORY.name}.recent_titles": "history",
    f"{USER_VIEWING_HISTORY.name}.preferred_content_type": "preferred_content_type",
    f"{USER_VIEWING_HISTORY.name}.completion_rate": "completion_rate",
    f"{CONTENT_POPULARITY.name}.daily_unique_viewers": "label_daily_unique_viewers",
}
FIRST_LABEL = "first_label"
STAGED_SUFFIX = ".unfinished"


class EmptyTrainingSetError(ReelError):
    """No row would be left."""


@dataclass(frozen=True)
class Splits:
    """Boundaries in time: train labels < train_end_ms <= validation labels < validation_end_ms <= test labels."""

    train_end_ms: int
    validation_end_ms: int


def build_training_set(
    settings: Settings, *, purpose: Purpose, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> StationReport:
    """Build the recommender's training set, or find that these inputs have one already."""
    with timed("training-set") as report, lineage.run(settings, "training-set") as made:
        made.serves(purpose)
        lakehouse = Lakehouse.open(settings)
        viewing = Viewing.of(lakehouse, purpose, int(time.time() * 1000))
        popularity = lakehouse.existing(f"features.{CONTENT_POPULARITY.name}_by_content_id")
        snapshot = popularity.current_snapshot() if popularity is not None else None
        if viewing is None or snapshot is None:
            raise EmptyTrainingSetError(
                "no features to train on; run `reel ingest`, `reel clean` and `reel features` first"
            )
        report.read = {"silver.playback": viewing.rows}
        splits = _splits(settings, viewing)
        inputs = _inputs(settings, viewing, snapshot.snapshot_id, splits, purpose)
        made.inputs.append(lineage.Inputs(tables=inputs["snapshots"]))
        folder = folder_of(settings, inputs["name"], inputs)
        if not folder.exists():
            _build(settings, lakehouse, viewing, splits, inputs, folder, made)
        on_progress(1, 1)
        point_to(folder, inputs["name"])
        manifest = json.loads((folder / "manifest.json").read_text())
        made.wrote_folder(folder, SCHEMA, sum(manifest["rows"].values()))
        report.did = {f"rows left out: {reason}": n for reason, n in manifest["excluded"].items()}
        report.wrote = {**{f"{split} rows": n for split, n in manifest["rows"].items()}, "folder": str(folder)}
    return report


def latest_training_set(work_dir: Path) -> Path:
    """The folder of the newest training set. Raises EmptyTrainingSetError when none was built."""
    folder = newest(work_dir, "recommendation")
    if folder is None:
        raise EmptyTrainingSetError(f"no training set under {work_dir}; run `reel training-set` first")
    return folder


def _splits(settings: Settings, viewing: Viewing) -> Splits:
    """Boundaries that leave the last shares of finished titles, in time, to validation and test."""
    finished: dict[int, int] = {}
    for by_hour in run_tasks(partial(_finished_by_hour, viewing), viewing.file_groups()):
        for hour, count in by_hour.items():
            finished[hour] = finished.get(hour, 0) + count
    if not finished:
        raise EmptyTrainingSetError(
            f"nobody who allows {viewing.purpose} has finished a title; a training set needs such playbacks"
        )
    share = settings.training
    return Splits(
        boundary_ms(finished, 1 - share.validation_share - share.test_share),
        boundary_ms(finished, 1 - share.test_share),
    )


def _finished_by_hour(viewing: Viewing, files: Sequence[Any]) -> dict[int, int]:
    rows, _ = viewing.allowed(files, ("event_name", "completion_percent", *DECISION_COLUMNS))
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    hours = (
        frame.filter((pl.col("event_name") == "playback.stopped") & (pl.col("completion_percent") >= FINISHED_PERCENT))
        .group_by(pl.col("event_timestamp").dt.timestamp("ms") // HOUR_MS)
        .len()
    )
    return dict(hours.iter_rows())


def _inputs(
    settings: Settings, viewing: Viewing, popularity_snapshot: int, splits: Splits, purpose: Purpose
) -> dict[str, Any]:
    """All that decides the bytes of the training set."""
    return {
        "name": "recommendation",
        "purpose": str(purpose),
        "snapshots": {**viewing.snapshots, "features.content_popularity_by_content_id": popularity_snapshot},
        "seed": settings.training.seed,
        "buckets": buckets_for(viewing.rows, settings.lakehouse.buckets),
        "code_version": code_version(),
        "features": [name.replace(".", ":") for name in FEATURES],
        "feature_fingerprints": {
            group.name: group.fingerprint.hex() for group in (USER_VIEWING_HISTORY, CONTENT_POPULARITY)
        },
        "split_ms": {"train_end": splits.train_end_ms, "validation_end": splits.validation_end_ms},
    }


def _build(
    settings: Settings,
    lakehouse: Lakehouse,
    viewing: Viewing,
    splits: Splits,
    inputs: Mapping[str, Any],
    folder: Path,
    made: lineage.Run,
) -> None:
    titles = read_all(lakehouse.existing("silver.titles"), tables.TITLES)
    cut = inputs["buckets"]
    rows_of = partial(_viewer_rows, titles, splits)
    spine = regroup(viewing.file_groups(), viewing.splitter("user_id", cut), rows_of, cut).references()
    request = Request(list(FEATURES), viewing.purpose, keys={"content_id": FIRST_LABEL}, at_ms=viewing.at_ms)
    complete = join_within(made, settings, lakehouse, spine, request, silver=viewing.snapshots).parts

    staged = folder.with_suffix(STAGED_SUFFIX)
    shutil.rmtree(staged, ignore_errors=True)
    rows, excluded, counts = _write(complete, staged, splits)
    if rows["train"] == 0:
        raise EmptyTrainingSetError("the training set would have no train row; more finished titles are needed")
    known = pl.from_arrow(titles)
    assert isinstance(known, pl.DataFrame)
    on_demand = known.filter(pl.col("content_type").is_null() | (pl.col("content_type") != "live"))["content_id"]
    manifest = {
        **inputs,
        "rows": rows,
        "excluded": excluded,
        "catalogue": sorted({*on_demand.to_list(), *counts["all"]}),
        "popularity": dict(sorted(counts["train"].items())),
        "columns": {column: name for name, column in FEATURES.items()},
        "schema_hash": hashlib.sha256(str(SCHEMA).encode()).hexdigest(),
    }
    made.require_no_erasure_since(folder.name)
    publish(staged, folder, manifest)


SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("profile_id", pa.string(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("history", pa.list_(pa.string()), nullable=False),
        pa.field("label", pa.list_(pa.string()), nullable=False),
        pa.field("label_timestamps", pa.list_(pa.timestamp("ms", tz="UTC")), nullable=False),
        pa.field("preferred_content_type", pa.string()),
        pa.field("completion_rate", pa.float64()),
        pa.field("label_daily_unique_viewers", pa.float64()),
    ]
)
"""One row: a viewer at an instant. `history` lies strictly before it and `label` strictly after, oldest first."""


def _viewer_rows(titles: pa.Table, splits: Splits, _: int, parts: list[pa.Table]) -> pa.Table:
    """Spine of one bucket of users; what was excluded goes along as metadata."""
    excluded = excluded_in(parts)
    log = viewing_log(pa.concat_tables([part.replace_schema_metadata(None) for part in parts]), titles)
    spine, again = _spine(log, splits)
    add_counts(excluded, {"title finished before": again} if again else {})
    return spine.replace_schema_metadata({b"excluded": json.dumps(excluded).encode()})


def _spine(log: pa.Table, splits: Splits) -> tuple[pa.Table, int]:
    """(profile, instant, labels) of every choice, and how many finished titles are no label: finished before.

    The instant is one millisecond before the (first) label: the last moment at which it was still to be guessed.
    """
    frame = pl.from_arrow(log.select(["profile_id", "event_timestamp", "event_id", "content_id", "is_finished"]))
    assert isinstance(frame, pl.DataFrame)
    finished = frame.filter("is_finished", pl.col("profile_id").is_not_null()).sort(
        "profile_id", "event_timestamp", "event_id"
    )
    labels = finished.filter(pl.col("content_id").is_first_distinct().over("profile_id")).with_columns(
        pl.col("event_timestamp").dt.timestamp("ms").alias("at_ms")
    )
    labels = labels.with_columns(
        pl.when(pl.col("at_ms") < splits.train_end_ms)
        .then(pl.lit("train"))
        .when(pl.col("at_ms") < splits.validation_end_ms)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
        .alias("split"),
        pl.int_range(pl.len()).over("profile_id").alias("position"),
    ).with_columns(
        pl.when(pl.col("split") == "train")
        .then(pl.col("position") // LABELS_PER_ROW)
        .otherwise(pl.col("position") + LABELS_PER_ROW)
        .alias("chunk")
    )
    rows = (
        labels.group_by("profile_id", "split", "chunk", maintain_order=True)
        .agg(pl.col("content_id").alias("label"), pl.col("event_timestamp").alias("label_timestamps"))
        .with_columns(
            pl.col("label").list.first().alias(FIRST_LABEL),
            (pl.col("label_timestamps").list.first() - pl.duration(milliseconds=1)).alias("event_timestamp"),
        )
        .sort("profile_id", "event_timestamp", "chunk", maintain_order=True)
        .drop("chunk")
    )
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest()), finished.height - labels.height


def _write(
    parts: Sequence[ray.ObjectRef[Any]], staged: Path, splits: Splits
) -> tuple[dict[str, int], dict[str, int], dict[str, dict[str, int]]]:
    """Parquet of every part; rows by split, exclusions by reason, and finished titles by their count."""
    sizing, writing = ray.remote(_rows_by_split), ray.remote(_write_part)
    sizes = [result_of(reference) for reference in [sizing.remote(part) for part in parts]]
    rows = dict.fromkeys(SPLITS, 0)
    written = []
    for place, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        written.append(writing.remote(part, place, dict(rows), str(staged)))
        add_counts(rows, size)
    excluded: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {"train": {}, "all": {}}
    for reference in written:
        left_out, train, everything = result_of(reference)
        add_counts(excluded, left_out)
        add_counts(counts["train"], train)
        add_counts(counts["all"], everything)
    return rows, dict(sorted(excluded.items())), counts


def _rows_by_split(part: pa.Table) -> dict[str, int]:
    counted = part["split"].value_counts().to_pylist()
    return {one["values"]: one["counts"] for one in counted}


def _write_part(
    part: pa.Table, place: int, first_rows: dict[str, int], staged: str
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    excluded = json.loads(part.schema.metadata[b"excluded"])
    part = part.rename_columns({name.replace(".", "__"): column for name, column in FEATURES.items()})
    for split in SPLITS:
        rows = part.filter(pa.compute.equal(part["split"], split))
        if rows.num_rows == 0:
            continue
        ids = pa.array(np.arange(rows.num_rows, dtype=np.int64) + first_rows[split])
        rows = rows.append_column("row_id", ids)
        folder = Path(staged) / f"split={split}"
        folder.mkdir(parents=True, exist_ok=True)
        columns = [_filled(rows[field.name], field) for field in SCHEMA]
        pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), folder / f"part-{place:05d}.parquet")
        named = pl.Series(values=rows["label"].combine_chunks()).explode().value_counts()
        counts[split] = dict(named.iter_rows())
    everything: dict[str, int] = {}
    for counted in counts.values():
        add_counts(everything, counted)
    return excluded, counts["train"], everything


def _filled(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """The column in its declared type; a viewer who has finished nothing has an empty history, not an unknown one."""
    column = column.combine_chunks().cast(field.type)
    if pa.types.is_list(field.type) and column.null_count:
        empty = pa.array([[]], field.type)
        together = pa.concat_arrays([column, empty])
        place = np.where(np.asarray(column.is_valid()), np.arange(len(column)), len(column))
        column = together.take(pa.array(place))
    return column
