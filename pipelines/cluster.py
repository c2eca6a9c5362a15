"""Ray: joining or starting it, running a function over many inputs, and shuffling rows by key.

Stations use Ray's tasks rather than Ray Data's operators where rows must be regrouped: the same regrouping of
1,000,000 rows into 8 groups took 0.2 s as tasks and 25 s as `Dataset.groupby` on two cores. Blocks travel through
Ray's object store, which spills to disk, so memory stays bounded; the driver only ever sees what `reduce` returns.
"""

import ctypes
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray

from pipelines.errors import ReelError
from pipelines.packed import packed, unpacked
from pipelines.report import not_counted
from pipelines.settings import Settings
from pipelines.settings_section import PROJECT_ROOT

Item = TypeVar("Item")
Result = TypeVar("Result")
Part = TypeVar("Part")
Whole = TypeVar("Whole")

# Twice the tasks that can run: enough to keep every processor fed, few enough to bound what is queued.
IN_FLIGHT_PER_CPU = 2
ROWS_PER_BUCKET = 500_000  # of silver's width, some 400 MB while a task works on them
CONNECT_TIMEOUT_S = 10
_C_LIBRARY = ctypes.CDLL(None)  # the one that this process runs on
PACKAGES = ("features", "models", "pipelines", "serving")
# What processes of a Ray that is started here are told. Arrow's rows in memory of the C library: logs take a tenth less
# time than with the allocator that Arrow brings, which keeps 70 MB more of each worker to itself. And no more
# processes that only write what found no room to disk, and read it back, than that takes: each is 50 MB. Nor workers
# before there is work: a training's are others, and each takes two seconds of processor time to start.
LOCAL_WORKERS = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "RAY_max_io_workers": "2",
    "RAY_prestart_worker_first_driver": "0",
}
# Whoever uses all processors waits for all else that wakes: training through Ray took 4 % longer for what this spares.
# Figures of Ray's processes have no reader where there is no dashboard, and what is looked for every 100 to 400 ms on
# a node of many (room on its disk, workers without work, a parent's death) is found within a second on one.
LOCAL_QUIET = {
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_io_context_event_loop_lag_collection_interval_ms": "10000",
    "RAY_io_context_monitor_probe_interval_ms": "10000",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "1",
    "RAY_local_fs_monitor_interval_ms": "1000",
    "RAY_kill_idle_workers_interval_ms": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
}
# By default Ray has its workers stand back behind whatever else runs on the machine. A batch may; a stream that did was
# twice as late on two cores as soon as something else was at work, and training waits for Ray's own processes then.
LIVE_WORKERS = {"RAY_worker_niceness": "0"}
# What Ray sets for a job that is submitted to it: the cluster's address, and how it was submitted.
RAY_ADDRESS, SUBMITTED_JOB = "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"


class ClusterError(ReelError):
    """Ray could not be joined or started."""


class WorkersLostError(ClusterError):
    """Ray's processes ended under a task again and again, or took its results with them."""

    passes = True

    def __init__(self, reason: BaseException) -> None:
        said = str(reason).strip().splitlines()
        super().__init__(
            f"Ray gave up a task ({type(reason).__name__}: {said[0] if said else 'it said nothing'}); what was not "
            "committed is done again by the next run. Workers that are short of memory are ended: see ray.num_cpus"
        )


class TaskFailedError(ClusterError):
    """A task failed, and what it raised could not be carried over whole: this is the line it ended with."""

    def __init__(self, reason: ray.exceptions.UnserializableException) -> None:
        super().__init__(f"a task failed: {str(reason).strip().splitlines()[-1]}")


_wanted: list[tuple[Settings, dict[str, str]]] = []


@contextmanager
def connected(settings: Settings, *, is_live: bool = False) -> Iterator[None]:
    """Ray for the length of the block: the cluster at `ray.address`, else one on this machine.

    It is joined or started by the first task, so that what needs none is not kept waiting: what is wrong with the
    configuration, a broker that is away, a station that finds nothing to do. `is_live`: somebody waits for what comes.
    """
    if ray.is_initialized():
        yield
        return
    if settings.ray_address:
        with _as_cluster_errors(settings):
            _knock(settings.ray_address)
    _wanted.append((settings, LOCAL_WORKERS | LOCAL_QUIET | (LIVE_WORKERS if is_live else {})))
    try:
        yield
    finally:
        _wanted.pop()
        ray.shutdown()


def join_cluster() -> None:
    """Join or start the Ray of the block that this is called in, unless that was done already."""
    if ray.is_initialized():
        return
    assert _wanted, "tasks are run inside `connected`"
    settings, told = _wanted[-1]
    # Workers resolve the package in this environment; uv must not build another one for them.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # By default Ray tells its makers of every cluster that is started.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of several tasks that fail together one is told of, in one line; Ray would print the traces of the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    local: dict[str, Any] = {
        "num_cpus": settings.ray.num_cpus,
        "object_store_memory": settings.ray.object_store_mb * 1024 * 1024,
        "include_dashboard": False,
    }
    address = settings.ray_address or os.environ.get(RAY_ADDRESS)
    joining: dict[str, Any] = {"address": address, "runtime_env": travelling_code()} if address else local
    for name, chosen in () if address else told.items():
        os.environ.setdefault(name, chosen)
    with not_counted(), _as_cluster_errors(settings), _own_signals_kept():
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **joining)
    if is_our_own():
        _node().kill_log_monitor()  # it reads all logs again and again to hand on what is new: nobody asked it to


