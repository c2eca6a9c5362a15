"""Keys and instants travel one way, values the other; the rows themselves stay where they are.

    ask(part)             which rows of a part ask which bucket, of each pass
    answer(bucket)        the features of all groups of a pass, from one bucket's files, for the rows that asked
    place(part, answers)  the part with its features, in its order, none dropped: null where nothing was known

A pass is all that is read by one key from tables cut alike. Where the left table's parts are that pass's buckets,
nothing travels: the part's task reads the bucket itself. These are plain functions; `join` runs them as Ray tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import milliseconds
from features.distinct import codes_of, encoded, spread
from features.entities import first_of
from pipelines.errors import ReelError
from pipelines.lakehouse.scans import bucket_of
from pipelines.point_in_time.left import Part, asked_of, columns_of, rows_of
from pipelines.point_in_time.people import People
from pipelines.point_in_time.stored import Answering, Asked

ROW, KEY, INSTANT = "row", "key", "instant_ms"


class NotCutError(ReelError):
    """The left table was said to be cut by the features' buckets, and is not."""


@dataclass(frozen=True)
class Pass:
    """Groups that are read by the same key from tables with the same buckets."""

    key_columns: tuple[str, ...]
    buckets: int
    is_personal: bool
    sources: tuple[Answering, ...]
    is_cut_by_first: bool = False
    """The buckets are those of the first key column alone, not of the whole key."""

    def values(self, bucket: int, keys: pa.Array | pa.ChunkedArray, asked_ms: np.ndarray) -> dict[str, pa.Array]:
        """All features of the pass for rows that ask one bucket, which is read only if there are any."""
        if len(keys) == 0:
            return {field.name: pa.array([], field.type) for field in self.schema()}
        asked = Asked.of(keys, asked_ms)
        found: dict[str, pa.Array] = {}
        for source in self.sources:
            found |= source.values(bucket, asked)
        return found

    def schema(self) -> pa.Schema:
        """Columns of the result that this pass gives."""
        return pa.schema([field for source in self.sources for field in source.fields])

    def bucket_of(self, keys: pa.Array) -> np.ndarray:
        """Which bucket each key asks, [n]."""
        return bucket_of(first_of(keys) if self.is_cut_by_first else keys, self.buckets)


@dataclass(frozen=True)
class Plan:
    """One join: what is read by which key, and whom it may be told."""

    instant: str
    local: tuple[Pass, ...]
    """Passes whose buckets are the left table's parts."""
    exchanged: tuple[Pass, ...]
    columns: tuple[str, ...]
    """The features' columns, in the order in which they are asked for."""
    people: People | None
    reason: str | None
    """Column that says why a row has no personal features."""


@dataclass(frozen=True)
class Verdict:
    """Why rows of a part get no personal features, or none that is up to date."""

    reasons: pa.Array | None
    counts: dict[str, int]
    late: dict[str, int]


@dataclass(frozen=True)
class Done:
    """What became of a part."""

    rows: int
    excluded: dict[str, int]
    late: dict[str, int]
    path: str | None


def ask(plan: Plan, part: Part) -> list[Verdict | pa.Table]:
    """The verdict on the part's rows, then what is asked of every bucket of every exchanged pass."""
    keys = [column for one in plan.exchanged for column in one.key_columns]
    names = {plan.instant, *keys, *(plan.people.columns if plan.people else [])}
    rows = columns_of(part, sorted(names))
    verdict = _verdict(plan, rows)
    asked: list[Verdict | pa.Table] = [verdict]
    for one in plan.exchanged:
        asked += _asked_by_bucket(one, *_asking(one, rows, plan.instant, verdict))
    return asked


def answer(one: Pass, bucket: int, *asked: pa.Table) -> list[pa.Table]:
    """The bucket's values for the rows of each part that asked."""
    together = pa.concat_tables(asked)
    values = pa.table(one.values(bucket, together[KEY], together[INSTANT].to_numpy()), schema=one.schema())
    answers, start = [], 0
    for part in asked:
        answers.append(values.slice(start, part.num_rows).append_column(ROW, part[ROW]))
        start += part.num_rows
    return answers


