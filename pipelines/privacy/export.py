"""Export: access and portability (GDPR, articles 15 and 20).

input   a plain user id; every layer, of which only files that can hold the person are read
does    1. finds every pseudonym of the person  2. reads their rows place by place  3. writes each as it is read
output  `export.json` with all of it, `export.schema.json` that documents it, `export.html` to read

Only the person's own ids are in it, and their plain id is not: who is whom stands nowhere in Reel. An export leaves
Reel with its files, which are for their owner's eyes (mode 0600): no erasure finds them, so delete them when delivered.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.errors import ReelError
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.privacy.export_files import ExportWriter
from pipelines.privacy.holdings import holdings
from pipelines.privacy.people import find_people
from pipelines.report import timed
from pipelines.secrets import pseudonymizer
from pipelines.settings import Settings

STATION = "privacy-export"


class ExportNotWritten(ReelError):
    """The folder takes no export."""


@dataclass(frozen=True)
class LayerLooked:
    """What was looked into of one layer, and found there."""

    layer: str
    files_touched: int
    files_total: int
    rows: int

    @property
    def touched_words(self) -> str:
        """`3 / 120`; a dash where there are no files."""
        return f"{self.files_touched:,} / {self.files_total:,}" if self.files_total else "–"

    def with_more(self, files_touched: int, files_total: int, rows: int) -> "LayerLooked":
        """With another place of the layer."""
        return LayerLooked(
            self.layer, self.files_touched + files_touched, self.files_total + files_total, self.rows + rows
        )


@dataclass(frozen=True)
class Exported:
    """One export that was written."""

    folder: Path
    by_layer: tuple[LayerLooked, ...]
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """All that was found."""
        return sum(one.rows for one in self.by_layer)

    @property
    def files_touched(self) -> int:
        """Files that could hold the person, and so were opened."""
        return sum(one.files_touched for one in self.by_layer)

    @property
    def files_total(self) -> int:
        """Files there are."""
        return sum(one.files_total for one in self.by_layer)

    def as_dict(self) -> dict[str, object]:
        """As plain JSON types, for `--json`. Where nothing is held, nothing else is said."""
        layers = {
            one.layer: {"files_touched": one.files_touched, "files_total": one.files_total, "rows": one.rows}
            for one in self.by_layer
        }
        return {
            "folder": str(self.folder),
            "rows": self.rows,
            "layers": layers if self.rows else {},
            "seconds": round(self.seconds, 3),
        }


def export(settings: Settings, user: str, folder: Path | None = None) -> Exported:
    """Write all that is held of the user to `folder`, or to one of its own in the working directory.

    Raises ExportNotWritten, BrokenSealError for quarantine sealed with another key, and what a layer that cannot be
    read raises: an export is whole, or there is none.
    """
    with timed(STATION) as report, lineage.run(settings, STATION):
        lakehouse, hasher = Lakehouse.open(settings), pseudonymizer(settings)
        person = find_people(lakehouse, hasher, [user])[user]
        folder = folder or Path(f"export-{hasher.hash(user)[:12]}")
        looked: dict[str, LayerLooked] = {}
        try:
            with ExportWriter(folder) as files:
                for held in holdings(settings, lakehouse, person):
                    rows = files.add(held)
                    before = looked.get(held.layer, LayerLooked(held.layer, 0, 0, 0))
                    looked[held.layer] = before.with_more(held.files_touched, held.files_total, rows)
        except OSError as error:
            raise ExportNotWritten(
                f"the export cannot be written to {folder}: {error.strerror or error}; name another folder with --out"
            ) from None
        exported = Exported(folder, tuple(looked.values()))
        report.read = {"files": exported.files_total, "files touched": exported.files_touched}
        report.wrote = {"rows": exported.rows}
    return replace(exported, seconds=report.seconds)
