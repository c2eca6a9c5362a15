"""Strip the rows of profiles that turned out to be a child's after they were stored as a grown-up's (spec 8.5).

input   `privacy.profiles`: who was described as a grown-up's first, and as a child's later
does    takes what leads to the child out of every layer, as an erasure does it
output  `bronze` and `silver` of as many rows as before; training sets and logged predictions without the rows; a signed
        receipt, which names the models that learnt from them and nobody else

    1. sessions are found in which nobody but such a child was seen
    2. training sets and logged predictions lose the rows, the online store the child's values, and the stream its
       checkpoint, if it names one of them
    3. files of bronze and silver with such rows are written anew, in every snapshot of the table's history
       (`lakehouse.history`), the old ones deleted at once. Last, because they alone tell which sessions were theirs
    4. the receipt is written, of all that histories and manifests tell since the one before

What is made of these rows decides for itself, and uses them no more from the moment the profile is known (`features.
decision`): tables of features with the next build. A run that began before may put some back; the next maintenance
finds them. A killed one is gone on with by the next; logged predictions that it took out are in no receipt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.decision import CONSENT_COLUMNS, Registries
from features.entities import entity
from features.groups import GROUPS
from features.late_children import LateChildren
from features.profiles import PERSON_IDS, STILL, VIEWER_TOKEN
from pipelines.cluster import run_tasks
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.history import files_of_history
from pipelines.lakehouse.scans import read_files
from pipelines.privacy import models, online, predictions, streamed, training_sets
from pipelines.privacy.from_tables import erasure_facts, put_in_place, told_by_tables
from pipelines.privacy.people import links
from pipelines.privacy.person import Person
from pipelines.privacy.receipts import checked, folder_of, of_sets, of_tables, write_signed
from pipelines.privacy.training_sets import Names
from pipelines.privacy.whereabouts import Found, tables_of_people, whereabouts
from pipelines.secrets import pseudonymizer, receipt_key
from pipelines.settings import Settings
from pipelines.stream.finishing import SESSIONS
from pipelines.viewing import KnownPeople

LAYERS = ("bronze", "silver")
LATE = "children found late"
"""What histories and manifests call them, in the place of a request's mark."""
_RECEIPT = "children-found-late-"
_TIME, _PLAYBACK_TIME = "event_timestamp", "first_event_at"


@dataclass(frozen=True)
class Stripped:
    """A file that had such rows, the one in its place, and how many rows lost their ids."""

    stale: DataFile
    fresh: DataFile
    rows: int


def strip_late_children(settings: Settings, lakehouse: Lakehouse, made: lineage.Run, now_ms: int) -> dict[str, int]:
    """Strip what there is to be stripped; counts of what that was.

    Raises CommitRefusedError when the catalog takes no commit.
    """
    known, hasher = KnownPeople.now(lakehouse).known, pseudonymizer(settings)
    tables = tables_of_people(lakehouse)
    names = names_of(known, tables, now_ms)
    if not len(names.ids):
        return {}
    person = Person(profile_ids=frozenset(known.profiles.found_late().to_pylist()))
    in_sets = training_sets.erase(settings.work_dir, names)
    predicted = predictions.erase(settings.predictions_folder, names).get(LATE, 0)
    served = predictions.erase(settings.served_features_folder, names).get(LATE, 0)
    did = {
        f"training sets: rows of {LATE}, deleted": in_sets,
        f"predictions: rows of {LATE}, deleted": predicted,
        f"served features: rows of {LATE}, deleted": served,
        f"online store: values of {LATE}, deleted": online.erase_values(settings, _children_now(names), _personal()),
        f"stream: files of a checkpoint with rows of {LATE}, deleted": streamed.discard_with(
            settings.stream_folder, names
        ),
    }
    children = LateChildren(known, hasher, now_ms)
    for name, table in tables.items():
        did[f"{name}: rows of {LATE}, stripped"] = _strip(table, person, children, made) if _has_ids(table) else 0
    receipt = _write_receipt(settings, lakehouse, predicted + served)
    if receipt is not None:
        did[f"models that learnt from {LATE}"] = len(receipt)
    return {what: count for what, count in did.items() if count}


