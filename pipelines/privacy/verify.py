"""Verify.

input   a plain user id
does    looks for it, and for every pseudonym it may have, in every byte of every layer: tables with all that lies in
        their folders, training sets, the stream's checkpoint, logged predictions, whatever else is under work_dir or in
        a folder that the settings name, this machine's Ray logs (of a service beside it too, and of earlier runs), the
        online store, and what MLflow keeps: by its files, or of a server by its API
output  nothing found; or which files tell of the person; and what was not looked at

Files are looked at as they are, and unpacked besides: pages of Parquet with their dictionaries, Avro, zip and gzip. Of
profiles and sessions only those can be looked for that some table still knows to be the person's.
"""

import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO, load_file_io

from features.groups import GROUPS
from pipelines.cluster import logs_folders, run_tasks
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.orphans import all_files
from pipelines.privacy.online import is_there
from pipelines.privacy.people import find_people
from pipelines.privacy.person import Person
from pipelines.report import StationReport, timed
from pipelines.secrets import pseudonymizer
from pipelines.settings import Settings
from serving.online_store import open_online_store

STATION = "privacy-verify"
PLAIN, PSEUDONYM, BOUND = "the plain id", "a pseudonym", "a bound that begins as a pseudonym does"
# Of random bytes one in 16,000,000 is a given text of three; shorter ids are looked for where there is text only.
_SHORTEST_IN_BYTES = 8
_BOUND_BYTES = 15
_HEX = re.compile(rb"(?=([0-9a-f]{64}))")
# What is not Reel's: Kafka, and what simulators say they made.
_NOT_OURS = ("truth", "traffic.json")
_SQLITE = "sqlite:///"
_OTHER_LOGS = "Ray's logs of other machines"
_TEXT = {".json", ".txt", ".log", ".html", ".csv", ".yaml", ".yml", ".md", ".draft", ".py", ""}


@dataclass(frozen=True)
class Finding:
    """A file, or a part of a store, that tells of the person, and what of them it holds."""

    where: str
    what: str


@dataclass(frozen=True)
class Verified:
    """What was found, of how much that was looked at; `not_looked_at`: what there is besides."""

    found: tuple[Finding, ...]
    files: int
    size_bytes: int
    not_looked_at: tuple[str, ...]
    report: StationReport

    @property
    def words(self) -> str:
        """In one line."""
        looked = f"{self.files:,} files of {self.size_bytes:,} bytes looked at"
        return f"nothing found: {looked}" if not self.found else f"found in {len(self.found)} places: {looked}"


@dataclass(frozen=True)
class Sought:
    """What is looked for. Travels to Ray tasks."""

    plain: str
    pseudonyms: frozenset[bytes]

    @classmethod
    def of(cls, plain: str, person: Person) -> "Sought":
        """Everything that tells of a person."""
        return cls(plain, frozenset(name.encode() for names in person.ids.values() for name in names))

    @cached_property
    def _plain(self) -> re.Pattern[bytes]:
        return re.compile(rb"(?<![0-9A-Za-z])" + re.escape(self.plain.encode()) + rb"(?![0-9A-Za-z])")

    @cached_property
    def _beginnings(self) -> frozenset[bytes]:
        return frozenset(one[:_BOUND_BYTES] for one in self.pseudonyms)

    def in_bytes(self, raw: bytes, *, is_text: bool) -> str | None:
        """What of the person some bytes hold."""
        if any(match[1] in self.pseudonyms for match in _HEX.finditer(raw)):
            return PSEUDONYM
        looks_for_plain = is_text or len(self.plain) >= _SHORTEST_IN_BYTES
        return PLAIN if looks_for_plain and self._plain.search(raw) else None

    def in_values(self, values: Iterable[bytes]) -> str | None:
        """What of the person some values of a column hold."""
        return self.in_bytes(b"\0".join(values), is_text=True)

    def in_bounds(self, bounds: Iterable[bytes]) -> str | None:
        """Whether a bound, of which 16 characters are kept, tells of the person."""
        return BOUND if any(one[:_BOUND_BYTES] in self._beginnings for one in bounds) else None


def verify(settings: Settings, plain: str, also: Person | None = None) -> Verified:
    """Look for a person everywhere; `also` for pseudonyms that are known of them from elsewhere."""
    with timed(STATION) as report, lineage.run(settings, STATION):
        lakehouse = Lakehouse.open(settings)
        person = find_people(lakehouse, pseudonymizer(settings), [plain])[plain]
        sought = Sought.of(plain, Person.merged([person, also or Person()]))
        tables = [table for name in lakehouse.names() if (table := lakehouse.existing(name)) is not None]
        found: list[Finding] = []
        left = ["Kafka, which keeps messages for as long as its topics say", _OTHER_LOGS]
        files = size_bytes = 0
        looks = [(partial(_look, sought, table.io), all_files(table)) for table in tables]
        beside = _beside(settings, {path for _, paths in looks for path in paths})
        looks.append((partial(_look, sought, load_file_io({}, f"file://{settings.work_dir}")), beside))
        tasks = (run_tasks(look, paths) for look, paths in looks)
        every = chain(*tasks, _in_logs(sought, left), _in_mlflow(settings, sought, left))
        for path, size, what in every:
            files, size_bytes = files + 1, size_bytes + size
            found += [Finding(path, what)] if what is not None else []
        found += _in_online_store(settings, sought)
        report.read = {"files": files, "bytes": size_bytes}
        report.did = {"places that tell of the person": len(found)}
    ordered = tuple(sorted(found, key=lambda one: one.where))
    return Verified(ordered, files, size_bytes, tuple(left), report)


