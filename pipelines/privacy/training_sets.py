"""Taking people out of training sets: their Parquet files under `{work_dir}/training_sets`, and what manifests say.

So are children taken out that were found late: of whoever is named in any text of a row, it is their row.

For each set:

    1. its manifest notes whose rows are in which file (`erasures`, by file and request)
    2. each such file is written anew without them, and put in the place of the old one
    3. its manifest counts the rows that are there, with the digests of the files

Killed between two steps, the next erasure finds what is left to be done, and says the same of it. What a set that was
never finished left behind is treated alike: it has no manifest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.cluster import run_tasks
from pipelines.privacy.requests import Requests
from pipelines.training_sets.built import MANIFEST_FILE, digest_of_manifest
from pipelines.training_sets.rows import digest_of, write_rows

FOLDER = "training_sets"
ERASURES = "erasures"
_BEFORE_ALL = np.iinfo(np.int64).min


@dataclass(frozen=True)
class SetTold:
    """What a training set's manifest tells of erasures. `digests`: those that it had before them."""

    folder: Path
    at_ms: int
    rows: Mapping[str, int]  # by request
    digests: frozenset[str]


@dataclass(frozen=True)
class Names:
    """All pseudonyms, of which request each is, and, where it matters, until which instant rows are theirs."""

    marks: tuple[str, ...]
    ids: pa.Array
    owners: NDArray[np.int64]
    until_ms: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, requests: Requests) -> "Names":
        """Of everybody's."""
        marks = tuple(requests.by_mark)
        owners = {
            name: number
            for number, mark in enumerate(marks)
            for names in requests.by_mark[mark].person.ids.values()
            for name in names
        }
        return cls(marks, pa.array(list(owners), pa.string()), np.fromiter(owners.values(), np.int64))

    def whose(self, rows: pa.Table) -> NDArray[np.int64]:
        """Of which request each row is, by any text it has; -1 for a row of nobody's. Shape (n,)."""
        found = np.full(rows.num_rows, -1, np.int64)
        instants_ms = None if self.until_ms is None else _earliest_ms(rows)
        for column in rows.columns:
            column = column.combine_chunks()
            lists = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
            texts = column.flatten() if lists else column
            if pa.types.is_dictionary(texts.type):
                texts = texts.dictionary_decode()
            if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
                continue
            places = pc.index_in(texts.cast(pa.string()), value_set=self.ids).fill_null(-1).to_numpy()
            of_rows = pc.list_parent_indices(column).to_numpy() if lists else np.arange(rows.num_rows)
            hits = places >= 0
            if self.until_ms is not None and instants_ms is not None:
                hits &= instants_ms[of_rows] <= self.until_ms[places]
            found[of_rows[hits]] = self.owners[places[hits]]
        return found

    def counts(self, rows: pa.Table) -> dict[str, int]:
        """How many rows are of each request; of those that have any."""
        whose = self.whose(rows)
        counts = np.bincount(whose[whose >= 0], minlength=len(self.marks))
        return {mark: int(count) for mark, count in zip(self.marks, counts, strict=True) if count}


def _earliest_ms(rows: pa.Table) -> NDArray[np.int64]:
    """The earliest instant in each row, shape (n,); of a row without one, before all."""
    earliest = pa.chunked_array([pa.nulls(rows.num_rows, pa.int64())])
    for column in rows.columns:
        if pa.types.is_timestamp(column.type):
            instants_ms = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
            earliest = pc.min_element_wise(earliest, instants_ms)
    return np.asarray(earliest.fill_null(_BEFORE_ALL))


def erase(work_dir: Path, names: Names) -> int:
    """Take people out of every training set; how many rows."""
    paths = sorted((work_dir / FOLDER).rglob("*.parquet"))
    found = dict(run_tasks(partial(_counted, names), paths))
    for folder in _folders(work_dir):
        _note(folder, {path: counts for path, counts in found.items() if counts and folder in path.parents})
    affected = [path for path, counts in found.items() if counts]
    for _ in run_tasks(partial(_rewrite, names), affected):
        pass
    for folder in _folders(work_dir):
        _count_anew(folder)
    return sum(sum(counts.values()) for counts in found.values())


def told(work_dir: Path) -> list[SetTold]:
    """What manifests tell of erasures."""
    sets = []
    for folder in _folders(work_dir):
        said = json.loads((folder / MANIFEST_FILE).read_text()).get(ERASURES)
        if said is None:
            continue
        rows: dict[str, int] = {}
        for counts in said["rows"].values():
            for mark, count in counts.items():
                rows[mark] = rows.get(mark, 0) + count
        at_ms = int(datetime.fromisoformat(said["at"]).timestamp() * 1000)
        sets.append(SetTold(folder, at_ms, rows, frozenset(said["digests_before"])))
    return sets


def _folders(work_dir: Path) -> list[Path]:
    return sorted(path.parent for path in (work_dir / FOLDER).glob(f"*/{MANIFEST_FILE}"))


def _counted(names: Names, path: Path) -> tuple[Path, dict[str, int]]:
    """Rows by request in one file."""
    return path, names.counts(pq.read_table(path, partitioning=None))


def _note(folder: Path, found: Mapping[Path, Mapping[str, int]]) -> None:
    """Step 1."""
    if not found:
        return
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    said = manifest.setdefault(ERASURES, {"rows": {}, "digests_before": []})
    if not said["digests_before"] or said.get("is_done"):
        before = {name: value for name, value in manifest.items() if name != ERASURES or said["digests_before"]}
        said["digests_before"].append(digest_of_manifest(before))
    said |= {"at": datetime.now(UTC).isoformat(), "is_done": False}
    for path, counts in found.items():
        said["rows"].setdefault(str(path.relative_to(folder)), {}).update(counts)
    _replace(folder / MANIFEST_FILE, manifest)


def _rewrite(names: Names, path: Path) -> None:
    """Step 2."""
    rows = pq.read_table(path, partitioning=None)
    kept = rows.filter(pa.array(names.whose(rows) < 0))
    draft = path.with_suffix(".erasing")
    write_rows(kept, draft)
    draft.replace(path)


def _count_anew(folder: Path) -> None:
    """Step 3, of a set that is noted and not done."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text())
    if manifest.get(ERASURES, {}).get("is_done", True):
        return
    for split in manifest["rows"]:
        files = sorted((folder / f"split={split}").glob("*.parquet"))
        manifest["rows"][split] = sum(pq.read_metadata(path).num_rows for path in files)
    if "files" in manifest:
        manifest["files"] = {name: digest_of(folder / name) for name in manifest["files"]}
    manifest[ERASURES]["is_done"] = True
    _replace(folder / MANIFEST_FILE, manifest)


def _replace(path: Path, manifest: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".erasing")
    draft.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    draft.replace(path)
