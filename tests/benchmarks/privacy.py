"""What privacy costs: the decision on a row, and an erasure against writing the whole table anew.

Decision: 5,000,000 rows of 200,000 users and profiles, 600,000 statements of consent, on one core; ids as Parquet's
dictionaries. Cases and leaks: the full matrix of `tests/privacy`, in every layer.

Erasure: `tests.benchmarks.export`'s playback of 30 days; one user of it and then 1,000 are erased as `reel privacy
erase` does it, all steps and receipts included. The floor is to read every file of the table and to write it anew, with
the same functions and the same Ray.

    python -m tests.benchmarks.privacy [--rows N]

Default: 4,000,000 rows of playback.
"""

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.consent import ConsentHistory
from features.decision import Registries, decide
from features.profiles import ProfileRegistry
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.cluster import connected, run_tasks
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import live_files, read_files
from pipelines.privacy.erase import erase
from pipelines.privacy.receipts import Receipt
from pipelines.settings import LakehouseSettings, Settings
from tests.benchmarks.export import EVENTS_PER_SITTING, SALT, SITTINGS, fill, hashed, plain
from tests.privacy import test_matrix as matrix
from tests.privacy.scenarios import Layer

ROWS, PEOPLE, NOW_MS = 5_000_000, 200_000, 10**12
MANY = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    rows = parser.parse_args().rows
    decided = decision_rows_per_s()
    print(f"decision: {decided:,.0f} rows/s on one core")
    cases, leaks = cases_and_leaks()
    print(f"matrix: {cases:,} cases, {leaks} leaks")
    os.environ["REEL_SALT"] = SALT
    with tempfile.TemporaryDirectory(prefix="reel-bench-") as name:
        settings = Settings(work_dir=Path(name), lakehouse=LakehouseSettings(event_partition="day"))
        with connected(settings):
            found = erasures(settings, max(2 * MANY, rows // (SITTINGS * EVENTS_PER_SITTING)))
    print(json.dumps({"decision_rows_per_s": round(decided), "cases": cases, "leaks": leaks, **found}))


def decision_rows_per_s() -> float:
    """Rows of dictionaries, as Parquet has them, of every reason; the median of five runs, in processor time."""
    rng = np.random.default_rng(0)
    hasher = Pseudonymizer((SALT,))
    users, profiles = (
        hasher.hash_column(pa.array([plain(kind, number) for number in range(PEOPLE)])) for kind in ("user", "profile")
    )

    def column(names: pa.Array) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, PEOPLE, ROWS).astype(np.int32)), names)

    def flags(size: int, share: float) -> pa.Array:
        return pa.array(rng.random(size) < share)

    def instants(size: int) -> pa.Array:
        return pa.array(rng.integers(1, NOW_MS, size)).cast(pa.timestamp("ms", tz="UTC"))

    said = 3 * PEOPLE
    consents = pa.table(
        {
            "user_id": users.take(pa.array(rng.integers(0, PEOPLE, said))),
            **{f"allows_{one}": flags(said, 0.9) for one in ("analytics", "personalization", "ad_targeting")},
            "event_timestamp": instants(said),
        }
    )
    described = pa.table({"profile_id": profiles, "is_kids": flags(PEOPLE, 0.1), "event_timestamp": instants(PEOPLE)})
    known = Registries(ConsentHistory.of(consents), ProfileRegistry.of(described))
    rows = pa.table(
        {
            "user_id": column(users),
            "profile_id": column(profiles),
            "event_timestamp": instants(ROWS),
            "is_kids": flags(ROWS, 0.1),
            **{f"consent_{one}": flags(ROWS, 0.9) for one in ("analytics", "personalization", "ad_targeting")},
        }
    )
    pa.set_cpu_count(1)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        excluded = decide(rows, Purpose.PERSONALIZATION, known, NOW_MS).excluded
        seconds.append(time.process_time() - began)
        assert set(excluded) == {"kids_profile", "refused_on_event", "withdrawn_since"}
    return ROWS / float(np.median(seconds))


def cases_and_leaks() -> tuple[int, int]:
    """Every scenario of the matrix that can come in, in every layer of a build, for every purpose."""
    admitted, expected = matrix.admit_all(), matrix.expect_all()
    cases = leaks = 0
    for (layer, purpose), verdicts in expected.items():
        cases += len(verdicts)
        if layer in (Layer.INGEST, Layer.SERVING):
            continue  # `test_matrix` compares these fate by fate
        ours = matrix.built_by_end(admitted, purpose, layer)
        leaks += sum(number in ours and ours[number] is None and not one.allowed for number, one in verdicts.items())
    return cases, leaks


def erasures(settings: Settings, users: int) -> dict[str, float]:
    """Erase one user and then many, against writing the table anew."""
    events = fill(settings, users)
    rewrite_s = rewriting_s(settings)
    print(f"{events:,} events of {users:,} users; written anew in {rewrite_s:.1f} s")
    one_s, (one,) = erased(settings, [users // 2])
    many_s, many = erased(settings, [*range(MANY)])
    assert len(many) == MANY
    gone = {hashed("user", number) for number in (users // 2, *range(MANY))}
    playback = str(settings.work_dir / "warehouse/silver/playback/data/**/*.parquet")
    query = (
        "SELECT count(*), count(*) FILTER (user_id IN (SELECT unnest(?))) FROM read_parquet(?, union_by_name = true)"
    )
    left, theirs = duckdb.execute(query, [list(gone), playback]).fetchall()[0]
    assert theirs == 0
    erased_rows = sum(receipt.content["tables"]["silver.playback"]["rows"] for receipt in (one, *many))
    assert left == events - erased_rows
    touched = one.content["tables"]["silver.playback"]
    print(f"erasing 1: {one_s:.1f} s ({touched['files']} of {touched['of_files']} files), {MANY}: {many_s:.1f} s")
    return {
        "erase_1_vs_rewrite": round(one_s / rewrite_s, 3),
        "erase_1000_vs_rewrite": round(many_s / rewrite_s, 3),
        "files_touched_share": round(touched["files"] / touched["of_files"], 4),
    }


def erased(settings: Settings, numbers: list[int]) -> tuple[float, tuple[Receipt, ...]]:
    began = time.perf_counter()
    done = erase(settings, [plain("user", number) for number in numbers])
    return time.perf_counter() - began, done.receipts


def rewriting_s(settings: Settings) -> float:
    """Reading every file of playback and writing it again, uncommitted."""
    table = Lakehouse.open(settings).existing("silver.playback")
    assert table is not None
    files = TableFiles.of(table)
    paths = [file.file_path for file in live_files(table)]
    list(run_tasks(_warm, range(2)))
    began = time.perf_counter()
    written = sum(run_tasks(partial(_rewrite, files), paths))
    seconds = time.perf_counter() - began
    assert written == sum(file.record_count for file in live_files(table))
    return seconds


def _warm(number: int) -> int:
    return number


def _rewrite(files: TableFiles, path: str) -> int:
    with files.io.new_input(path).open() as stream:
        columns = pq.read_schema(stream).names
    made = write_files(files, read_files(files, [path], columns))
    for one in made:
        files.io.delete(one.file_path)
    return sum(one.record_count for one in made)


if __name__ == "__main__":
    main()
