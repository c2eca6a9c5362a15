"""What is new in bronze, for which table: planned once for all tables, from the manifests alone.

Every silver table records the bronze snapshot up to which it has read (`bronze_snapshot` of its progress). A table
without news is not committed to for that until what it has recorded is old, so that a small run makes few commits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from pipelines.lakehouse.scans import ExpiredSnapshotError, appended_files, live_files, string_bounds, upper_instant_ms
from pipelines.silver.ids import IdRange
from pipelines.silver.targets import Readable, Target

BRONZE_SNAPSHOT = "bronze_snapshot"
STALE_MS = 15 * 60 * 1000


@dataclass(frozen=True)
class BronzeFile:
    """One data file."""

    path: str
    rows: int
    ids: IdRange


@dataclass(frozen=True)
class Part:
    """Bronze files of one event. `has_waited`: they were read before, and only rows that then waited are wanted."""

    event: Readable
    files: tuple[BronzeFile, ...]
    has_waited: bool = False

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)


@dataclass
class BronzeFiles:
    """Bronze as it stands, its files by event, each part of its history looked through once."""

    table: Table
    _appended: dict[int | None, dict[str, list[DataFile]]] = field(default_factory=dict)
    _live: dict[str, list[DataFile]] | None = None

    def later_of(self, *snapshots: int | None) -> int | None:
        """The latest of some snapshots of bronze; None when none is given.

        Raises ExpiredSnapshotError when none of them is in bronze's history any more.
        """
        recorded = [one for one in snapshots if one is not None]
        if not recorded:
            return None
        snapshot = self.table.current_snapshot()
        while snapshot is not None:
            if snapshot.snapshot_id in recorded:
                return snapshot.snapshot_id
            parent = snapshot.parent_snapshot_id
            snapshot = self.table.snapshot_by_id(parent) if parent is not None else None
        raise ExpiredSnapshotError(".".join(self.table.name()), recorded[0])

    def age_ms(self, snapshot_id: int) -> int:
        """How much older than the newest a snapshot of bronze is."""
        newest, one = self.table.current_snapshot(), self.table.snapshot_by_id(snapshot_id)
        return newest.timestamp_ms - one.timestamp_ms if newest is not None and one is not None else 0

    def new_for(self, target: Target, after: int | None) -> list[Part]:
        """Files of the target's events that were appended after the snapshot."""
        if after not in self._appended:
            self._appended[after] = self._by_event(appended_files(self.table, after))
        by_event = self._appended[after]
        return [
            Part(event, tuple(map(self._file, by_event[event.name])))
            for event in target.events
            if event.name in by_event
        ]

    def waiting_for(self, target: Target, since_ms: int, fresh: Sequence[Part]) -> list[Part]:
        """Older files of the target's events that may hold rows which came in undescribed at `since_ms` or later."""
        if self._live is None:
            self._live = self._by_event(live_files(self.table))
        already = {file.path for part in fresh for file in part.files}
        parts = []
        for event in target.events:
            files = tuple(
                self._file(file)
                for file in self._live.get(event.name, [])
                if file.file_path not in already and self._may_wait(file, since_ms)
            )
            if files:
                parts.append(Part(event, files, has_waited=True))
        return parts

    def _may_wait(self, file: DataFile, since_ms: int) -> bool:
        newest_ms = upper_instant_ms(self.table, file, "ingested_at")
        return self._may_be_undescribed(file) and (newest_ms is None or newest_ms >= since_ms)

    def _file(self, file: DataFile) -> BronzeFile:
        return BronzeFile(file.file_path, file.record_count, id_range(self.table, file))

    def _may_be_undescribed(self, file: DataFile) -> bool:
        least = (file.lower_bounds or {}).get(self.table.schema().find_field("profile_described").field_id)
        return least == b"\x00"

    def _by_event(self, files: Iterable[DataFile]) -> dict[str, list[DataFile]]:
        found: dict[str, list[DataFile]] = {}
        source = self.table.schema().find_field("event_name").field_id
        positions = {
            spec_id: position
            for spec_id, spec in self.table.specs().items()
            for position, one in enumerate(spec.fields)
            if one.source_id == source and isinstance(one.transform, IdentityTransform)
        }
        for file in files:
            if file.record_count:
                found.setdefault(str(file.partition[positions[file.spec_id]]), []).append(file)
        return found


def id_range(table: Table, file: DataFile) -> IdRange:
    """The bounds that Iceberg keeps of the event ids in a file."""
    return IdRange(*(string_bounds(table, file, "event_id") or (None, None)))


def groups(parts: Sequence[Part], rows_per_group: int) -> Iterator[tuple[Part, ...]]:
    """The parts cut at file ends into groups of about `rows_per_group` rows."""
    group: list[Part] = []
    rows = 0
    for part in parts:
        taken: list[BronzeFile] = []
        for file in part.files:
            if rows and rows + file.rows > rows_per_group:
                yield (*group, *_some(part, taken))
                group, taken, rows = [], [], 0
            taken.append(file)
            rows += file.rows
        group += _some(part, taken)
    if group:
        yield tuple(group)


def _some(part: Part, files: Sequence[BronzeFile]) -> list[Part]:
    return [replace(part, files=tuple(files))] if files else []
