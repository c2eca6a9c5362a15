"""The files of an export: the data as they are read, then the schema that documents them and the page to read.

`export.json` is one object:

    format    "reel-privacy-export/1"
    made_at   when, ISO 8601 in UTC
    held      a list of places in which something is held: `layer`, `place` (a table, a training set, a group of the
              online store), `files_touched` and `files_total` of the place, and `rows`, one object each
    rows      how many rows that are

The schema (JSON Schema 2020-12) says of every place which fields its rows have, of which types, and what they mean.
"""

import json
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pipelines.privacy.export_page import ROWS_SHOWN, PlaceShown, page
from pipelines.privacy.field_docs import meaning
from pipelines.privacy.holdings import Holding
from pipelines.privacy.readable import Row

FORMAT = "reel-privacy-export/1"
DATA, SCHEMA, PAGE = "export.json", "export.schema.json", "export.html"
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


@dataclass
class _Place:
    """What was written of a place."""

    held: Holding
    rows: int = 0
    first: list[Row] = field(default_factory=list)
    types: dict[str, set[str]] = field(default_factory=dict)  # of each field, as far as it was seen

    def see(self, row: Row) -> None:
        """A row that was written."""
        self.rows += 1
        if self.rows <= ROWS_SHOWN:
            self.first.append(row)
        for name, value in row.items():
            self.types.setdefault(name, set()).add(_TYPES[type(value)])


class ExportWriter:
    """Writes into a folder; under their names the files appear when all is written, and not at all after an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: list[_Place] = []
        self._made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stream = self._opened(DATA)
        head = json.dumps({"format": FORMAT, "made_at": self._made_at})
        self._stream.write(head[:-1] + ', "held": [')
        return self

    def add(self, held: Holding) -> int:
        """Write the rows of a place as they are read; how many. A place without rows is left out."""
        rows = iter(held.rows)
        first = next(rows, None)
        if first is None:
            return 0
        place = _Place(held)
        head: dict[str, str | int] = {"layer": held.layer, "place": held.place}
        head |= {"files_touched": held.files_touched, "files_total": held.files_total}
        self._stream.write((",\n" if self._places else "\n") + json.dumps(head)[:-1] + ', "rows": [')
        for row in chain([first], rows):
            self._stream.write(("" if not place.rows else ",") + "\n" + json.dumps(row, ensure_ascii=False))
            place.see(row)
        self._stream.write("]}")
        self._places.append(place)
        return place.rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.write(f'], "rows": {sum(one.rows for one in self._places)}}}\n')
        self._stream.close()
        if kind is not None:
            self._draft(DATA).unlink()
            return
        for name, text in ((SCHEMA, self._schema()), (PAGE, self._page())):
            with self._opened(name) as stream:
                stream.write(text)
        for name in (DATA, SCHEMA, PAGE):
            self._draft(name).replace(self._folder / name)

    def _opened(self, name: str) -> TextIO:
        """A new file that nobody else may read."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return open(os.open(self._draft(name), flags, stat.S_IRUSR | stat.S_IWUSR), "w", encoding="utf-8")

    def _draft(self, name: str) -> Path:
        return self._folder / f".{name}.{os.getpid()}"

    def _page(self) -> str:
        return page(self._made_at, [PlaceShown(one.held, one.rows, one.first, list(one.types)) for one in self._places])

    def _schema(self) -> str:
        return json.dumps(_schema(self._places), indent=1)


def _schema(places: list[_Place]) -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    properties: dict[str, Any] = {
        "layer": {"type": "string", "description": "Part of Reel."},
        "place": {"type": "string", "description": "Table, training set, or group of the online store."},
        "files_touched": {**count, "description": "Files that could hold the person, and so were opened."},
        "files_total": {**count, "description": "Files of the place; 0 where it has none."},
        "rows": {"type": "array", "items": {"type": "object"}},
    }
    of_places = [
        {
            "if": {"properties": {"place": {"const": one.held.place}}},
            "then": {"properties": {"rows": {"items": {"$ref": f"#/$defs/{number}"}}}},
        }
        for number, one in enumerate(places)
    ]
    held = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    said = {
        "format": {"const": FORMAT},
        "made_at": {"type": "string", "description": "When the export was made, ISO 8601 in UTC."},
        "held": {"type": "array", "items": held | ({"allOf": of_places} if of_places else {})},
        "rows": {**count, "description": "Rows of all places."},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What Reel holds of one person",
        "description": "Instants are ISO 8601 in UTC; a field without a value is left out; bytes that are no text are "
        '{"base64": ...}; "another person" stands for the id of somebody else.',
        "type": "object",
        "properties": said,
        "required": list(said),
        "additionalProperties": False,
        "$defs": {str(number): _row_schema(one) for number, one in enumerate(places)},
    }


def _row_schema(place: _Place) -> dict[str, Any]:
    fields = {
        name: {"type": sorted(types), "description": meaning(place.held.place, name)}
        for name, types in place.types.items()
    }
    return {"title": place.held.place, "type": "object", "properties": fields, "additionalProperties": False}
