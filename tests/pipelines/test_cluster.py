"""Ray's part: every item worked on once, rows brought together by bucket, and failures that say what failed."""

import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from pipelines.cluster import connected, regroup, result_of, run_tasks, shuffle
from pipelines.errors import ReelError
from pipelines.kafka.offsets import BrokerUnreachableError
from pipelines.kafka.read import ReadStalledError
from pipelines.settings import RaySettings, Settings

pytestmark = pytest.mark.usefixtures("ray_session")


class OddError(Exception):
    """A failure whose making needs more than its message."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{number} is odd: {reason}")


def square(number: int) -> int:
    return number * number


def only_even(failure: Exception, number: int) -> int:
    if number % 2:
        raise failure
    return number


def test_every_item_is_worked_on_once():
    assert Counter(run_tasks(square, range(25))) == Counter(number * number for number in range(25))


def test_items_that_are_equal_are_several_items():
    assert list(run_tasks(square, [3, 3, 3])) == [9, 9, 9]


def test_no_items():
    assert list(run_tasks(square, [])) == []


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("a plain one"),
        ReelError("one line"),
        ReadStalledError("t", 0, 5, 9, "no message arrived for 3 s"),
        BrokerUnreachableError("localhost:9092", 10, "refused"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_tasks_own_error_surfaces(failure):
    with pytest.raises(type(failure)) as raised:
        list(run_tasks(partial(only_even, failure), [2, 4, 5, 6]))
    assert type(raised.value) is type(failure)
    assert str(raised.value) == str(failure)


def test_what_finished_before_a_failure_is_had():
    results = run_tasks(partial(only_even, ReelError("no")), [2, *[4] * 50, 1])
    assert next(results) in (2, 4)
    with pytest.raises(ReelError, match=r"^no$"):
        list(results)


def table_of(rng: np.random.Generator, size: int) -> pa.Table:
    return pa.table(
        {
            "key": pa.array(rng.integers(0, 20, size), pa.int64()),
            "text": pa.array([None if one < 0.2 else f"{one:.6f}" for one in rng.random(size)], pa.string()),
        }
    )


def by_key(buckets: int, table: pa.Table) -> list[pa.Table]:
    bucket = table["key"].to_numpy() % buckets
    return [table.filter(pa.array(bucket == wanted)) for wanted in range(buckets)]


def together(bucket: int, parts: list[pa.Table]) -> tuple[int, int, list[tuple]]:
    rows = pa.concat_tables(parts)
    return bucket, len(parts), list(zip(rows["key"].to_pylist(), rows["text"].to_pylist(), strict=True))


@pytest.mark.parametrize("buckets", [1, 2, 7])
@pytest.mark.parametrize("sizes", [[0], [50], [30, 0, 1, 40], [0, 0]])
def test_rows_meet_in_their_bucket_in_the_order_of_the_items(buckets, sizes):
    rng = np.random.default_rng(len(sizes) * 10 + buckets)
    tables = [table_of(rng, size) for size in sizes]
    expected = [
        (
            bucket,
            len(tables),
            [(row["key"], row["text"]) for one in tables for row in one.to_pylist() if row["key"] % buckets == bucket],
        )
        for bucket in range(buckets)
    ]
    assert sorted(shuffle(tables, partial(by_key, buckets), together, buckets)) == expected
    # The same, kept in the object store: one reference per bucket, in order; also where a task splits several.
    for at_once in (1, 3):
        kept = regroup(tables, partial(by_key, buckets), together, buckets, at_once=at_once).references()
        assert [result_of(one) for one in kept] == expected


@pytest.mark.parametrize("buckets", [1, 3])
def test_nothing_to_shuffle(buckets):
    assert list(shuffle([], partial(by_key, buckets), together, buckets)) == []
    assert regroup([], partial(by_key, buckets), together, buckets).references() == []


def both(bucket: int, parts: list[pa.Table]) -> tuple[int, int]:
    return bucket, sum(part.num_rows for part in parts)


def test_of_what_is_kept_a_first_value_is_told():
    tables = [table_of(np.random.default_rng(seed), 30) for seed in range(3)]
    found = list(regroup(tables, partial(by_key, 25), both, 25, returns=2).results_and_kept())
    assert sorted(bucket for bucket, _ in found) == list(range(25))
    assert sum(result_of(kept) for _, (kept,) in found) == 90


def failing_split(failure: Exception, buckets: int, table: pa.Table) -> list[pa.Table]:
    raise failure


def failing_reduce(failure: Exception, bucket: int, parts: list[pa.Table]) -> None:
    raise failure


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("where", ["split", "reduce"])
def test_a_failure_on_either_side_of_a_shuffle_is_its_own(buckets, where):
    failure = BrokerUnreachableError("localhost:9092", 10, "refused")
    split = partial(failing_split, failure, buckets) if where == "split" else partial(by_key, buckets)
    reduce = partial(failing_reduce, failure) if where == "reduce" else together
    with pytest.raises(BrokerUnreachableError) as raised:
        list(shuffle([pa.table({"key": pa.array([1, 2], pa.int64()), "text": ["a", "b"]})], split, reduce, buckets))
    assert str(raised.value) == str(failure)


def test_an_error_that_cannot_travel_still_says_what_failed():
    with pytest.raises(Exception, match="5 is odd: too odd"):
        list(run_tasks(only_odd_error, [5]))


def only_odd_error(number: int) -> None:
    raise OddError(number, "too odd")


def test_a_ray_that_runs_already_is_used_and_left_running(tmp_path):
    before = ray.get_runtime_context().get_job_id()
    with connected(Settings(work_dir=tmp_path, ray=RaySettings(address="localhost:1"))):
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


JOIN = """
import sys
from pipelines.cluster import ClusterError, connected
from pipelines.settings import RaySettings, Settings
try:
    with connected(Settings(ray=RaySettings(address=sys.argv[1]))):
        pass
