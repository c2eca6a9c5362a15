"""Online features of eight groups for 1, 10 and 100 keys: Reel's store through Feast's SDK, against Feast's own.

python -m tests.benchmarks.lookup [--keys N] [--repeats N]

Both sides get the same values of the same views and answer the same call, `get_online_features(...).to_dict()`; they
are asked in turn, a few calls each. Embedded: LMDB against Feast's SQLite; shared: both in one Redis server. The
floors read the same packed values with nothing around them. Every value is compared; Feast's stores obey no TTL, so
nothing that is past one was given to them.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import redis
from feast import FeatureService, FeatureStore

from features.entities import entity as entity_of
from features.services import View
from tests.pipelines.feast.stocked import VIEWS, Stock, feasts, reels
from tests.serving.conftest import running_redis

SIZES = (1, 10, 100)
BLOCK, UNCOUNTED = 10, 2  # calls
ENTITIES = ("profile_id", "content_id", "channel_id", "session_id", "user_id")  # the first that a group has
Call = Callable[[], Any]


def eight_views() -> list[View]:
    """Each group, for one of its entities."""
    chosen: dict[str, View] = {}
    for view in sorted((view for view in VIEWS if view.entity in ENTITIES), key=lambda one: ENTITIES.index(one.entity)):
        chosen.setdefault(view.group.name, view)
    return list(chosen.values())


def service(store: FeatureStore, views: Sequence[View]) -> FeatureService:
    """All of the views in one feature service, applied."""
    by_name = {one.name: one for one in store.list_feature_views()}
    members = [by_name[view.name] for view in views]
    everything = FeatureService(name="everything", features=members, tags={"purpose": "personalization"})
    store.apply([everything])
    return everything


def rows_of(views: Sequence[View], known: Mapping[str, Any], size: int) -> dict[str, list[str]]:
    """`size` keys of each entity, each of somebody who is there."""
    columns: dict[str, list[str]] = {}
    for view in views:
        (column,) = entity_of(view.entity).columns
        names = known[view.name][view.entity].to_pylist()
        columns[column] = [names[place % len(names)] for place in range(size)]
    return columns


def medians_ms(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """The median time of each call, made in turn in blocks.

    Feast remembers what names mean for one registry at a time, so the first calls of a block, which make it
    resolve them anew, are not counted: a process usually has one registry.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    while any(len(of_call) < repeats for of_call in times.values()):
        for name, call in calls.items():
            for place in range(UNCOUNTED + BLOCK):
                started = time.perf_counter()
                call()
                if place >= UNCOUNTED:
                    times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(of_call) for name, of_call in times.items()}


def mismatches(mine: Mapping[str, Sequence[Any]], theirs: Mapping[str, Sequence[Any]]) -> int:
    """How many values differ."""
    differ = [a != b for name in theirs for a, b in zip(mine.get(name, []), theirs[name], strict=True)]
    return sum(differ) + len(theirs.keys() ^ mine.keys())


def asked(store: FeatureStore, everything: FeatureService, rows: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """One call, as a scientist makes it."""
    said: dict[str, list[Any]] = store.get_online_features(everything, rows, full_feature_names=True).to_dict()
    return said


def measure(
    reel: FeatureStore,
    feast: FeatureStore,
    views: Sequence[View],
    known: Mapping[str, Any],
    floor: Callable[[Mapping[str, Sequence[str]]], Call],
    repeats: int,
) -> tuple[dict[str, float], int]:
    """How many times faster Reel is than Feast by number of keys, and how many values differ."""
    ours, theirs = service(reel, views), service(feast, views)
    ratios, wrong = {}, 0
    for size in SIZES:
        rows = rows_of(views, known, size)
        calls = {
            "reel": partial(asked, reel, ours, rows),
            "feast": partial(asked, feast, theirs, rows),
            "floor": floor({view.name: rows[entity_of(view.entity).columns[0]] for view in views}),
        }
        wrong += mismatches(asked(reel, ours, rows), asked(feast, theirs, rows))
        taken = medians_ms(calls, repeats)
        ratios[str(size)] = round(taken["feast"] / taken["reel"], 2)
        said = ", ".join(f"{name} {ms:.3f} ms" for name, ms in taken.items())
        print(f"  {size:>3} keys: {said}; {ratios[str(size)]} times Feast")
    return ratios, wrong


def lmdb_floor(folder: Path) -> Callable[[Mapping[str, Sequence[str]]], Call]:
    """Bare LMDB, a copy, for no process may open a folder twice: one transaction, one get a key."""
    copy = shutil.copytree(folder, folder.with_name("copy"))
    environment = lmdb.open(str(copy), readonly=True, lock=False)

    def floor(keys: Mapping[str, Sequence[str]]) -> Call:
        wanted = [f"{view}\0{key}".encode() for view, names in keys.items() for key in names]

        def read() -> list[Any]:
            with environment.begin() as transaction:
                return [transaction.get(key) for key in wanted]

        return read

    return floor


def redis_floor(url: str) -> Callable[[Mapping[str, Sequence[str]]], Call]:
    """Bare Redis: one MGET a group."""
    client = redis.Redis.from_url(url)

    def floor(keys: Mapping[str, Sequence[str]]) -> Call:
        wanted = [[f"reel:{view}:{key}" for key in names] for view, names in keys.items()]

        def read() -> list[Any]:
            return [client.mget(names) for names in wanted]

        return read

    return floor


def folder_in(place: Path, name: str) -> Path:
    """A new folder."""
    (place / name).mkdir()
    return place / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200, help="entities of each kind")
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    views = eight_views()
    started = time.perf_counter()
    stock = Stock.of(views, rows=30 * options.keys, keys=options.keys)
    values = sum(len(view.group.features) for view in views)
    print(f"{len(views)} groups, {values} features, made in {time.perf_counter() - started:.0f} s")
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed; this benchmark needs it")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        embedded = f"lmdb://{place}/online"
        stock.put(embedded)
        reel = reels(folder_in(place, "reel"), embedded)
        sqlite = {"type": "sqlite", "path": str(place / "online.db")}
        feast = feasts(folder_in(place, "feast"), stock.known, sqlite)
        print("embedded: LMDB against Feast's SQLite")
        ratios, wrong = measure(reel, feast, views, stock.known, lmdb_floor(place / "online"), options.repeats)
        with running_redis(binary, folder_in(place, "redis")) as url:
            stock.put(url)
            reel = reels(folder_in(place, "reel-redis"), url)
            shared = {"type": "redis", "connection_string": url.removeprefix("redis://").removesuffix("/0")}
            feast = feasts(folder_in(place, "feast-redis"), stock.known, shared)
            print("shared: both in Redis")
            redis_ratios, more_wrong = measure(reel, feast, views, stock.known, redis_floor(url), options.repeats)
    said = {"sdk_vs_feast": ratios, "redis_vs_feast": redis_ratios, "mismatches": wrong + more_wrong}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