def is_our_own() -> bool:
    """Whether the Ray of this process was started by it, and ends with it."""
    node = _node()
    return node is not None and bool(node.is_head())


def logs_folders() -> list[Path]:
    """Where Ray logs on this machine, and has logged: of every session that its temporary folder still has."""
    join_cluster()
    # The one named "latest" is a link to another.
    return sorted({folder.resolve() for folder in Path(_node().get_temp_dir_path()).glob("session_*/logs")})


def _node() -> Any:
    """Ray's own account of its processes on this machine, which it gives nowhere else; None before there are any."""
    return ray._private.worker._global_node


def travelling_code() -> dict[str, Any]:
    """The runtime environment that brings this code to a cluster's workers, whatever version their image has.

    Nothing where the process is a job that was submitted to the cluster: its working directory has travelled already.
    """
    if SUBMITTED_JOB in os.environ:
        return {}
    return {"py_modules": [str(PROJECT_ROOT / name) for name in PACKAGES]}


@contextmanager
def _own_signals_kept() -> Iterator[None]:
    """Ray takes signals for itself when it starts; whoever waits for one already, to stop gracefully, still gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    yield
    for one, handler in before.items():
        if callable(handler):
            signal.signal(one, handler)


@contextmanager
def _as_cluster_errors(settings: Settings) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - some of what Ray raises, after a slow start say, has no class of its own
        where = settings.ray_address or "this machine"
        raise ClusterError(f"Ray could not be reached on {where}: {error}; check ray.address, or unset it") from None


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at a `host:port` address, which Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def buckets_for(rows: int, at_least: int) -> int:
    """Into how many buckets `rows` are cut, so that what one task holds stays bounded as the data grows."""
    return max(at_least, -(-rows // ROWS_PER_BUCKET))


def run_tasks(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`work` over `items` as Ray tasks, results as they finish; a failure's own error is raised."""
    if not items:
        return
    join_cluster()
    task: Any = ray.remote(_call)
    shared = ray.put(work)
    waiting = list(reversed(items))
    running: list[ray.ObjectRef[Any]] = []
    width = _width()
    while waiting or running:
        while waiting and len(running) < width:
            running.append(task.remote(shared, waiting.pop()))
        done, running = ray.wait(running, num_returns=1)
        yield result_of(done[0])


def _call(work: Callable[[Item], Result], item: Item) -> Result:
    with _given_back():
        return work(item)


@contextmanager
def _given_back() -> Iterator[None]:
    """A task, after which the worker keeps no memory that nothing lies in: the next one may need it in another place.

    The C library gives back what lies at its heap's end only; a worker that had made logs of 250,000 rows for an hour
    held 1 GB while it did nothing. It takes milliseconds.
    """
    yield
    _give_back()


def _give_back() -> None:
    pa.default_memory_pool().release_unused()
    if (trim := getattr(_C_LIBRARY, "malloc_trim", None)) is not None:  # glibc's
        trim(0)


class Regrouping(Generic[Result]):
    """Parts of buckets on their way to `reduce`.

    A few buckets more are begun than can be worked on, and another one when one has ended: Ray brings whatever those
    that are begun need into its object store, and were all of them begun at once nothing else would find room there.
    """

    def __init__(self, begin: Callable[[int], list[ray.ObjectRef[Any]]], buckets: int) -> None:
        self._begin, self._buckets = begin, iter(range(buckets))
        self._width = _width() if buckets else 0
        self._running: dict[ray.ObjectRef[Any], tuple[int, list[ray.ObjectRef[Any]]]] = {}
        self._begin_some()

    def results(self) -> Iterator[Result]:
        """What `reduce` returned of each bucket, as they end; a failure's own error is raised."""
        return (result_of(returned[0]) for _, returned in self._ended())

    def results_and_kept(self) -> Iterator[tuple[Any, list[ray.ObjectRef[Any]]]]:
        """Of a `reduce` that returns several values: the first, and references to the others."""
        return ((result_of(returned[0]), returned[1:]) for _, returned in self._ended())

    def references(self) -> list[ray.ObjectRef[Any]]:
        """To what `reduce` returned of each bucket, in the order of the buckets; waits until all have ended."""
        ended = dict(self._ended())
        return [ended[bucket][0] for bucket in sorted(ended)]

    def _ended(self) -> Iterator[tuple[int, list[ray.ObjectRef[Any]]]]:
        while self._running:
            (done,), _ = ray.wait(list(self._running), num_returns=1)
            ended = self._running.pop(done)
            self._begin_some()
            yield ended
        _give_back()  # what this process held of references to all parts

    def _begin_some(self) -> None:
        for bucket in islice(self._buckets, self._width - len(self._running)):
            returned = self._begin(bucket)
            self._running[returned[0]] = bucket, returned


