"""Lineage.

input   the snapshots of the lakehouse's tables, each of which says what it was made from
does    walks a table back through the tables it was made from, to the offsets in Kafka
output  what made a snapshot, and what all of the table was made from

However long a history is, it is told as one stretch: how many commits of which stations, and the ranges of offsets that
they have read together. What expiry has forgotten is said to be so; how far Kafka had been read is in every snapshot.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pyiceberg.table.snapshots import Snapshot

from pipelines.errors import ReelError, UsageError
from pipelines.kafka.offsets import Progress
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import PROGRESS
from pipelines.lakehouse.lineage import Commit, Inputs
from pipelines.lakehouse.offset_ranges import union
from pipelines.settings import Settings

NEAREST = 3
FIRST = 1  # the sequence number of a table's first snapshot

Snapshots = Mapping[int, Snapshot]
OpenRanges = tuple[tuple[int | None, int], ...]
"""[start, end) each, ascending; the first may start at None: nobody knows any more where."""


class UnknownTableError(UsageError):
    """A table that was asked for does not exist."""

    def __init__(self, table: str, known: Sequence[str]) -> None:
        close = difflib.get_close_matches(table, known, n=NEAREST, cutoff=0.5)
        there_is = f"did you mean {' or '.join(close)}?" if close else f"it has: {', '.join(known) or 'none'}"
        super().__init__(f"the lakehouse has no table {table!r}; {there_is}")


class UnknownSnapshotError(UsageError):
    """A snapshot that was asked for is not, or no longer, in the table's history."""

    def __init__(self, table: str, snapshot_id: int, known: Sequence[Snapshot]) -> None:
        super().__init__(
            f"{table} has no snapshot {snapshot_id}, or has forgotten it; it has {len(known)}, from "
            f"{known[0].snapshot_id} to {known[-1].snapshot_id}; leave --snapshot away for the newest"
        )


class NothingMadeError(ReelError):
    """A table without a snapshot."""

    def __init__(self, table: str) -> None:
        super().__init__(f"{table} is empty: nothing was ever committed to it")