def _beside(settings: Settings, already: set[str]) -> list[str]:
    """Every file under work_dir, and wherever else settings put files, that is no table's, Kafka's or a simulator's."""
    bootstrap = settings.kafka.bootstrap_servers or ""
    kafka = [settings.kafka_folder, *(settings.work_dir / name for name in _NOT_OURS)]
    log = bootstrap.removeprefix("embedded:") if bootstrap.startswith("embedded:") else None
    paths = []
    for path in sorted({path for root in _roots(settings) for path in ([root] if root.is_file() else root.rglob("*"))}):
        is_kafka = any(path == one or one in path.parents for one in kafka) or (
            log is not None and str(path).startswith(log)
        )
        location = f"file://{path}"  # as Iceberg writes it: no character is escaped
        if path.is_file() and not is_kafka and location not in already:
            paths.append(location)
    return paths


def _roots(settings: Settings) -> Iterator[Path]:
    """Folders and files of ours, whichever of them there are."""
    yield settings.work_dir
    yield settings.stream_folder
    named = (settings.lineage.openlineage_file, settings.privacy.audit_heads_file)
    yield from (path for path in named if path is not None)
    if settings.tracking_uri.startswith(_SQLITE):
        database = Path(settings.tracking_uri.removeprefix(_SQLITE))
        yield from (database, database.parent / "mlflow_artifacts")
    if settings.online_store_url.startswith("lmdb://"):
        yield Path(settings.online_store_url.removeprefix("lmdb://"))


def _in_logs(sought: "Sought", left: list[str]) -> Iterator[tuple[str, int, str | None]]:
    """The same of Ray's logs, which have what stations and the service wrote: of this machine, so by no task."""
    for folder in logs_folders():
        if not os.access(folder, os.R_OK | os.X_OK):
            left.append(f"{folder}, which is another user's")
            continue
        files = load_file_io({}, f"file://{folder}")
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            if os.access(path, os.R_OK):
                yield _look(sought, files, f"file://{path}")
            else:
                left.append(f"{path}, which is another user's")


def _in_mlflow(settings: Settings, sought: "Sought", left: list[str]) -> Iterator[tuple[str, int, str | None]]:
    """(where, bytes, what of the person is there) of what an MLflow server keeps; of a SQLite file, it is a file."""
    uri = settings.tracking_uri
    if uri.startswith(_SQLITE):
        return
    from pipelines.privacy import tracked  # MLflow takes seconds to import

    for name, said in tracked.records(uri):
        yield f"{uri}, {name}", len(said), sought.in_bytes(said, is_text=True)
    for address, file in tracked.artefacts(uri):
        if file is None:
            left.append(f"{address}, which the MLflow server does not give out")
            continue
        _, size, what = _look(sought, load_file_io({}, f"file://{file}"), f"file://{file}")
        yield address, size, what


def _look(sought: Sought, files: FileIO, path: str) -> tuple[str, int, str | None]:
    """(path, bytes, what of the person is in a file)."""
    try:
        with files.new_input(path).open() as stream:
            raw = stream.read()
    except FileNotFoundError:  # it has gone since it was listed
        return path, 0, None
    suffix = Path(path).suffix
    what = sought.in_bytes(raw, is_text=suffix in _TEXT)
    return path, len(raw), what if what is not None else _unpacked(sought, raw, suffix)


def _unpacked(sought: Sought, raw: bytes, suffix: str) -> str | None:
    try:
        if raw[:4] == b"PAR1":
            return _first(sought.in_values(values) for values in _parquet_values(raw))
        if raw[:4] == b"Obj\x01":
            return _in_avro(sought, raw)
        if raw[:2] == b"\x1f\x8b":
            return sought.in_bytes(gzip.decompress(raw), is_text=True)
        if raw[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(raw)) as packed:
                return _first(sought.in_bytes(packed.read(name), is_text=False) for name in packed.namelist())
    except (pa.ArrowInvalid, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError):
        return None  # it was never finished, or only looks like one: its bytes were looked at as they are
    return None


def _parquet_values(raw: bytes) -> Iterator[Sequence[bytes]]:
    """The texts and bytes of every column, those included that stand in a dictionary and in no row."""
    schema = pq.read_schema(io.BytesIO(raw))
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    parquet = pq.ParquetFile(io.BytesIO(raw), read_dictionary=texts)
    for group in range(parquet.num_row_groups):
        for column in parquet.read_row_group(group).columns:
            for chunk in column.chunks:
                for leaf in _leaves(chunk):
                    yield [one for one in leaf.cast(pa.binary()).unique().to_pylist() if one is not None]


def _leaves(column: pa.Array) -> Iterator[pa.Array]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _leaves(column.dictionary)
    elif pa.types.is_map(kind):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(column.flatten())
    elif pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            yield from _leaves(pc.struct_field(column, place))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        yield column


def _in_avro(sought: Sought, raw: bytes) -> str | None:
    values = list(_scalars(list(fastavro.reader(io.BytesIO(raw)))))
    return sought.in_values(values) or sought.in_bounds(values)


def _scalars(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _scalars(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _scalars(one)
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield value.encode()


def _in_online_store(settings: Settings, sought: Sought) -> list[Finding]:
    if not is_there(settings):
        return []
    names = sorted(one.decode() for one in sought.pseudonyms)
    groups = ["profiles", "consents", "playback_sessions"]
    groups += [group.stored_as(key) for group in GROUPS for key in group.entities]
    with open_online_store(settings.online_store_url, readonly=True) as store:
        held = [group for group in groups if any(value is not None for value in store.get_many(group, names))]
    return [Finding(f"{settings.online_store_url.partition('://')[0]} online store, {one}", PSEUDONYM) for one in held]


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)
