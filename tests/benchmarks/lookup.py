"""Online features of eight groups for 1, 10 and 100 keys, against Feast's own stores and feature server.

python -m tests.benchmarks.lookup [--keys N] [--repeats N] [--seconds N] [--only sdk|http]

SDK: both sides get the same values of the same views and answer the same call, `get_online_features(...).to_dict()`;
they are asked in turn, a few calls each. Embedded: LMDB against Feast's SQLite; shared: both in one Redis server. The
floors read the same packed values with nothing around them.

HTTP: Reel's service and `feast serve` on the same stores get the same body, and a handler that returns a constant runs
under the same ingress and Serve settings. One process answers each; the load comes from another. Of sessions the
service gives nothing, for it cannot tell whose consent to ask, so seven groups are asked for there. Reel's callers have
tokens, and their plain ids are hashed and their consent is looked up, none of which Feast does. `http_vs_feast_serve`
is the least of the ratios; `http_vs_constant` and `p99_ms_at_half_load` are of one group for one profile, embedded.

Rows are ready as of the instant that is asked for, as after `reel features`; how long tiles take instead is printed.
Every value is compared; Feast's stores obey no TTL, so nothing that is past one was given to them.
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
from features.groups import GROUPS
from features.packing import read_values
from features.services import View
from features.windows import Cadence
from serving.online_store.lmdb_store import key_of
from tests.benchmarks.load import Order, loaded
from tests.benchmarks.lookup_http import (
    CLIENTS,
    constant,
    feast_serving,
    look_up,
    one_key,
    put_people,
    question,
    reel_serving,
    values,
)
from tests.features.random_log import FIRST_MS
from tests.pipelines.feast.stocked import VIEWS, Stock, feasts, reels
from tests.serving.conftest import running_redis

SIZES = (1, 10, 100)
BLOCK, UNCOUNTED = 10, 2  # calls
ENTITIES = ("profile_id", "content_id", "channel_id", "session_id", "user_id")  # the first that a group has
Call = Callable[[], Any]


def eight_views() -> list[View]:
    """Each of the first eight groups, those of people, titles and channels, for one of its entities."""
    chosen: dict[str, View] = {}
    some = [view for view in VIEWS if view.entity in ENTITIES and view.group in GROUPS[:8]]
    for view in sorted(some, key=lambda one: ENTITIES.index(one.entity)):
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


def lmdb_floor(url: str) -> Callable[[Mapping[str, Sequence[str]]], Call]:
    """Bare LMDB, a copy, for no process may open a folder twice: one transaction, one get a key."""
    folder = Path(url.removeprefix("lmdb://"))
    copy = shutil.copytree(folder, folder.with_name("copy"))
    environment = lmdb.open(str(copy), readonly=True, lock=False)

    def floor(keys: Mapping[str, Sequence[str]]) -> Call:
        wanted = [key_of(view, key) for view, names in keys.items() for key in names]

        def read() -> list[Any]:
            with environment.begin() as transaction:
                return [transaction.get(key) for key in wanted]

        return read

    return floor


def redis_floor(url: str) -> Callable[[Mapping[str, Sequence[str]]], Call]:
    """Bare Redis: one MGET."""
    client = redis.Redis.from_url(url)

    def floor(keys: Mapping[str, Sequence[str]]) -> Call:
        wanted = [f"reel:{view}:{key}" for view, names in keys.items() for key in names]
        return lambda: client.mget(wanted)

    return floor


def tiles_ms(views: Sequence[View], stock: Stock, size: int) -> float:
    """How long the event groups' values of `size` keys take where no row holds: the tiles are read."""
    tiled = [view.group for view in views if view.group.cadence is Cadence.EVENT]
    late = {view.name: stock.packed[view.name][:size] for view in views if view.group in tiled}
    started = time.perf_counter()
    for view in views:
        if view.name in late:
            found = read_values(view.group, [value for _, value in late[view.name]], FIRST_MS)
            assert len(found.ages_ms) == len(late[view.name])
    return (time.perf_counter() - started) * 1000


def over_http(
    kind: str, served: str, feast_address: str, views: Sequence[View], known: Mapping[str, Any], seconds: float
) -> tuple[float, int]:
    """Answers a second over those of `feast serve`, the least by number of keys; and how many values differ."""
    ratios, wrong = [], 0
    for size in SIZES:
        body = question(views, rows_of(views, known, size))
        wrong += mismatches(values(served, body), values(feast_address, body))
        mine, theirs = look_up(served, body, seconds), look_up(feast_address, body, seconds)
        ratios.append(mine["per_s"] / theirs["per_s"])
        print(
            f"  {kind}, {size:>3} keys: reel {mine['per_s']:.0f}/s, p50 {mine['p50_ms']:.1f} ms, "
            f"feast serve {theirs['per_s']:.0f}/s, p50 {theirs['p50_ms']:.1f} ms; {ratios[-1]:.2f} times Feast"
        )
    return min(ratios), wrong


