"""Taking people out of a table: its files, its history, and what lies beside it that nothing names."""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.distinct import codes_of, encoded
from pipelines.cluster import run_tasks
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.history import Edit, Rewriting, files_of_history
from pipelines.lakehouse.orphans import unnamed_files
from pipelines.lakehouse.scans import FileGoneError, live_files
from pipelines.privacy.person import Person
from pipelines.privacy.requests import ERASURES, Requests
from pipelines.privacy.taking_out import TakenOut, TakingOut, Whose
from pipelines.privacy.whereabouts import Found, id_columns, whereabouts

ERASURE = "reel.erased"  # in the summary of a commit: whose rows it took out, as `_said` writes it
_BOUND_CHARACTERS = 15  # of an id, that a bound tells: of 16, of which the last is one more in an upper bound


@dataclass
class Looked:
    """What was found out of a table's files in earlier passes: a file never changes."""

    clean: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Taken:
    """Rows taken out of a table, and files that were written anew for it."""

    rows: int = 0
    files: int = 0


@dataclass(frozen=True)
class Theirs:
    """What a commit took out of a table for one request.

    `rows`, and the `files` that had them, are those of the newest snapshot; `held` are the snapshots that held any.
    """

    rows: int
    files: int
    held: frozenset[int]


@dataclass(frozen=True)
class Told:
    """What a table's history tells of one erasure: for each request, of `of_files` that the table then had."""

    table: str
    at_ms: int
    of_files: int
    by_mark: Mapping[str, Theirs]


def erase_from(table: Table, requests: Requests, looked: Looked, made: lineage.Run) -> Taken:
    """Take the rows of all requests out of every snapshot of a table, and delete the files that held them."""
    whose = requests.whose()
    unseen = [file for file in files_of_history(table) if file.file_path not in looked.clean]
    if not unseen and looked.clean:
        return Taken()
    try:
        found = whereabouts(table, requests.person, unseen)
    except FileNotFoundError:  # another erasure was faster
        raise FileGoneError(".".join(table.name())) from None
    work = TakingOut(TableFiles.of(table), whose, whose.columns)
    taken = _take_out(table, found.files, work, whose.marks, requests.person, made)
    looked.clean |= {file.file_path for file in unseen}
    looked.clean |= {one.fresh.file_path for one in taken if one.fresh is not None}
    return Taken(sum(one.rows for one in taken), len(taken))


def erase_from_sealed(table: Table, requests: Requests, whose: Whose, looked: Looked, made: lineage.Run) -> Taken:
    """Take the messages out of quarantine that can be attributed to somebody of the requests."""
    unseen = [file for file in files_of_history(table) if file.file_path not in looked.clean]
    columns = tuple(table.schema().column_names)
    work = TakingOut(TableFiles.of(table), whose, columns)
    files = [Found(file, (), columns) for file in unseen]
    taken = _take_out(table, files, work, tuple(requests.by_mark), requests.person, made) if unseen else []
    looked.clean |= {file.file_path for file in unseen}
    looked.clean |= {one.fresh.file_path for one in taken if one.fresh is not None}
    return Taken(sum(one.rows for one in taken), len(taken))


def forget(lakehouse: Lakehouse, requests: Requests, made: lineage.Run) -> None:
    """Delete the rows of `privacy.erasures` that are done."""
    table = lakehouse.existing(ERASURES)
    if table is None:
        return
    marks = tuple(requests.by_mark)
    of_request = partial(_of_request, pa.array(marks, pa.string()))
    files = [Found(file, (), tuple(table.schema().column_names)) for file in files_of_history(table)]
    work = TakingOut(TableFiles.of(table), of_request, ("request",))
    _take_out(table, files, work, marks, requests.person, made)
    _delete_unnamed(table, Leftover(table.io, of_request, ("request",), _told(requests.person)))


def remove_leftovers(table: Table, requests: Requests, sealed: Whose | None = None) -> int:
    """Delete the files that nothing names and that tell of these people; how many. `sealed` tells it of quarantine.

    Only behind a mark and after a pass that has found nothing: what a run that still may commit has written has then
    no row of theirs.
    """
    whose = requests.whose()
    columns = whose.columns if sealed is None else tuple(table.schema().column_names)
    return _delete_unnamed(table, Leftover(table.io, sealed or whose, columns, _told(requests.person)))


def put_in_place(
    table: Table,
    files: Mapping[str, DataFile | None],
    person: Person,
    made: lineage.Run,
    said: Mapping[str, str] | None = None,
) -> None:
    """Put files in the place of others, by their paths, in every snapshot of a table, and delete the others at once.

    Bounds of id columns that tell of the person go, too; `said` is added to the commit's summary. Raises
    CommitRefusedError when the catalog takes no commit.
    """
    columns = [table.schema().find_field(name).field_id for name in (*id_columns(table), *_own_ids(table))]
    newest = table.metadata.current_snapshot_id
    facts = made.facts(lineage.Inputs(tables={".".join(table.name()): newest} if newest is not None else {}))
    edit = Edit(files, columns, partial(_tells, _told(person)))
    rewriting = Rewriting(edit, {**facts, **(said or {})}, table.io)
    made.wrote(rewriting.commit(table))
    rewriting.delete_stale()


def told_by_tables(lakehouse: Lakehouse) -> list[Told]:
    """Every erasure that the history of some table tells of."""
    found: list[Told] = []
    for name in lakehouse.names():
        table = lakehouse.existing(name)
        for snapshot in table.metadata.snapshots if table is not None else ():
            said = snapshot.summary[ERASURE] if snapshot.summary is not None else None
            if said is not None:
                told = json.loads(said)
                by_mark = {
                    mark: Theirs(rows, files, frozenset().union(*(told["held"][a : b + 1] for a, b in runs)))
                    for mark, (rows, files, runs) in told["by_mark"].items()
                }
                found.append(Told(name, snapshot.timestamp_ms, told["of_files"], by_mark))
    return found


