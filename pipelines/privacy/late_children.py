"""Strip the rows of profiles that turned out to be a child's after they were stored as a grown-up's (spec 8.5).

input   `privacy.profiles`: who was described as a grown-up's first, and as a child's later
does    writes the files with such rows anew, without what leads to the child, in every snapshot of the table's
        history, as an erasure does it (`lakehouse.history`), and deletes the old ones at once
output  `bronze` and `silver`, of as many rows as before

What is made of these rows decides for itself, and uses them no more from the moment the profile is known (`features.
decision`); this takes out their ids. A run that began before may put some back; the next maintenance finds them.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile

from features.decision import CONSENT_COLUMNS, Registries
from features.late_children import LateChildren
from features.profiles import PERSON_IDS, VIEWER_TOKEN
from features.pseudonyms import Pseudonymizer
from pipelines.cluster import run_tasks
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.history import files_of_history
from pipelines.lakehouse.scans import read_files
from pipelines.privacy.from_tables import put_in_place
from pipelines.privacy.person import Person
from pipelines.privacy.whereabouts import Found, tables_of_people, whereabouts
from pipelines.viewing import KnownPeople

LAYERS = ("bronze", "silver")
_TIME, _PLAYBACK_TIME = "event_timestamp", "first_event_at"


@dataclass(frozen=True)
class Stripped:
    """A file that had such rows, the one in its place, and how many rows lost their ids."""

    stale: DataFile
    fresh: DataFile
    rows: int


def strip_late_children(lakehouse: Lakehouse, hasher: Pseudonymizer, made: lineage.Run, now_ms: int) -> dict[str, int]:
    """Strip what there is to be stripped; rows by table. Raises CommitRefusedError when the catalog takes no commit."""
    known = KnownPeople.now(lakehouse).known
    person = found_late(known)
    if not person.profile_ids:
        return {}
    children = LateChildren(known, hasher, now_ms)
    did = {}
    for name, table in tables_of_people(lakehouse).items():
        has = set(table.schema().column_names)
        if name.partition(".")[0] in LAYERS and {"profile_id", "is_kids"} <= has and has & {_TIME, _PLAYBACK_TIME}:
            found = whereabouts(table, person, files_of_history(table)).files
            stripped = [one for one in run_tasks(Stripping(TableFiles.of(table), children), found) if one is not None]
            if stripped:
                put_in_place(table, {one.stale.file_path: one.fresh for one in stripped}, person, made)
                did[name] = sum(one.rows for one in stripped)
    return did


def found_late(known: Registries) -> Person:
    """The profiles that turned out to be a child's, as one person."""
    return Person(profile_ids=frozenset(known.profiles.found_late().to_pylist()))


@dataclass(frozen=True)
class Stripping:
    """The work on one table's files, each in a Ray task."""

    table: TableFiles
    children: LateChildren

    def __call__(self, found: Found) -> Stripped | None:
        """Write a file anew with its late children stripped; None where it has none.

        Raises LakehouseError if it would hold another number of rows than before.
        """
        path, has = found.file.file_path, self.table.arrow_schema.names
        time = _TIME if _TIME in has else _PLAYBACK_TIME
        asked = [*PERSON_IDS, VIEWER_TOKEN, "is_kids", *CONSENT_COLUMNS.values(), time]
        columns = list(dict.fromkeys([*found.columns, *(name for name in asked if name in has)]))
        rows = read_files(self.table, [path], columns)
        rows = rows.rename_columns([_TIME if name == time else name for name in rows.column_names])
        is_late = self.children.among(rows)
        if not is_late.any():
            return None
        parts = [self.children.stripped(rows.filter(pa.array(is_late))), rows.filter(pa.array(~is_late))]
        places = np.argsort(np.concatenate([np.flatnonzero(is_late), np.flatnonzero(~is_late)]))
        rows = pa.concat_tables(parts).unify_dictionaries().take(pa.array(places)).rename_columns(columns)
        files = write_files(self.table, rows)
        if len(files) != 1 or files[0].record_count != found.file.record_count:
            raise LakehouseError(
                f"{self.table.metadata.location}: {found.file.record_count} rows on record, {rows.num_rows} to be "
                f"written, in {len(files)} files; nothing was replaced. Look at {path}, which may be damaged"
            )
        return Stripped(found.file, files[0], int(is_late.sum()))