@dataclass(frozen=True)
class Stretch:
    """What a table gained after one of its snapshots (None: all there is) up to another, and what that was made from.

    `notes` say what cannot be told. `commits` are the newest first.
    """

    table: str
    after: int | None
    upto: int
    commits: tuple[Commit, ...] = ()
    cluster_id: str | None = None
    offsets: Mapping[str, Mapping[int, OpenRanges]] = field(default_factory=dict)
    sources: tuple["Stretch", ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stations(self) -> list[str]:
        """The stations that committed."""
        return sorted({commit.station for commit in self.commits if commit.station is not None})

    @property
    def code_versions(self) -> list[str]:
        """The code that committed, the newest first."""
        return list(dict.fromkeys(one.code_version for one in self.commits if one.code_version is not None))

    @property
    def since(self) -> datetime | None:
        """When the oldest of the commits was made."""
        return self.commits[-1].at if self.commits else None


@dataclass(frozen=True)
class Lineage:
    """How a snapshot of a table came to be.

    upkeep     maintenance on top of the commit that made it, the newest first
    made       that commit; None when it is forgotten
    made_from  what that commit alone was made from
    history    what all there is in the table, as of this snapshot, was made from
    """

    table: str
    snapshot_id: int
    at: datetime
    upkeep: tuple[Commit, ...]
    made: Commit | None
    made_from: Stretch | None
    history: Stretch


def walk(settings: Settings, table: str, snapshot_id: int | None = None) -> Lineage:
    """How a snapshot of `table` came to be; the newest, when none is named.

    Raises UnknownTableError, UnknownSnapshotError, or NothingMadeError for a table without any.
    """
    lakehouse = Lakehouse.open(settings)
    known = lakehouse.names()
    found = lakehouse.existing(table) if table in known else None
    if found is None:
        raise UnknownTableError(table, known)
    newest = found.current_snapshot()
    if newest is None:
        raise NothingMadeError(table)
    walker = _Walker(lakehouse)
    snapshots = walker.snapshots(table)
    chosen = newest.snapshot_id if snapshot_id is None else snapshot_id
    if chosen not in snapshots:
        in_order = sorted(snapshots.values(), key=lambda snapshot: snapshot.sequence_number or 0)
        raise UnknownSnapshotError(table, chosen, in_order)

    upkeep: list[Commit] = []
    made: Commit | None = None
    for commit in map(Commit.of, _ancestors(snapshots, chosen)):
        if not commit.is_upkeep(table):
            made = commit
            break
        upkeep.append(commit)
    made_from = walker.commit(table, made) if made is not None else None
    history = walker.stretch(table, None, chosen)
    return Lineage(table, chosen, Commit.of(snapshots[chosen]).at, tuple(upkeep), made, made_from, history)


def _ancestors(snapshots: Snapshots, snapshot_id: int | None) -> Iterator[Snapshot]:
    """The snapshot and those before it, back to the first, or to one whose parent has expired."""
    while snapshot_id is not None and snapshot_id in snapshots:
        yield snapshots[snapshot_id]
        snapshot_id = snapshots[snapshot_id].parent_snapshot_id


class _Walker:
    """Tells stretches of the tables of one lakehouse, each once."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse
        self._tables: dict[str, Snapshots] = {}
        self._told: dict[tuple[str, int | None, int], Stretch] = {}

    def snapshots(self, table: str) -> Snapshots:
        """All snapshots that the table still has, by id; none for a table that is not in this lakehouse."""
        if table not in self._tables:
            found = self._lakehouse.existing(table)
            self._tables[table] = (
                {one.snapshot_id: one for one in found.metadata.snapshots} if found is not None else {}
            )
        return self._tables[table]

    def commit(self, table: str, made: Commit) -> Stretch:
        """What one commit brought to `table`."""
        inputs = made.inputs or Inputs()
        return Stretch(
            table,
            made.parent_id,
            made.snapshot_id,
            commits=(made,),
            cluster_id=inputs.cluster_id,
            offsets=inputs.offsets,
            sources=self._sources(_read(table, [inputs]), frozenset({table})),
            notes=(_silent(made),) if made.inputs is None else (),
        )

    def stretch(self, table: str, after: int | None, upto: int, within: frozenset[str] = frozenset()) -> Stretch:
        """What `table` gained; `within` are the tables that this is told for."""
        if table in within:
            return Stretch(table, after, upto, notes=("told above",))
        key = (table, after, upto)
        if key not in self._told:
            self._told[key] = self._tell(Stretch(table, after, upto), within)
        return self._told[key]

    def _tell(self, stretch: Stretch, within: frozenset[str]) -> Stretch:
        table, after, upto = stretch.table, stretch.after, stretch.upto
        snapshots = self.snapshots(table)
        if not snapshots:
            return replace(stretch, notes=("not a table of this lakehouse",))
        if upto not in snapshots:
            return replace(stretch, notes=(f"snapshot {upto} has expired, so nothing before it can be told",))
        commits, forgotten = _commits(table, snapshots, after, upto)
        inputs = [commit.inputs for commit in commits if commit.inputs is not None]
        offsets: Mapping[str, Mapping[int, OpenRanges]] = union(one.offsets for one in inputs)
        consumed = _progress(snapshots[upto])
        read = _read(table, inputs)
        if forgotten is not None and after is None:
            offsets = _opened(offsets, consumed, Progress(None, {}))
            # A table that follows another has read all of that, from its beginning.
            read = {**_recorded_as_read(snapshots[upto]), **{name: (None, to) for name, (_, to) in read.items()}}
        elif forgotten is not None and after is not None and after in snapshots:
            offsets = _opened(offsets, consumed, _progress(snapshots[after]))
        return replace(
            stretch,
            commits=tuple(commits),
            cluster_id=consumed.cluster_id,
            offsets=offsets,
            sources=self._sources(read, within | {table}),
            notes=(forgotten,) if forgotten is not None else (),
        )

    def _sources(self, read: Mapping[str, tuple[int | None, int]], within: frozenset[str]) -> tuple[Stretch, ...]:
        return tuple(self.stretch(name, *read[name], within) for name in sorted(read))


def _commits(table: str, snapshots: Snapshots, after: int | None, upto: int) -> tuple[list[Commit], str | None]:
    """The commits of a stretch that brought something, the newest first, and what of it is forgotten, if anything."""
    commits: list[Commit] = []
    snapshot = snapshots[upto]
    for snapshot in _ancestors(snapshots, upto):
        if snapshot.snapshot_id == after:
            return commits, None
        commit = Commit.of(snapshot)
        if commit.is_upkeep(table):
            continue
        if commit.inputs is None:
            return commits, f"{_silent(commit)}; neither is told what came before it"
        commits.append(commit)
        if after is None and commit.is_made_anew:
            return commits, None
    # Some catalogs leave a snapshot the name of a parent that has expired, others make it one without.
    is_whole = snapshot.parent_snapshot_id == after if after is not None else snapshot.sequence_number == FIRST
    return commits, None if is_whole else f"what came before snapshot {snapshot.snapshot_id} has expired"


def _silent(commit: Commit) -> str:
    return f"snapshot {commit.snapshot_id} does not say what it was made from"


def _progress(snapshot: Snapshot) -> Progress:
    """How far Kafka had been read."""
    return Progress.from_json(_recorded(snapshot))


def _recorded(snapshot: Snapshot) -> dict[str, object]:
    found: dict[str, object] = json.loads((snapshot.summary[PROGRESS] if snapshot.summary else None) or "{}")
    return found


def _recorded_as_read(snapshot: Snapshot) -> dict[str, tuple[None, int]]:
    """Tables that had been read, and up to which snapshot, as it is recorded to go on from there."""
    recorded = _recorded(snapshot)
    places = {"bronze.events": recorded.get("bronze_snapshot")}
    for kind in ("sources", "inputs"):
        named = recorded.get(kind, {})
        places |= named if isinstance(named, dict) else {}
    return {name: (None, place) for name, place in places.items() if isinstance(place, int)}


def _opened(
    known: Mapping[str, Mapping[int, OpenRanges]], upto: Progress, after: Progress
) -> dict[str, dict[int, OpenRanges]]:
    """Ranges that are known, led by what was read before them: from where the stretch began, if that is known."""
    opened = {topic: dict(partitions) for topic, partitions in known.items()}
    for topic, partitions in upto.offsets.items():
        for partition, end in sorted(partitions.items()):
            ranges = opened.setdefault(topic, {}).get(partition, ())
            start = after.offsets.get(topic, {}).get(partition)
            first_end = ranges[0][1] if ranges else end
            if start != first_end:
                opened[topic][partition] = ((start, first_end), *ranges[1:])
    return {topic: partitions for topic, partitions in sorted(opened.items()) if partitions}


def _read(table: str, newest_first: Sequence[Inputs]) -> dict[str, tuple[int | None, int]]:
    """What commits have read of other tables together: after which snapshot (None: as a whole) up to which."""
    read: dict[str, tuple[int | None, int]] = {}
    for inputs in newest_first:
        whole = {name: (None, snapshot_id) for name, snapshot_id in inputs.tables.items()}
        for name, (after, upto) in {**inputs.appended, **whole}.items():
            if name not in read:
                read[name] = (after, upto)
            elif read[name][0] is not None:
                read[name] = (after, read[name][1])
    read.pop(table, None)
    return read
