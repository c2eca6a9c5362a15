"""What a Ray task does with rows of bronze: judge them, keep one of each event id, enrich them, write them.

Rows are not brought together by their ids. First only the ids of new rows are read, and the hashes found that occur
twice, or in files of silver that may know them. Then every task works on files of its own and writes what cannot be a
duplicate; the few rows that may be one are left over, and decided on together by comparing their ids as they are. What
fits into one task is done in one.

Only valid rows compete for an id: an invalid copy keeps no valid one out, and of what waits for its profile nothing is
decided, so that in the end every row is counted as one thing, and once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from features.columns import milliseconds
from pipelines.lakehouse import tables
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import read_files
from pipelines.report import summed
from pipelines.silver.enrichment import Knowledge
from pipelines.silver.ids import Hashes, IdRange, Ids, among, may_hold, repeated
from pipelines.silver.rules import VALID
from pipelines.silver.settling import Settling
from pipelines.silver.sources import Part
from pipelines.silver.titles import announce

WAITING = "waiting for its profile"
DUPLICATE = "duplicate event id"
_ORDER = ("event_timestamp", "topic", "partition", "offset")


@dataclass(frozen=True)
class KnownFile:
    """A file of silver, whose events are not to be written again."""

    path: str
    rows: int
    ids: IdRange


class Judged(NamedTuple):
    """As of which snapshot of the profiles, and when, rows were judged that have waited since."""

    profiles_at: int | None
    at_ms: int


@dataclass(frozen=True)
class TableWork:
    """One table: where its rows go, and as of when those were judged that have waited."""

    name: str
    table: TableFiles
    columns: tuple[str, ...]
    judged: Judged | None = None


@dataclass(frozen=True)
class Written:
    """Files that were written, what became of the rows, and when the oldest row that waits on came in."""

    table: str
    files: list[DataFile]
    counts: dict[str, int]
    oldest_waiting_ms: int | None = None
    is_rewritten: bool = False  # the files hold all rows of the table, not only new ones


@dataclass(frozen=True)
class Sifted:
    """The valid ones among some rows, what became of the others, and when the oldest that waits came in."""

    valid: pa.Table
    others: dict[str, int]
    oldest_waiting_ms: int | None


@dataclass(frozen=True)
class Cleaner:
    """What every task needs; travels once."""

    bronze: TableFiles
    knowledge: Knowledge
    settling: Settling
    earlier: Mapping[Judged, Settling]  # for rows that have waited

    def read_ids(self, parts: Sequence[Part]) -> Ids:
        """The ids of all rows of some bronze files."""
        paths = [file.path for part in parts for file in part.files]
        return Ids.of(read_files(self.bronze, paths, ["event_id"])["event_id"])

    def clean_all(self, work: TableWork, parts: Sequence[Part], known: Sequence[KnownFile]) -> Written:
        """Everything of a table that fits into one task."""
        sifted = self.sifted(work, parts)
        rows = sifted.valid
        ids = Ids.of(rows["event_id"])
        fresh = np.sort(ids.hashes)
        candidates = files_that_may_know(known, ids)
        in_silver = known_hashes(work.table, candidates, fresh)
        suspect = among(ids.hashes, np.union1d(repeated(fresh), in_silver))
        if not suspect.any():
            return self._write(work, rows, sifted.others, sifted.oldest_waiting_ms)
        firsts, duplicates = _firsts(rows.filter(pa.array(suspect)), known_ids(work.table, candidates, in_silver))
        kept = pa.concat_tables([rows.filter(pa.array(~suspect)), firsts])
        return self._write(work, kept, sifted.others | {DUPLICATE: duplicates}, sifted.oldest_waiting_ms)

    def clean_unsuspected(self, work: TableWork, parts: Sequence[Part], suspects: Hashes) -> tuple[Written, pa.Table]:
        """Valid rows whose id is not among the suspects, written; and those whose id is."""
        sifted = self.sifted(work, parts)
        rows = sifted.valid
        suspect = among(Ids.of(rows["event_id"]).hashes, suspects)
        left = rows.filter(pa.array(suspect))
        kept = rows.filter(pa.array(~suspect)) if len(left) else rows
        return self._write(work, kept, sifted.others, sifted.oldest_waiting_ms), left

    def clean_suspected(
        self, work: TableWork, known: Sequence[KnownFile], buckets: int, bucket: int, left: Sequence[pa.Table]
    ) -> Written:
        """The suspects of one bucket: the first of each id is written, unless silver has it."""
        rows = pa.concat_tables(left, promote_options="default")
        ids = Ids.of(rows["event_id"])
        mine = ids.hashes % buckets == bucket
        rows, hashes = rows.filter(pa.array(mine)), np.sort(ids.hashes[mine])
        candidates = files_that_may_know(known, ids)
        firsts, duplicates = _firsts(rows, known_ids(work.table, candidates, hashes))
        return self._write(work, firsts, {DUPLICATE: duplicates})

    def announce(self, work: TableWork, parts: Sequence[Part], known: Sequence[str]) -> Written:
        """The catalogue's history with what the parts announce; written as a whole if what is there changes."""
        sifted = self.sifted(work, parts)
        valid = sifted.valid
        history = read_files(work.table, known, work.columns) if known else tables.TITLE_HISTORY.empty_table()
        announced = announce(history, valid.append_column("announced_by", valid["event_name"]))
        counts = _counted(announced.added, sifted.others | {DUPLICATE: announced.duplicates})
        files = write_files(work.table, announced.rows)
        return Written(work.name, files, counts, sifted.oldest_waiting_ms, announced.is_rewritten)

    def sifted(self, work: TableWork, parts: Sequence[Part]) -> Sifted:
        """Rows of bronze, judged."""
        judged = [self._sifted(work, part) for part in parts]
        rows = pa.concat_tables([one.valid for one in judged], promote_options="default")
        waits = [one.oldest_waiting_ms for one in judged if one.oldest_waiting_ms is not None]
        others = summed(one.others for one in judged)
        return Sifted(rows.unify_dictionaries().combine_chunks(), others, min(waits, default=None))

    def _sifted(self, work: TableWork, part: Part) -> Sifted:
        rows, waiting = self.settling.settle(self._read(work, part))
        verdicts = part.event.rules.verdicts(rows)
        codes = verdicts.indices.to_numpy()
        fates = verdicts.dictionary.to_pylist()
        counts = np.bincount(codes, minlength=len(fates)).tolist()
        others = {fate: count for fate, count in zip(fates, counts, strict=True) if fate != VALID}
        waits = waiting & (codes == 0)
        kept = ~waiting & (codes == 0)
        oldest_ms = None
        if waits.any():
            others[WAITING] = int(waits.sum())
            oldest_ms = int(milliseconds(rows["ingested_at"])[waits].min())
        return Sifted(rows if kept.all() else rows.filter(pa.array(kept)), others, oldest_ms)

    def _read(self, work: TableWork, part: Part) -> pa.Table:
        rows = read_files(self.bronze, [file.path for file in part.files], part.event.columns)
        if part.event.topic is not None:
            rows = rows.filter(pc.equal(rows["topic"].cast(pa.string()), part.event.topic))
        if not part.has_waited:
            return rows
        assert work.judged is not None, "what has waited was judged before"
        # The others were judged and counted then.
        is_valid = part.event.rules.verdicts(rows).indices.to_numpy() == 0
        return rows.filter(pa.array(is_valid & self.earlier[work.judged].waiting(rows)))

    def _write(
        self, work: TableWork, rows: pa.Table, others: Mapping[str, int], oldest_waiting_ms: int | None = None
    ) -> Written:
        counts = _counted(rows.num_rows, others)
        if not rows.num_rows:
            return Written(work.name, [], counts, oldest_waiting_ms)
        enriched = self.knowledge.enrich(rows, work.columns)
        return Written(work.name, write_files(work.table, enriched), counts, oldest_waiting_ms)