def one_group(served: str, profile: str, seconds: float) -> tuple[float, float]:
    """Answers a second for one group of one profile at the peak, and the p99 in ms at half of that."""
    request = one_key(profile)
    peak = loaded(Order(served, request, seconds, CLIENTS))
    half = loaded(Order(served, request, 2 * seconds, 4 * CLIENTS, peak["per_s"] / 2))
    print(
        f"  one group of one profile: {peak['per_s']:.0f}/s, p50 {peak['p50_ms']:.1f} ms; at half of that, "
        f"p50 {half['p50_ms']:.1f} ms, p99 {half['p99_ms']:.1f} ms"
    )
    return peak["per_s"], half["p99_ms"]


def folder_in(place: Path, name: str) -> Path:
    """A new folder."""
    (place / name).mkdir()
    return place / name


class Bench:
    """The stock, and a folder for all that holds it."""

    def __init__(self, place: Path, options: argparse.Namespace) -> None:
        self.place, self.options = place, options
        self.views = eight_views()
        self.stock = Stock.of(self.views, rows=30 * options.keys, keys=options.keys)
        self.served = [view for view in self.views if view.entity != "session_id"]

    def on(self, kind: str, url: str, online_store: dict[str, str], floor: Any) -> tuple[dict[str, float], float, int]:
        """One kind of store: ratios to Feast by number of keys, the least over HTTP, and how many values differ."""
        self.stock.put(url)
        feast_folder = folder_in(self.place, f"feast-{kind}")
        feast = feasts(feast_folder, self.stock.known, online_store)
        ratios: dict[str, float] = {}
        least, wrong = float("nan"), 0
        if self.options.only != "http":
            reel = reels(folder_in(self.place, f"reel-{kind}"), url)
            ratios, wrong = measure(reel, feast, self.views, self.stock.known, floor(url), self.options.repeats)
        if self.options.only != "sdk":
            put_people(url, self.stock, self.served)
            with (
                reel_serving(folder_in(self.place, f"service-{kind}"), url) as service,
                feast_serving(feast_folder) as address,
            ):
                least, differing = over_http(
                    kind, service.address, address, self.served, self.stock.known, self.options.seconds
                )
                wrong += differing
                if kind == "embedded":
                    profile = self.stock.known["user_viewing_history_by_profile_id"]["profile_id"][0].as_py()
                    self.peak, self.p99_ms = one_group(service.address, profile, self.options.seconds)
        return ratios, least, wrong

    def against_constant(self) -> float:
        """Answers a second of one group of one profile, over those of a constant."""
        url = f"lmdb://{self.place}/online"
        folder = folder_in(self.place, "constant")
        with reel_serving(folder, url, "tests.benchmarks.constant_service") as service:
            floor = loaded(Order(service.address, constant(), self.options.seconds, CLIENTS))
        print(f"  a constant: {floor['per_s']:.0f}/s, p50 {floor['p50_ms']:.1f} ms")
        return float(self.peak / floor["per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200, help="entities of each kind")
    parser.add_argument("--repeats", type=int, default=100, help="calls of the SDK")
    parser.add_argument("--seconds", type=float, default=5, help="of each load over HTTP")
    parser.add_argument("--only", choices=["sdk", "http"], help="one half of it")
    options = parser.parse_args()
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed; this benchmark needs it")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        bench = Bench(place, options)
        features = sum(len(view.group.features) for view in bench.views)
        print(f"{len(bench.views)} groups, {features} features")
        one, many = (tiles_ms(bench.views, bench.stock, size) for size in (1, 100))
        print(f"of tiles, without rows, the event groups alone: 1 key {one:.1f} ms, 100 keys {many:.1f} ms")
        print("embedded: LMDB against Feast's SQLite")
        sqlite = {"type": "sqlite", "path": str(place / "online.db")}
        ratios, least, wrong = bench.on("embedded", f"lmdb://{place}/online", sqlite, lmdb_floor)
        with running_redis(binary, folder_in(place, "redis")) as url:
            print("shared: both in Redis")
            shared = {"type": "redis", "connection_string": url.removeprefix("redis://").removesuffix("/0")}
            redis_ratios, redis_least, more_wrong = bench.on("shared", url, shared, redis_floor)
        said: dict[str, Any] = {"sdk_vs_feast": ratios, "redis_vs_feast": redis_ratios}
        if options.only != "sdk":
            said["http_vs_feast_serve"] = round(min(least, redis_least), 2)
            said["http_vs_constant"] = round(bench.against_constant(), 2)
            said["p99_ms_at_half_load"] = round(bench.p99_ms, 2)
    print(json.dumps(said | {"mismatches": wrong + more_wrong}))


if __name__ == "__main__":
    main()