def regroup(
    items: Sequence[Item],
    split: Callable[[Any], Iterable[Part]],
    reduce: Callable[[int, list[Part]], Result],
    buckets: int,
    at_once: int = 1,
    join: Callable[[Sequence[Item]], Whole] | None = None,
    returns: int = 1,
) -> Regrouping[Result]:
    """Bring rows together by bucket; what `reduce` made of each stays in the object store, as `returns` values.

    `split` cuts one item into `buckets` parts, which are taken one after the other; `reduce` gets all parts of one
    bucket, in the order of `items`. One task splits `at_once` items: many small ones in a task each would be parts that
    cost more than what is in them. With `join` it makes one of them first, which `split` is given.
    """
    if not items:
        return Regrouping(lambda _: [], 0)
    join_cluster()
    cut: Any = ray.remote(_cut).options(num_returns=buckets)
    gather: Any = ray.remote(_gather_cut).options(num_returns=returns)
    split_ref, join_ref, reduce_ref = ray.put(split), ray.put(join), ray.put(reduce)
    portions = [items[first : first + at_once] for first in range(0, len(items), at_once)]
    rows = [as_list(cut.remote(split_ref, join_ref, *portion)) for portion in portions]
    parts = dict(enumerate(zip(*rows, strict=True)))
    rows.clear()

    def begin(bucket: int) -> list[ray.ObjectRef[Any]]:
        return as_list(gather.remote(reduce_ref, bucket, *parts.pop(bucket)))

    return Regrouping(begin, buckets)


def shuffle(
    items: Sequence[Item],
    split: Callable[[Item], Iterable[Part]],
    reduce: Callable[[int, list[Part]], Result],
    buckets: int,
) -> Iterator[Result]:
    """`regroup`, with what `reduce` returned for each bucket, as they finish."""
    yield from regroup(items, split, reduce, buckets).results()


def as_list(returned: Any) -> list[ray.ObjectRef[Any]]:
    """The references a task with `num_returns` gave: Ray gives a single one bare."""
    return list(returned) if isinstance(returned, list) else [returned]


def _cut(
    split: Callable[[Any], Iterable[Part]], join: Callable[[Sequence[Item]], Whole] | None, *items: Item
) -> list[bytes] | bytes:
    with _given_back():
        by_bucket = _packed_by_bucket(split, items if join is None else (join(items),))
    return by_bucket if len(by_bucket) > 1 else by_bucket[0]


def _packed_by_bucket(split: Callable[[Any], Iterable[Part]], wholes: Sequence[Any]) -> list[bytes]:
    return [packed(parts) for parts in zip(*map(split, wholes), strict=True)]


def _gather_cut(reduce: Callable[[int, list[Part]], Result], bucket: int, *cut: bytes) -> Result:
    with _given_back():
        return reduce(bucket, [part for parts in cut for part in unpacked(parts)])


def _gather(reduce: Callable[[int, list[pa.Table]], Result], bucket: int, *tables: pa.Table) -> Result:
    with _given_back():
        return reduce(bucket, list(tables))


def result_of(reference: ray.ObjectRef[Any]) -> Any:
    """The task's result; its own error rather than Ray's wrapping of it, if it failed."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise cause from None
    except ray.exceptions.UnserializableException as error:
        raise TaskFailedError(error) from error
    except ray.exceptions.RayError as error:  # a worker or a node that was lost, once too often
        raise WorkersLostError(error) from None


def run_and_keep(
    work: Callable[[Item], tuple[Result, pa.Table]], items: Sequence[Item]
) -> Iterator[tuple[Result, ray.ObjectRef[Any]]]:
    """`work` over `items` as Ray tasks: what it returns first, as they finish, and a table that stays in the store."""
    join_cluster()
    task: Any = ray.remote(_call).options(num_returns=2)
    shared = ray.put(work)
    waiting = list(reversed(items))
    running: dict[ray.ObjectRef[Any], ray.ObjectRef[Any]] = {}
    width = _width()
    while waiting or running:
        while waiting and len(running) < width:
            result, kept = task.remote(shared, waiting.pop())
            running[result] = kept
        (done,), _ = ray.wait(list(running), num_returns=1)
        yield result_of(done), running.pop(done)


def gather(
    reduce: Callable[[int, list[pa.Table]], Result], tables: Sequence[ray.ObjectRef[Any]], buckets: int
) -> Iterator[Result]:
    """`reduce` for every bucket, over all of some tables in the store, as they finish."""
    task: Any = ray.remote(_gather)
    shared = ray.put(reduce)
    yield from Regrouping(lambda bucket: [task.remote(shared, bucket, *tables)], buckets).results()


def _width() -> int:
    """How many tasks are kept in flight."""
    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    return max(1, int(resources().get("CPU", 1))) * IN_FLIGHT_PER_CPU