@dataclass(frozen=True)
class Leftover:
    """Tells whether a file that nothing names has rows of these people, or keeps a bound that tells of them."""

    io: FileIO
    whose: Whose
    columns: Sequence[str]
    told: frozenset[bytes]

    def __call__(self, path: str) -> bool:
        """False also for what cannot be read: a file that is being written, or was when its process was killed."""
        try:
            if path.endswith(".parquet"):
                return self._has_rows(path)
            return path.endswith(".avro") and self._keeps_bounds(path)
        except (FileNotFoundError, pa.ArrowInvalid, ValueError, EOFError):
            return False

    def _has_rows(self, path: str) -> bool:
        with self.io.new_input(path).open() as stream:
            names = [name for name in self.columns if name in pq.read_schema(stream).names]
            parquet = pq.ParquetFile(stream, read_dictionary=names)
            groups = (parquet.read_row_group(number, names) for number in range(parquet.num_row_groups))
            return any((self.whose(rows) >= 0).any() for rows in groups)

    def _keeps_bounds(self, path: str) -> bool:
        with self.io.new_input(path).open() as stream:
            entries = list(fastavro.reader(io.BytesIO(stream.read())))
        files = [entry["data_file"] for entry in entries if isinstance(entry, dict) and "data_file" in entry]
        bounds = (one for file in files for name in ("lower_bounds", "upper_bounds") for one in file.get(name) or ())
        return any(_tells(self.told, one["value"]) for one in bounds)


def _delete_unnamed(table: Table, is_theirs: Leftover) -> int:
    removed = 0
    paths = unnamed_files(table)
    for path, is_leftover in run_tasks(partial(_looked_at, is_theirs), paths):
        if is_leftover:
            with suppress(FileNotFoundError):
                table.io.delete(path)
            removed += 1
    return removed


def _looked_at(is_theirs: Leftover, path: str) -> tuple[str, bool]:
    return path, is_theirs(path)


def _take_out(
    table: Table, files: Sequence[Found], work: TakingOut, marks: Sequence[str], person: Person, made: lineage.Run
) -> list[TakenOut]:
    taken = [one for one in run_tasks(work, files) if one is not None]
    rows_of = {one.stale.file_path: np.bincount(one.requests, minlength=len(marks)) for one in taken}
    said = erasure_facts(table, marks, rows_of)
    put_in_place(table, {one.stale.file_path: one.fresh for one in taken}, person, made, said)
    return taken


def erasure_facts(table: Table, marks: Sequence[str], rows_of: Mapping[str, NDArray[np.int64]]) -> dict[str, str]:
    """What a commit is to say of itself that takes rows out of files; `rows_of`: by path, how many of each request.

    In JSON: `held`, the snapshots that held rows of anybody, in their order; `by_mark`: rows, files, and from which to
    which of these snapshots the request's rows were held; `of_files`.
    """
    live, paths = {file.file_path for file in live_files(table)}, list(rows_of)
    held, has = _held(table, paths)
    rows = np.array([rows_of[path] for path in paths], np.int64).reshape(len(paths), len(marks))
    in_newest = rows[[path in live for path in paths]]
    held_of = (rows > 0).T.astype(np.float32) @ has.T.astype(np.float32) > 0  # (requests, snapshots)
    by_mark = {
        mark: (int(in_newest[:, place].sum()), int((in_newest[:, place] > 0).sum()), _runs(held_of[place]))
        for place, mark in enumerate(marks)
        if rows[:, place].any()
    }
    facts = {"of_files": len(live), "held": held, "by_mark": by_mark}
    return {ERASURE: json.dumps(facts, sort_keys=True, separators=(",", ":"))}


def _held(table: Table, paths: Sequence[str]) -> tuple[list[int], NDArray[np.bool_]]:
    """The snapshots that have one of these files, and which of them each has, shape (snapshots, paths)."""
    place_of = {path: place for place, path in enumerate(paths)}
    of_manifest: dict[str, list[int]] = {}
    held, has = [], []
    for snapshot in table.metadata.snapshots if paths else ():
        row = np.zeros(len(paths), bool)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in of_manifest:
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                named = (one.data_file.file_path for one in entries)
                of_manifest[manifest.manifest_path] = [place_of[path] for path in named if path in place_of]
            row[of_manifest[manifest.manifest_path]] = True
        if row.any():
            held.append(snapshot.snapshot_id)
            has.append(row)
    return held, np.array(has, bool).reshape(len(held), len(paths))


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """From where to where flags are set, both ends included."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges > 0).tolist(), (np.flatnonzero(edges < 0) - 1).tolist(), strict=True))


def _own_ids(table: Table) -> list[str]:
    """Columns of pseudonyms that no other table has."""
    return ["pseudonym"] if "pseudonym" in table.schema().column_names else []


def _told(person: Person) -> frozenset[bytes]:
    """What a bound of an id column tells of these people."""
    return frozenset(name[:_BOUND_CHARACTERS].encode() for names in person.ids.values() for name in names)


def _tells(told: frozenset[bytes], bound: bytes) -> bool:
    return bound[:_BOUND_CHARACTERS] in told


def _of_request(marks: pa.Array, rows: pa.Table) -> NDArray[np.int64]:
    column = encoded(rows["request"])
    places = pc.index_in(column.dictionary.cast(pa.string()), value_set=marks).fill_null(-1).to_numpy()
    found: NDArray[np.int64] = np.append(places, -1)[codes_of(column)].astype(np.int64)
    return found
