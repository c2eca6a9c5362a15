"""What travels between tasks comes out as it went in, and is small on its way."""

from dataclasses import dataclass

import pyarrow as pa
import pytest

from pipelines.packed import packed, unpacked

TABLE = pa.table(
    {
        "id": [f"p-{place:032d}" for place in range(10_000)],
        "kind": pa.array(["a", None, "b", ""] * 2_500).dictionary_encode(),
        "at": pa.array(range(10_000), pa.timestamp("us", tz="UTC")),
        "counts": pa.array([[], [("x", 1)], None, [("y", 2), ("z", 3)]] * 2_500, pa.map_(pa.string(), pa.int64())),
    }
).replace_schema_metadata({"excluded no_consent": "3"})


@dataclass(frozen=True)
class Held:
    name: str
    tables: dict[str, pa.Table]
    none: pa.Table | None


@pytest.mark.parametrize(
    "table",
    [TABLE, TABLE.slice(0, 0), TABLE.slice(7, 3), pa.concat_tables([TABLE, TABLE.slice(5)]).unify_dictionaries()],
    ids=["whole", "empty", "slice", "chunks"],
)
def test_a_table_comes_out_as_it_went_in(table: pa.Table) -> None:
    found = unpacked(packed(table))
    assert found.equals(table)
    assert found.schema.equals(table.schema, check_metadata=True)


def test_tables_are_found_however_deep_they_are_held() -> None:
    held = Held("some", {"one": TABLE, "other": TABLE.slice(2)}, None)
    found = unpacked(packed([held, (TABLE, 3)]))
    assert found == [held, (TABLE, 3)]
    assert len(packed([held, (TABLE, 3)])) < TABLE.nbytes  # three tables in less than one


def test_a_slice_carries_nothing_of_the_rest() -> None:
    assert len(packed(TABLE.slice(5_000, 3))) < 4_096
