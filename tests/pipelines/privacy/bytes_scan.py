"""Looking for texts in every byte under a folder, packed or not, with nothing of Reel's."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import fastavro
import lmdb
import pyarrow as pa
import pyarrow.parquet as pq

from serving.online_store.lmdb_store import PLACE_BYTES


def files_with(folder: Path, texts: Iterable[str], skip: Iterable[str] = ()) -> dict[str, str]:
    """Each file that holds one of the texts, and which; those whose name begins as one of `skip` left out."""
    needles = sorted({text.encode() for text in texts})
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith(tuple(skip)):
            continue
        for raw in _forms(path):
            hit = next((needle for needle in needles if needle in raw), None)
            if hit is not None:
                found[name] = hit.decode()
    return found


def files_with_hashes(folder: Path, hashes: set[str], skip: Iterable[str] = ()) -> dict[str, str]:
    """The same of many SHA-256 digests in hexadecimal: every run of 64 digits is looked at once."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith(tuple(skip)):
            continue
        for raw in _forms(path):
            hit = hashes & {one.decode() for one in re.findall(rb"[0-9a-f]{64}", raw)}
            if hit:
                found[name] = min(hit)
    return found


def online_keys(folder: Path) -> set[str]:
    """The entities of an embedded online store."""
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as reading:
        return {key.partition(b"\0")[2][PLACE_BYTES:].decode() for key, _ in reading.cursor() if key[0]}


def _forms(path: Path) -> Iterator[bytes]:
    """A file as it is, and what is packed in it, dictionaries that no row refers to included."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:  # it has gone since it was listed
        return
    yield raw
    if raw[:4] == b"Obj\x01":
        yield repr(list(fastavro.reader(io.BytesIO(raw)))).encode()
    if raw[:4] == b"PAR1":
        schema = pq.read_schema(io.BytesIO(raw))
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        for name in schema.names:
            column = pq.ParquetFile(io.BytesIO(raw), read_dictionary=texts).read([name]).column(0)
            if pa.types.is_dictionary(column.type):
                yield json.dumps([chunk.dictionary.to_pylist() for chunk in column.chunks]).encode()
            else:
                yield json.dumps(column.to_pylist(), default=repr).encode()
