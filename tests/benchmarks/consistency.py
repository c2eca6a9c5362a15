"""Consistency: how much of what is served live equals, to the bit, what the batch says of the same instants later.

A real broker, `reel stream` in a process of its own, the platform's mix of client events sent at a steady rate by a
third process, and the service's own look-up (`serving/feature_lookup.py`: consent, store, values, log) asked over and
over for random keys of every group that can be asked for, as of the clock, as in production. Then traffic ends, the
batch takes in what came, and `reel consistency` compares every logged value.

Consistency needs no peer: its goal is absolute (at least 99.9 % exact, and every difference explained).
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import get_args

import numpy as np

from features.entities import entity as entity_of
from features.groups import GROUPS
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from pipelines.contract.events import load_contract
from pipelines.kafka.produce import ensure_topics
from pipelines.settings import Settings
from pipelines.traffic import TrafficConfig
from pipelines.traffic.people import People
from serving.feature_log import FeatureLog
from serving.feature_lookup import Entity, FeatureLookup, Question
from serving.online_store import open_online_store
from serving.settings import ServedFeatureSettings, ServingSettings
from serving.store_reader import StoreReader
from tests.benchmarks.bench import SALT, Bench, own_bench
from tests.benchmarks.freshness import Stream, feed, running, traffic

FLUSH_S = 0.5
KEYS_ASKED = 20
PAUSE_S = 0.05


def questions(plain: dict[str, list[str]], rng: random.Random) -> list[Question]:
    """All groups of one entity, for some of its keys."""
    entity = rng.choice([one for one in get_args(Entity) if plain[one]])
    groups = [group for group in GROUPS if entity in group.entities]
    return [Question(groups, entity, rng.choices(plain[entity], k=KEYS_ASKED))]


def keys_of(settings: Settings, config: TrafficConfig) -> dict[str, list[str]]:
    """Plain keys that traffic is about, of every entity: of people as they are called, of others as they are stored."""
    found: dict[str, set[str]] = {one: set() for one in get_args(Entity)}
    with open_online_store(settings.online_store_url, readonly=True) as store:
        for group in GROUPS:
            for one in set(group.entities) & set(found):
                if not entity_of(one).is_personal:
                    found[one] |= set(store.keys(group.stored_as(one)))
    people = People(config).viewer(np.arange(config.people))
    found |= {one: set(people[one].to_pylist()) for one in ("user_id", "profile_id")}
    return {name: sorted(keys) for name, keys in found.items()}


def ask_for(settings: Settings, plain: dict[str, list[str]], seconds: float) -> int:
    """Look keys up for some seconds, everything logged; how many look-ups."""
    log = FeatureLog(
        ServedFeatureSettings(folder=settings.served_features_folder, share=1, flush_s=FLUSH_S, most_waiting=1_000_000),
        lambda: open_online_store(settings.online_store_url, readonly=True),
    )
    chosen = ServingSettings(
        online_store_url=settings.online_store_url, mlflow_tracking_uri="sqlite:///none", store_budget_ms=10_000
    )
    lookup = FeatureLookup(StoreReader(chosen.online_store_url, 10_000), Pseudonymizer((SALT,)), chosen, log)
    rng, asked = random.Random(7), 0

    async def ask() -> int:
        nonlocal asked
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await lookup.answers(questions(plain, rng), Purpose.PERSONALIZATION, None)
            asked += 1
            await asyncio.sleep(PAUSE_S)
        return asked

    with closing(log):
        asyncio.run(ask())
    if log.counts.dropped:
        raise RuntimeError(f"{log.counts.dropped} rows were dropped")
    print(f"{asked:,} look-ups, {log.counts.written:,} rows logged, {log.counts.not_allowed:,} not allowed", flush=True)
    return asked


def measure(bench: Bench, rate: int, seconds: float, base: int, people: int) -> dict[str, object]:
    """What the last line says."""
    settings, contract = bench.settings, load_contract(bench.settings.schemas)
    ensure_topics(bench.bootstrap, contract.topics, settings.kafka.partitions)
    hour_ago = int(time.time() * 1000) - 3_600_000
    past = traffic(1000, base / 1000, hour_ago, people)
    feed(settings, past, at_once=True, with_prologue=True)
    # Features are built as far as events go: as in production, up to this hour's boundary.
    feed(settings, traffic(50, 1, int(time.time() * 1000), people), at_once=True, with_prologue=False)
    for station in ("ingest", "clean", "features"):
        print(f"{station}: {bench.reel(station).seconds:.1f} s", flush=True)
    plain = keys_of(settings, past)
    print("keys: " + ", ".join(f"{len(keys):,} {name}" for name, keys in plain.items()), flush=True)
    with open_online_store(settings.online_store_url) as store, running(bench):
        stream = Stream(settings, store)
        stream.wait_until_caught_up()
        feeder = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.freshness", "--feed", str(bench.folder / "config.yaml"),
             "--rates", str(rate), "--seconds", str(seconds + 5), "--people", str(people)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert feeder.stdout is not None
        feeder.stdout.readline()
        before, began = stream.consumed(), time.monotonic()
        ask_for(settings, plain, seconds)
        per_s = (stream.consumed() - before) / (time.monotonic() - began)
        feeder.communicate()
        stream.wait_until_caught_up()
    for station in ("ingest", "clean", "features"):
        print(f"{station}: {bench.reel(station).seconds:.1f} s", flush=True)
    report = bench.reel("consistency", "--html", str(bench.folder / "consistency.html")).report
    print(json.dumps(report["did"]), flush=True)
    return summary(report, per_s)


def summary(report: dict[str, object], per_s: float) -> dict[str, object]:
    """The last line, of the command's own report."""
    features: Sequence[dict[str, object]] = report["features"]  # type: ignore[assignment]
    did: dict[str, int] = report["did"]  # type: ignore[assignment]
    for one in features:
        if one["reasons"]:
            print(f"{one['group']}.{one['feature']} by {one['entity']}: {one['reasons']}", flush=True)
    errors = [one["smape"] for one in features if one["smape"] is not None]
    return {
        "compared": did["values"],
        "exact_share": report["exact_share"],
        "missing": did.get("missing", 0),
        "different": did.get("different", 0) + did.get("extra", 0),
        "unexplained": did.get("unexplained", 0) + did.get("not examined", 0),
        "smape_max": max(errors, default=None),  # type: ignore[type-var]
        "events_per_s": round(per_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--base", type=int, default=40_000)
    parser.add_argument("--people", type=int, default=20_000)
    options = parser.parse_args()
    logged = {"served_features": {"share": 1, "flush_s": FLUSH_S}}
    with own_bench(lakehouse={"event_partition": "month"}, stream={"actors": 1}, serving=logged) as bench:
        print(json.dumps(measure(bench, options.rate, options.seconds, options.base, options.people)))


if __name__ == "__main__":
    main()