except ClusterError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_said_at_once(project_root: Path, free_port: int, scheme: str):
    address = f"{scheme}127.0.0.1:{free_port}"
    # In a process of its own, since this one has a Ray. Ray alone would try for minutes.
    ended = subprocess.run(
        [sys.executable, "-c", JOIN, address], cwd=project_root, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"Ray could not be reached on {address}: ")
    assert line.endswith("Connection refused; check ray.address, or unset it")


IDLE = """
import psutil, ray
from pipelines.cluster import connected, run_tasks
from pipelines.settings import Settings
with connected(Settings()):
    assert list(run_tasks(str, [])) == []
    assert not ray.is_initialized()
    assert list(run_tasks(str, [1])) == ["1"]
    assert ray.is_initialized()
    running = " ".join(part for one in psutil.Process().children(recursive=True) for part in one.cmdline())
    assert "raylet" in running and "log_monitor" not in running
assert not ray.is_initialized()
"""


def test_ray_is_started_by_the_first_task(project_root: Path):
    ended = subprocess.run(
        [sys.executable, "-c", IDLE], cwd=project_root, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr


PRIORITY = """
import os, sys
from pipelines.cluster import connected, run_tasks
from pipelines.settings import Settings
def priority(_):
    return os.getpriority(os.PRIO_PROCESS, 0)
with connected(Settings(), is_live=sys.argv[1] == "live"):
    (theirs,) = run_tasks(priority, [0])
print(theirs - priority(0))
"""


def test_what_is_live_does_not_stand_back_behind_whatever_else_runs(project_root: Path):
    """A batch does: a greater number has less of a processor that others want."""
    behind = {}
    for kind in ("live", "batch"):
        command = [sys.executable, "-c", PRIORITY, kind]
        ended = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        behind[kind] = int(ended.stdout)
    assert behind["live"] == 0 < behind["batch"]