def place(
    plan: Plan, number: int, output: Path | None, part: Part, verdict: Verdict | None, *answers: pa.Table
) -> tuple[Done, pa.Table | None]:
    """The part with its features: written to the output folder if there is one, else returned.

    Without a verdict, because nothing was asked elsewhere, it is given here.
    """
    rows = rows_of(part)
    verdict = verdict or _verdict(plan, rows)
    found: dict[str, pa.Array | pa.ChunkedArray] = {}
    for one in plan.local:
        keys, asked_ms, places = _asking(one, rows, plan.instant, verdict)
        _require_cut(one, number, keys)
        found |= _spread(one.values(number, keys, asked_ms), places, rows.num_rows)
    taken = 0
    for one in plan.exchanged:
        together = pa.concat_tables(answers[taken : taken + one.buckets])
        taken += one.buckets
        values = {name: together[name].combine_chunks() for name in one.schema().names}
        found |= _spread(values, together[ROW].to_numpy(), rows.num_rows)
    for name in plan.columns:
        rows = rows.append_column(name, found[name])
    if plan.reason is not None:
        rows = rows.append_column(plan.reason, _reasons(verdict, rows.num_rows))
    if output is None:
        return Done(rows.num_rows, verdict.counts, verdict.late, None), rows
    path = output / f"part-{number:05d}.parquet"
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]  # numbers hardly repeat
    pq.write_table(rows, path, compression="zstd", compression_level=1, use_dictionary=texts)
    return Done(rows.num_rows, verdict.counts, verdict.late, str(path)), None


def join_here(plan: Plan, parts: Sequence[Part], output: Path | None = None) -> list[tuple[Done, pa.Table | None]]:
    """The whole join in this process, without Ray."""
    asked: list[list[Any]] = [ask(plan, part) if plan.exchanged else [None] for part in parts]
    answers: list[list[pa.Table]] = [[] for _ in parts]
    first = 1
    for one in plan.exchanged:
        for bucket in range(one.buckets):
            for mine, values in zip(answers, answer(one, bucket, *(each[first + bucket] for each in asked)),
                                    strict=True):  # fmt: skip
                mine.append(values)
        first += one.buckets
    return [place(plan, number, output, part, asked[number][0], *answers[number]) for number, part in enumerate(parts)]


def _verdict(plan: Plan, rows: pa.Table) -> Verdict:
    reasons, counts = plan.people.reasons(rows) if plan.people else (None, {})
    return Verdict(reasons, counts, _late(plan, rows))


def _late(plan: Plan, rows: pa.Table) -> dict[str, int]:
    """How many rows come after the last boundary that is built, by group."""
    asked_ms = milliseconds(rows[plan.instant].drop_null(), plan.instant)
    sources = [source for one in (*plan.local, *plan.exchanged) for source in one.sources]
    counts = {source.name: source.late(asked_ms) for source in sources}
    return {name: count for name, count in counts.items() if count}


def _asking(
    one: Pass, rows: pa.Table, instant: str, verdict: Verdict
) -> tuple[pa.DictionaryArray, np.ndarray, np.ndarray]:
    """(keys, instants in ms, rows) of a part's rows that may ask the pass."""
    keys, asked_ms, places = asked_of(rows, one.key_columns, instant)
    if not one.is_personal or verdict.reasons is None or verdict.reasons.null_count == rows.num_rows:
        return keys, asked_ms, places
    kept = np.asarray(verdict.reasons.is_null())[places]
    return keys.filter(pa.array(kept)), asked_ms[kept], places[kept]


def _asked_by_bucket(
    one: Pass, keys: pa.DictionaryArray, asked_ms: np.ndarray, places: np.ndarray
) -> list[Verdict | pa.Table]:
    """What is asked of each bucket; only keys of its own travel with it."""
    codes = codes_of(keys)
    bucket = one.bucket_of(keys.dictionary)[codes] if len(codes) else np.empty(0, dtype=np.int64)
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(one.buckets + 1))
    tables: list[Verdict | pa.Table] = []
    for number in range(one.buckets):
        mine = order[edges[number] : edges[number + 1]]
        tables.append(pa.table({ROW: places[mine], KEY: spread(keys.dictionary, codes[mine]), INSTANT: asked_ms[mine]}))
    return tables


def _spread(values: dict[str, pa.Array], places: np.ndarray, size: int) -> dict[str, pa.Array]:
    """Values brought to the rows at `places`, which all differ; null elsewhere."""
    if len(places) == size and (places[1:] > places[:-1]).all():
        return values
    found = np.full(size, -1, dtype=np.int64)
    found[places] = np.arange(len(places))
    picked = pa.array(found, mask=found < 0)
    return {name: column.take(picked) for name, column in values.items()}


def _require_cut(one: Pass, number: int, keys: pa.DictionaryArray) -> None:
    distinct = encoded(keys).dictionary
    if len(keys) and (one.bucket_of(spread(distinct, codes_of(keys)).dictionary) != number).any():
        raise NotCutError(
            f"part {number} of the left table has keys of other buckets of {one.key_columns[0]}; cut it by Iceberg's "
            f"bucket[{one.buckets}] of that column, one part a bucket, or do not say that it is cut"
        )


def _reasons(verdict: Verdict, size: int) -> pa.Array:
    return verdict.reasons if verdict.reasons is not None else pa.nulls(size, pa.string())