def _counted(valid: int, others: Mapping[str, int]) -> dict[str, int]:
    return {fate: count for fate, count in {VALID: valid, **others}.items() if count}


def files_that_may_know(known: Sequence[KnownFile], ids: Ids) -> list[KnownFile]:
    """Files of silver in which one of the ids may be."""
    inside = may_hold([file.ids for file in known], ids.prefixes) if known else ()
    return [file for file, is_inside in zip(known, inside, strict=True) if is_inside]


def known_hashes(table: TableFiles, files: Sequence[KnownFile], ascending: Hashes) -> Hashes:
    """Those of a sorted array of hashes that ids in `files` have, ascending."""
    found = [np.empty(0, np.uint64)]
    for file in files:
        hashes = Ids.of(read_files(table, [file.path], ["event_id"])["event_id"]).hashes
        found.append(hashes[among(hashes, ascending)])
    return np.unique(np.concatenate(found))


def known_ids(table: TableFiles, files: Sequence[KnownFile], ascending: Hashes) -> pa.ChunkedArray:
    """The ids in `files` that have one of the hashes, of a sorted array."""
    found: list[pa.Array] = []
    for file in files if len(ascending) else ():
        ids = read_files(table, [file.path], ["event_id"])["event_id"]
        found += ids.filter(pa.array(among(Ids.of(ids).hashes, ascending))).chunks
    return pa.chunked_array(found, table.arrow_schema.field("event_id").type)


def _firsts(rows: pa.Table, known: pa.ChunkedArray) -> tuple[pa.Table, int]:
    """The first row of each event id that is not known, and how many rows are left out."""
    keys = pl.DataFrame(rows.select(["event_id", *_ORDER])).with_row_index("row")
    in_silver = pl.DataFrame({"event_id": pl.Series(values=known.combine_chunks(), dtype=pl.String)})
    fresh = keys.join(in_silver, on="event_id", how="anti")
    firsts = fresh.sort(pl.col("event_timestamp"), pl.col("topic").cast(pl.String), "partition", "offset").unique(
        "event_id", keep="first", maintain_order=True
    )
    kept = np.sort(firsts["row"].to_numpy())
    return rows.take(pa.array(kept)), rows.num_rows - len(kept)
