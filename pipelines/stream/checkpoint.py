"""State and offsets, together: one file that names everything else, put in its place in one step.

    1. every actor writes the rows that have come on its shelves since the last time, to files of their own
    2. what everybody knows (people, titles) is written, if it changed
    3. `checkpoint.json`, which names these files and the offsets that follow them, is written beside and renamed
    4. files that it does not name are deleted

A crash before step 3 leaves the checkpoint that was there; after it, the new one. The values of all that was read by
then are in the online store before step 1; those that are written after it are written again by whoever goes on from
the checkpoint, as the same whole values. So nothing is lost and nothing counts twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from features.purposes import Purpose
from pipelines.kafka.offsets import Offsets, Progress
from pipelines.stream.files import RowFile, read_rows, replace_text
from pipelines.stream.shelves import ShelfName

FILE = "checkpoint.json"
VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """What `checkpoint.json` says.

    `number` grows by one; `declared`: what the values mean; `erasures`: the newest that were known
    (`lakehouse.erasures`).
    """

    number: int
    base: str
    declared: str
    erasures: str
    progress: Progress
    firsts: Mapping[str, Offsets]
    newest_ms: Offsets
    since_ms: int
    asked_ms: int
    told_ms: int  # scores of what was over by then are in Kafka
    shelves: Sequence[ShelfName]
    rows: Sequence[RowFile]
    known: Mapping[str, str]
    waiting: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Steps 3 and 4."""
        said = asdict(self) | {"version": VERSION, "progress": self.progress.to_json()}
        replace_text(folder / FILE, json.dumps(said))
        named = {FILE, *(file.name for file in self.rows), *self.known.values()}
        named |= {name for names in self.waiting.values() for name in names}
        for path in folder.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint | None":
        """The one there is; None without one, or if another version of Reel wrote it."""
        path = folder / FILE
        if not path.exists():
            return None
        said = json.loads(path.read_text())
        if said.pop("version") != VERSION:
            return None
        return cls(
            **said
            | {
                "progress": Progress.from_json(said["progress"]),
                "firsts": {name: _offsets(one) for name, one in said["firsts"].items()},
                "newest_ms": _offsets(said["newest_ms"]),
                "shelves": [
                    ShelfName(one["together"], tuple(one["bound_by"]), one["reach_ms"], Purpose(one["purpose"]))
                    for one in said["shelves"]
                ],
                "rows": [RowFile(**one) for one in said["rows"]],
            }
        )

    def tables(self, folder: Path) -> dict[str, pa.Table]:
        """What everybody knows."""
        return {name: read_rows(folder / file) for name, file in self.known.items()}

    def held(self, folder: Path) -> dict[str, pa.Table]:
        """Rows that wait for their profile, by event."""
        return {
            event: pa.concat_tables([read_rows(folder / name) for name in names], promote_options="default")
            for event, names in self.waiting.items()
        }


def discard(folder: Path) -> int:
    """Take the checkpoint away: it may hold rows of people who are being erased. How many files that were.

    A stream that runs finds out before and after it writes the next one, and begins anew from what `reel features`
    published.
    """
    files = sorted(folder.glob("*"), key=lambda path: path.name != FILE) if folder.exists() else []
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


@dataclass(frozen=True)
class SavedRows:
    """The rows of a checkpoint, for the actors."""

    folder: Path
    shelves: Sequence[ShelfName]
    rows: Sequence[RowFile]
    schemas: Mapping[str, pa.Schema]

    def __call__(self, shelf: ShelfName, table: str) -> pa.Table:
        """All rows of a shelf's table."""
        place = list(self.shelves).index(shelf)
        names = [file.name for file in self.rows if (file.shelf, file.table) == (place, table)]
        parts = [read_rows(self.folder / name) for name in names]
        return pa.concat_tables(parts) if parts else self.schemas[table].empty_table()


def _offsets(said: Mapping[str, Mapping[str, int]]) -> Offsets:
    return {topic: {int(one): at for one, at in partitions.items()} for topic, partitions in said.items()}