def names_of(known: Registries, tables: Mapping[str, Table], now_ms: int) -> Names:
    """The profiles that turned out to be a child's and the sessions that were theirs alone, each until it was one's."""
    late = known.profiles.found_late()
    until_ms = dict(zip(late.to_pylist(), known.profiles.child_until_ms(late, now_ms).tolist(), strict=True))
    seen_with: dict[str, set[str]] = {}
    theirs = links(tables, Person(profile_ids=frozenset(until_ms)))
    sessions = frozenset(one.session_id for one in theirs if one.session_id is not None)
    for one in links(tables, Person(session_ids=sessions)):
        if one.session_id is not None and one.profile_id is not None:
            seen_with.setdefault(one.session_id, set()).add(one.profile_id)
    alone = {name: max(map(until_ms.__getitem__, who)) for name, who in seen_with.items() if who <= set(until_ms)}
    whole = until_ms | alone
    ends_ms = np.array(list(whole.values()), np.int64)
    return Names((LATE,), pa.array(list(whole), pa.string()), np.zeros(len(whole), np.int64), ends_ms)


def _has_ids(table: Table) -> bool:
    has = set(table.schema().column_names)
    layer = table.name()[0]
    return layer in LAYERS and {"profile_id", "is_kids"} <= has and bool(has & {_TIME, _PLAYBACK_TIME})


def _strip(table: Table, person: Person, children: LateChildren, made: lineage.Run) -> int:
    """Step 3 of one table; how many rows."""
    found = whereabouts(table, person, files_of_history(table)).files
    stripped = [one for one in run_tasks(Stripping(TableFiles.of(table), children), found) if one is not None]
    if stripped:
        said = erasure_facts(table, [LATE], {one.stale.file_path: np.array([one.rows]) for one in stripped})
        put_in_place(table, {one.stale.file_path: one.fresh for one in stripped}, person, made, said)
    return sum(one.rows for one in stripped)


def _children_now(names: Names) -> list[str]:
    """Profiles and sessions that are a child's still."""
    assert names.until_ms is not None, "of children it is known until when"
    return [str(name) for name in names.ids.filter(pa.array(names.until_ms == STILL)).to_pylist()]


def _personal() -> list[str]:
    """What is made of people's rows and stored online."""
    return [SESSIONS, *(group.stored_as(key) for group in GROUPS for key in group.entities if entity(key).is_personal)]


def _write_receipt(settings: Settings, lakehouse: Lakehouse, predicted: int) -> list[models.Learnt] | None:
    """Step 4; the models that learnt from them, None where there is nothing to tell."""
    since_ms = _told_until_ms(folder_of(settings.work_dir))
    told = [one for one in told_by_tables(lakehouse) if one.at_ms > since_ms]
    in_sets = [one for one in training_sets.told(settings.work_dir) if one.at_ms > since_ms]
    tables, sets = of_tables(told, LATE), of_sets(in_sets, LATE)
    if not (tables or sets or predicted):
        return None
    learnt = models.learnt_from(models.trained(settings), LATE, told, in_sets, lakehouse)
    now = datetime.now(UTC)
    content = {
        "format": 1,
        "tombstone": None,
        "about": "profiles that turned out to be children's",
        "finished_at": now.isoformat(),
        "tables": tables,
        "training_sets": sets,
        "predictions": predicted,
        "models": [one.as_dict() for one in learnt],
    }
    path = folder_of(settings.work_dir) / f"{_RECEIPT}{now:%Y%m%dT%H%M%S%f}.json"
    write_signed(content, path, receipt_key(settings))
    return learnt


def _told_until_ms(folder: Path) -> float:
    """What happened by then is in a receipt."""
    written = sorted(folder.glob(f"{_RECEIPT}*.json"))
    if not written:
        return 0
    return datetime.fromisoformat(checked(written[-1]).content["finished_at"]).timestamp() * 1000


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
