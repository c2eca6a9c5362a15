"""Bloom filters of data files: never deny what is there, seldom claim what is not, and answer as DuckDB does."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.lakehouse.bloom import BloomFilter, hashes_of
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, replace_files
from pipelines.lakehouse.compaction import rewrite
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.inventory import inventory
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.settings import Settings

SPEC = TableSpec(
    "silver.sample",
    pa.schema([("event_timestamp", TIMESTAMP), ("user_id", pa.string()), ("session_id", pa.string())]),
)
words = st.text(st.characters(codec="utf-8"), max_size=80)


def filters_of(path: Path, column: str) -> list[BloomFilter]:
    """The filter of every row group."""
    metadata, raw = pq.read_metadata(path), path.read_bytes()
    found = []
    for group in range(metadata.num_row_groups):
        chunks = [metadata.row_group(group).column(place) for place in range(metadata.num_columns)]
        (chunk,) = (one for one in chunks if one.path_in_schema == column)
        start = chunk.bloom_filter_offset
        parsed = BloomFilter.parse(raw[start : start + chunk.bloom_filter_length])
        assert parsed is not None
        found.append(parsed)
    return found


def denied_by_duckdb(path: Path, column: str, value: str) -> list[bool]:
    """Of every row group whether DuckDB's own reader is certain that the value is not in it."""
    probed = duckdb.execute("FROM parquet_bloom_probe(?, ?, ?)", [str(path), column, value]).fetchall()
    return [denied for _, _, denied in sorted(probed)]


def test_one_value_among_thousands_is_found(tmp_path):
    path = tmp_path / "held.parquet"
    pq.write_table(pa.table({"word": ["there"]}), path, bloom_filter_options={"word": {"ndv": 1, "fpp": 1e-4}})
    (held,) = filters_of(path, "word")
    absent = [f"absent-{number}" for number in range(3000)]
    absent = [one for one in absent if not held.may_hold(hashes_of([one])).any()]
    assert len(absent) > 2500
    for values in ([], absent):
        assert not held.may_hold_any(hashes_of(values))
    for place in (0, 1023, 1024, 2500):
        assert held.may_hold_any(hashes_of([*absent[:place], "there", *absent[place:]]))


@settings(deadline=None, max_examples=40)
@given(held=st.lists(words, min_size=1, max_size=60), asked=st.lists(words, max_size=40), rows=st.integers(1, 40))
def test_a_filter_answers_as_duckdb_does_and_denies_nothing_that_is_there(held, asked, rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "held.parquet"
    options = {"word": {"ndv": 8, "fpp": 0.2}}  # too small for some, so that both answers occur
    pq.write_table(pa.table({"word": held}), path, row_group_size=rows, bloom_filter_options=options)
    values = sorted({*held, *asked})
    answers = np.array([one.may_hold(hashes_of(values)) for one in filters_of(path, "word")])
    for group, start in enumerate(range(0, len(held), rows)):
        there = set(held[start : start + rows])
        assert all(answers[group][place] for place, value in enumerate(values) if value in there)
    # DuckDB takes no text with a zero in it.
    for place, value in enumerate(values):
        if "\0" not in value:
            assert [not answer for answer in answers[:, place]] == denied_by_duckdb(path, "word", value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x15", b"\x15\x40\x1c\x1c", bytes(47), b"\x15\x40" + bytes.fromhex("1c2c0000" * 3 + "00") + bytes(32)],
)
def test_a_filter_of_another_kind_or_a_cut_one_denies_nothing(raw):
    assert BloomFilter.parse(raw) is None


def sample(numbers: range) -> pa.Table:
    """Each row another person's, as one of a session of ten."""
    at = pa.array([number * 1_000_000 for number in numbers], TIMESTAMP)
    users = pa.array([f"user-{number}" for number in numbers]).dictionary_encode()
    return pa.table({"event_timestamp": at, "user_id": users, "session_id": [f"s-{n // 10}" for n in numbers]})


def paths(table) -> list[Path]:
    return [Path(one.path.removeprefix("file://")) for one in inventory(table, table.current_snapshot())]


def test_files_that_are_written_and_compacted_have_filters_of_their_own_rows(tmp_path):
    lakehouse = Lakehouse.open(Settings(work_dir=tmp_path))
    table = lakehouse.table(SPEC)
    whole = sample(range(3000))
    for start in range(0, 3000, 1000):
        commit_files(table, write_files(TableFiles.of(table), whole.slice(start, 1000)), None)
        table = lakehouse.table(SPEC)

    def check(path: Path, numbers: range) -> None:
        for column, names in (("user_id", [f"user-{n}" for n in range(3000)]), ("session_id", ["s-7", "s-170"])):
            (held,) = filters_of(path, column)
            there = set(pq.read_table(path, columns=[column])[column].to_pylist())
            answers = dict(zip(names, held.may_hold(hashes_of(names)).tolist(), strict=True))
            assert all(answers[name] for name in names if name in there)
            assert sum(answers[name] for name in names if name not in there) <= 3
        assert len(there) == len(numbers) // 10

    for path in paths(table):
        check(path, range(1000))
    group = tuple(inventory(table, table.current_snapshot()))
    rewritten = rewrite(TableFiles.of(table), group)
    replace_files(table, list(rewritten.stale), list(rewritten.files), None)
    (path,) = paths(lakehouse.table(SPEC))
    check(path, range(3000))


def test_no_value_of_a_row_that_was_left_out_is_in_a_file(tmp_path):
    table = Lakehouse.open(Settings(work_dir=tmp_path)).table(SPEC)
    kept = sample(range(100)).filter(pa.array([number != 42 for number in range(100)]))
    assert "user-42" in kept["user_id"].chunk(0).dictionary.to_pylist()
    (file,) = write_files(TableFiles.of(table), kept)
    read = pq.read_table(file.file_path.removeprefix("file://"), read_dictionary=["user_id"])
    assert set(read["user_id"].chunk(0).dictionary.to_pylist()) == {f"user-{n}" for n in range(100)} - {"user-42"}
