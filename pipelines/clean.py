"""Clean.

input   the snapshots of `bronze.events` that have not been cleaned yet, and rows that waited for their profile
does    validates, keeps one row an event id whatever the distance in time, settles whose profile it is
output  Iceberg `silver.playback` and `silver.titles`
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from features.profiles import PERSON_IDS, ProfileRegistry, strip_kids
from features.pseudonyms import Pseudonymizer
from pipelines.cluster import buckets_for, shuffle
from pipelines.contract.events import load_contract
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import file_groups, new_scan_tasks, read_all, read_tasks, scan_tasks, string_bounds
from pipelines.report import StationReport, add_counts, timed
from pipelines.secrets import pseudonymizer
from pipelines.settings import Settings

ROWS_PER_TASK = 250_000
CLIENT_CLOCK_TOLERANCE_MS = 5 * 60 * 1000  # spec 11.1, timestamp sanity
_VERDICT = "verdict"
_VALID = "valid"
_WAITING = "waiting for its profile"
_KNOWN = "known"  # a row of silver, there only to tell its event id


@dataclass(frozen=True)
class Rules:
    """What a task needs to judge bronze rows."""

    profiles: ProfileRegistry
    pseudonymizer: Pseudonymizer
    now_ms: int
    wait_ms: int


@dataclass(frozen=True)
class Source:
    """Files one task reads, and how."""

    files: Sequence[FileScanTask]
    table: TableFiles
    columns: tuple[str, ...]
    row_filter: BooleanExpression | None
    known: bool


@dataclass(frozen=True)
class BucketDone:
    """One bucket, written: its files, what became of its rows, and when its oldest waiting row came in."""

    files: list[DataFile]
    counts: dict[str, int]
    oldest_waiting_ms: int | None


def clean(settings: Settings, *, on_progress: Callable[[int, int], None] = lambda done, total: None) -> StationReport:
    """Bring silver up to date with bronze; `on_progress` hears of buckets done and in all."""
    with timed("clean") as report:
        lakehouse = Lakehouse.open(settings)
        contract = load_contract(settings.schemas)
        cut = settings.lakehouse.event_partition
        bronze_spec = tables.bronze_events(contract, cut)
        bronze = lakehouse.table(bronze_spec)
        rules = Rules(
            ProfileRegistry.of(read_all(lakehouse.existing("privacy.profiles"), tables.PROFILES)),
            pseudonymizer(settings),
            int(time.time() * 1000),
            int(settings.privacy.undescribed_profile_hours * 3_600_000),
        )
        playback_events = tuple(event.name for event in contract.events if event.topic == "client.playback")
        stations = (
            (tables.silver_playback(bronze_spec, cut), playback_events, _validate_playback),
            (tables.silver_titles(), ("title.added",), _validate_title),
        )
        for done, (spec, event_names, validate) in enumerate(stations):
            counts = _clean_table(
                lakehouse.table(spec), bronze, event_names, partial(_judge, validate, rules), settings.lakehouse.buckets
            )
            on_progress(done + 1, len(stations))
            read = sum(counts.values())
            report.read[f"bronze.events for {spec.name}"] = read
            report.wrote[spec.name] = counts.pop(_VALID, 0)
            add_counts(report.did, counts, f"{spec.name}: ")
    return report


def _clean_table(
    silver: Table,
    bronze: Table,
    event_names: tuple[str, ...],
    judge: Callable[[pa.Table], pa.Table],
    buckets: int,
) -> dict[str, int]:
    """Append to `silver` what is new in `bronze`, in one commit; how many rows met which fate."""
    snapshot = bronze.current_snapshot()
    progress = progress_of(silver)
    cleaned_to, oldest_waiting = progress.get("bronze_snapshot"), progress.get("oldest_waiting_ms")
    if snapshot is None or (snapshot.snapshot_id == cleaned_to and oldest_waiting is None):
        return {}

    wanted = In(term=Reference("event_name"), values={literal(name) for name in event_names})
    columns = _columns_to_read(silver, bronze)
    fresh = [task for task in new_scan_tasks(bronze, cleaned_to, wanted) if task.file.record_count]
    sources = [_source(group, bronze, columns, wanted) for group in file_groups(fresh, ROWS_PER_TASK)]
    if oldest_waiting is not None:
        waiting = And(
            wanted,
            EqualTo(term=Reference("profile_described"), value=literal(value=False)),
            GreaterThanOrEqual(term=Reference("ingested_at"), value=literal(oldest_waiting * 1000)),
        )
        old = bronze.scan(row_filter=waiting, snapshot_id=cleaned_to).plan_files()
        sources += [_source(group, bronze, columns, waiting) for group in file_groups(old, ROWS_PER_TASK)]
    sources += _files_that_may_know(silver, bronze, [task.file for source in sources for task in source.files])

    buckets = buckets_for(sum(task.file.record_count for source in sources for task in source.files), buckets)
    files: list[DataFile] = []
    counts: dict[str, int] = {}
    waits: list[int] = []
    for bucket in shuffle(sources, partial(_split, judge, buckets), partial(_unique, TableFiles.of(silver)), buckets):
        files += bucket.files
        add_counts(counts, bucket.counts)
        if bucket.oldest_waiting_ms is not None:
            waits.append(bucket.oldest_waiting_ms)
    commit_files(
        silver, files, {"bronze_snapshot": snapshot.snapshot_id, "oldest_waiting_ms": min(waits, default=None)}
    )
    return counts


def _source(
    files: Sequence[FileScanTask], bronze: Table, columns: tuple[str, ...], row_filter: BooleanExpression
) -> Source:
    return Source(files, TableFiles.of(bronze), columns, row_filter, known=False)


def _columns_to_read(silver: Table, bronze: Table) -> tuple[str, ...]:
    """What judging and writing need of bronze."""
    known = set(bronze.schema().column_names)
    judged = {
        *PERSON_IDS,
        "viewer_token",
        "is_kids",
        "profile_described",
        "ingested_at",
        "topic",
        "partition",
        "offset",
    }
    needed = {*silver.schema().column_names, *judged}
    return tuple(sorted(needed & known))


def _files_that_may_know(silver: Table, bronze: Table, incoming: Sequence[DataFile]) -> list[Source]:
    """Silver files whose event ids may be among the incoming ones, by the bounds that Iceberg kept of both.

    Event ids are UUIDs of version 7, which begin with their time: a resend is looked for among the files of its own
    time only. Ids of any other form are looked for everywhere, which is slower and no less right.
    """
    spans = [string_bounds(bronze, file, "event_id") for file in incoming]
    overlapping = [
        task
        for task in scan_tasks(silver)
        if any(_overlap(string_bounds(silver, task.file, "event_id"), span) for span in spans)
    ]
    return [
        Source(group, TableFiles.of(silver), ("event_id",), None, known=True)
        for group in file_groups(overlapping, ROWS_PER_TASK)
    ]


def _overlap(one: tuple[bytes, bytes] | None, other: tuple[bytes, bytes] | None) -> bool:
    if one is None or other is None:
        return True
    return one[0] <= other[1] and other[0] <= one[1]


def _split(judge: Callable[[pa.Table], pa.Table], buckets: int, source: Source) -> list[pa.Table]:
    """Read one source, judge its rows and cut them by event id."""
    rows = read_tasks(source.table, source.files, source.columns, source.row_filter)
    rows = rows.append_column(_VERDICT, pa.repeat(_KNOWN, rows.num_rows)) if source.known else judge(rows)
    bucket = pl.Series(values=rows["event_id"].combine_chunks(), dtype=pl.String).hash(seed=0).to_numpy() % buckets
    return [rows.filter(pa.array(bucket == wanted)) for wanted in range(buckets)]


def _unique(silver: TableFiles, _: int, cuts: list[pa.Table]) -> BucketDone:
    """Write the valid rows of one bucket, the first of each event id, unless silver has it."""
    rows = pl.concat([pl.DataFrame(cut) for cut in cuts], how="diagonal_relaxed")
    known = rows.filter(pl.col(_VERDICT) == _KNOWN).select("event_id")
    incoming = rows.filter(pl.col(_VERDICT) != _KNOWN)
    fresh = incoming.join(known, on="event_id", how="anti")
    firsts = fresh.sort("event_timestamp", "topic", "partition", "offset").unique(
        "event_id", keep="first", maintain_order=True
    )
    counts: dict[str, int] = dict(firsts.group_by(_VERDICT).len().iter_rows())
    if duplicates := incoming.height - firsts.height:
        counts["duplicate event id"] = duplicates
    waiting_ms: list[int] = firsts.filter(pl.col(_VERDICT) == _WAITING)["ingested_at"].dt.timestamp("ms").to_list()
    files = write_files(silver, firsts.filter(pl.col(_VERDICT) == _VALID).to_arrow())
    return BucketDone(files, counts, min(waiting_ms, default=None))


def _judge(validate: Callable[[pl.DataFrame], pl.DataFrame], rules: Rules, rows: pa.Table) -> pa.Table:
    """`rows` of bronze as rows of silver, each with its verdict."""
    frame = pl.from_arrow(_settle_profiles(rules, rows))
    assert isinstance(frame, pl.DataFrame)
    return validate(frame).to_arrow()


def _settle_profiles(rules: Rules, rows: pa.Table) -> pa.Table:
    """Decide for rows whose profile nobody had described: described since, waited long enough, or wait on.

    A profile that stays undescribed for `wait_ms` is treated as a child's (spec 8.5, the protective reading).
    """
    undescribed = ~np.asarray(pc.fill_null(rows["profile_described"], True).to_numpy())
    is_kids, described = rules.profiles.describe(
        pl.Series(values=rows["profile_id"].combine_chunks(), dtype=pl.String),
        pl.Series(values=rows["event_timestamp"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).combine_chunks()),
    )
    since_ms = rules.now_ms - rows["ingested_at"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy()
    waiting = undescribed & ~described & (since_ms < rules.wait_ms)
    kids_now = undescribed & (is_kids | (~described & ~waiting))
    kids = kids_now | np.asarray(pc.fill_null(rows["is_kids"], False).to_numpy())
    rows = _strip_newly_known(rows, kids_now, rules)
    rows = rows.set_column(rows.column_names.index("is_kids"), "is_kids", pa.array(kids))
    return rows.append_column(_VERDICT, pa.array(np.where(waiting, _WAITING, _VALID), pa.string()))


def _strip_newly_known(rows: pa.Table, kids_now: np.ndarray, rules: Rules) -> pa.Table:
    # Rows known at the door carry their token already, so only the others may be given one.
    if not kids_now.any():
        return rows
    mask = pa.array(kids_now)
    stripped = strip_kids(rows, kids_now, rules.pseudonymizer)
    kept = pc.if_else(mask, stripped["viewer_token"], rows["viewer_token"])
    return stripped.set_column(stripped.column_names.index("viewer_token"), "viewer_token", kept)


_NO_CONTENT = pl.col("content_id").is_null() | (pl.col("content_id") == "")
_NEVER_NEGATIVE = ("position_ms", "start_time_ms", "total_duration_ms", "rebuffer_duration_ms", "pause_duration_ms")


def _validate_playback(rows: pl.DataFrame) -> pl.DataFrame:
    """The first rule a row breaks becomes its verdict; and whether its client's clock can be relied on."""
    skew_ms = (pl.col("client_timestamp") - pl.col("event_timestamp")).dt.total_milliseconds().abs()
    return rows.with_columns(
        pl.when(_NO_CONTENT)
        .then(pl.lit("invalid: no content_id"))
        .when(~pl.col("completion_percent").is_between(0, 100))
        .then(pl.lit("invalid: completion_percent outside 0 to 100"))
        .when(pl.any_horizontal(pl.col(name) < 0 for name in _NEVER_NEGATIVE))
        .then(pl.lit("invalid: negative position or duration"))
        .otherwise(pl.col(_VERDICT))
        .alias(_VERDICT),
        (skew_ms <= CLIENT_CLOCK_TOLERANCE_MS).alias("client_timestamp_reliable"),
    )


def _validate_title(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(
        pl.when(_NO_CONTENT).then(pl.lit("invalid: no content_id")).otherwise(pl.col(_VERDICT)).alias(_VERDICT)
    )
