"""Freshness: from an event in Kafka to a value that can be read, at several rates of events.

A real broker, `reel stream` in a process of its own, the platform's mix of client events sent at a steady rate by a
third process, which has made them before it begins. Beside them probes: twenty times a second a viewer whom nobody
else is finishes a title; a probe has arrived when the online store holds their viewing history. Its time runs from
before it is handed to the producer.

Each rate begins with the stream caught up. At the end the stream is stopped, a backlog is sent, and it catches up:
`max_events_per_s`. Every probe must arrive with the title it sent, else the benchmark fails.

Freshness needs no peer: its goal is absolute (99 of 100 values within a second; the platform's own goal is a minute).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import unpack_values
from features.pseudonyms import Pseudonymizer
from pipelines.contract.codec import encode_in_chunks, wire_format
from pipelines.contract.events import Contract, load_contract
from pipelines.contract.registry import open_registry
from pipelines.kafka.offsets import available, client_configuration
from pipelines.kafka.produce import Producer, ensure_topics, keys_of
from pipelines.kafka.write import KafkaWriter
from pipelines.settings import Settings
from pipelines.traffic import Traffic, TrafficConfig
from pipelines.traffic.mix import RATE_PER_S
from serving.online_store import OnlineStore, open_online_store
from tests.benchmarks.bench import SALT, Bench, Command, own_bench
from tests.platform import event

PROBES_PER_S, EVENTS_A_PERSON = 20, 2
LONGEST_WAIT_S = 120
MADE_PER_S = 4_000
"""As many events are surely made a second, before they are sent."""
LOOK_S = 0.01
"""Between two looks for probes, each of which reads values and takes them apart."""
GROUP = USER_VIEWING_HISTORY.stored_as("profile_id")


def traffic(rate: float, seconds: float, start_ms: int, people: int) -> TrafficConfig:
    """So many events a second of so many well-behaved clients, from an instant on."""
    return TrafficConfig(
        events=int(rate * seconds), rate=rate / RATE_PER_S, clients=1.0, start_ms=start_ms, people=people,
        duplicates=0, late=0, malformed=0, nameless=0, sessionless=0, events_per_batch=max(1, int(rate / 20)),
    )  # fmt: skip


def send(settings: Settings, config: TrafficConfig, *, with_prologue: bool) -> None:
    """Send traffic, all at once."""
    contract = load_contract(settings.schemas)
    with producer_of(settings, contract) as producer:
        batches = iter(Traffic(config, contract))
        prologue = next(batches)
        if with_prologue:
            for schema, table in prologue.tables:
                producer.produce(schema, table)
            producer.flush()
        for batch in batches:
            for schema, table in batch.tables:
                producer.produce(schema, table)


@dataclass(frozen=True)
class Due:
    """Messages of one batch as they go to Kafka, by topic, and when: seconds after the first ones."""

    after_s: float
    messages: list[tuple[str, list[bytes | None], list[bytes]]]


def made(settings: Settings, config: TrafficConfig) -> list[Due]:
    """Traffic as messages, made before any is sent: whoever makes them takes more of a core than whoever sends them."""
    contract, registry = load_contract(settings.schemas), open_registry(settings.registry_location)
    batches = iter(Traffic(config, contract))
    next(batches)  # who there is has been told
    found, count = [], 0
    for batch in batches:
        messages = []
        for schema, table in batch.tables:
            schema_id = registry.register(schema.subject, schema.avro_json)
            bodies = [body for chunk in encode_in_chunks(schema, table) for body in chunk]
            messages.append((schema.topic, list(keys_of(table)), wire_format(schema_id, bodies)))
        found.append(Due(count / (config.rate * RATE_PER_S), messages))
        count += batch.messages
    return found


def feed(settings: Settings, rate: float, seconds: float, people: int) -> float:
    """Send traffic at a rate, each batch when it is due; events a second as they were sent. Says when it begins."""
    start_ms = int(time.time() * 1000 + 2_000 + rate * seconds / MADE_PER_S * 1000)
    traffic_made = made(settings, traffic(rate, seconds, start_ms, people))
    bootstrap = settings.kafka.bootstrap_servers
    assert bootstrap is not None
    writer = KafkaWriter({"bootstrap.servers": bootstrap}, settings.kafka.timeout_s)
    time.sleep(max(0.0, start_ms / 1000 - time.time()))
    print("begins", flush=True)
    sent, began = 0, time.monotonic()
    for due in traffic_made:
        time.sleep(max(0.0, began + due.after_s - time.monotonic()))
        now_ms = int(time.time() * 1000)
        for topic, keys, values in due.messages:
            writer.append(topic, keys, values, [now_ms] * len(values))
            sent += len(values)
    writer.flush()
    taken_s = time.monotonic() - began
    writer.close()
    return sent / taken_s


def producer_of(settings: Settings, contract: Contract) -> Producer:
    bootstrap = settings.kafka.bootstrap_servers
    assert bootstrap is not None
    return Producer(bootstrap, contract, open_registry(settings.registry_location))


@dataclass
class Probes:
    """Viewers of whom nothing is known but that they exist, who finish a title each."""

    settings: Settings
    contract: Contract
    hasher: Pseudonymizer
    used: int = 0

    def describe(self, count: int) -> None:
        """Say of so many that they are no children."""
        at_ms = int(time.time() * 1000) - 3_600_000
        self._send(
            "profile.updated", [event("profile.updated", at_ms, f"probe-{n}", is_kids=False) for n in range(count)]
        )

    def run(self, seconds: float, store: OnlineStore) -> list[float]:
        """Milliseconds from an event to its value, of every probe of some seconds."""
        waiting: dict[str, tuple[float, str]] = {}
        found: list[float] = []
        began, sent = time.monotonic(), 0
        with producer_of(self.settings, self.contract) as producer:
            while waiting or time.monotonic() - began < seconds:
                if time.monotonic() - began < seconds and time.monotonic() >= began + sent / PROBES_PER_S:
                    key, since = self._finish_a_title(producer)
                    waiting[key] = since
                    sent += 1
                found += self._arrived(store, waiting)
                if any(time.monotonic() - since > LONGEST_WAIT_S for since, _ in waiting.values()):
                    raise RuntimeError(f"{len(waiting)} of {sent} probes have not arrived in {LONGEST_WAIT_S} s")
                time.sleep(LOOK_S)
        return found

    def _finish_a_title(self, producer: Producer) -> tuple[str, tuple[float, str]]:
        name, content, now = f"probe-{self.used}", f"title-{self.used}", int(time.time() * 1000)
        self.used += 1
        common = {"content_id": content, "content_type": "vod", "playback_id": f"play-{name}"}
        ending = {
            "position_ms": 9,
            "total_duration_ms": 9,
            "completion_percent": 100.0,
            "stop_reason": "end_of_content",
        }
        rows = [
            event("playback.started", now - 1, name, **common),
            event("playback.stopped", now, name, **common, **ending),
        ]
        since = time.monotonic()
        for row in rows:
            producer.produce(row["event_name"], self._table(row["event_name"], [row]))
        producer.flush()
        return self.hasher.hash(f"{name}-p"), (since, content)

    def _arrived(self, store: OnlineStore, waiting: dict[str, tuple[float, str]]) -> list[float]:
        keys = list(waiting)
        values = store.get_many(GROUP, keys)
        now, later_ms = time.monotonic(), int(time.time() * 1000) + 60_000
        found = []
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            titles = unpack_values(USER_VIEWING_HISTORY, [value], later_ms)["recent_titles"].to_pylist()[0]
            since, content = waiting[key]
            if titles == [content]:  # the start alone may be there first
                found.append((now - since) * 1000)
                del waiting[key]
        return found

    def _send(self, name: str, rows: Sequence[dict[str, object]]) -> None:
        with producer_of(self.settings, self.contract) as producer:
            producer.produce(name, self._table(name, rows))

    def _table(self, name: str, rows: Sequence[dict[str, object]]) -> pa.Table:
        return pa.Table.from_pylist(list(rows), schema=self.contract.event(name).arrow)


@dataclass(frozen=True)
class Stream:
    """What the online store says of the stream."""

    settings: Settings
    store: OnlineStore

    def consumed(self) -> int:
        """Offsets it has read, over the topics that it reads."""
        return sum(one["offset"] for some in self._said().get("partitions", {}).values() for one in some.values())

    def wait_until_caught_up(self) -> None:
        """Until it runs, and has read everything there is by now."""
        deadline = time.monotonic() + 10 * LONGEST_WAIT_S
        while not self.has_caught_up():
            if time.monotonic() > deadline:
                raise RuntimeError("the stream does not catch up")
            time.sleep(0.02)

    def has_caught_up(self) -> bool:
        """Whether it runs, and has read everything there is by now."""
        said = self._said()
        if not said.get("is_running") or time.time() * 1000 - said["at_ms"] > 5_000:
            return False
        bootstrap = self.settings.kafka.bootstrap_servers
        assert bootstrap is not None
        now = available(client_configuration(self.settings, bootstrap), list(said["partitions"]), 10)
        return all(
            said["partitions"][topic][str(one)]["offset"] >= latest
            for topic, partitions in now.bounds.items()
            for one, (_, latest) in partitions.items()
        )

    def _said(self) -> dict:  # type: ignore[type-arg]
        (said,) = self.store.get_many("meta", ["stream"])
        return {} if said is None else json.loads(said)


@contextmanager
def running(bench: Bench) -> Iterator[Command]:
    """`reel stream` in a process of its own."""
    stream = bench.start("stream")
    try:
        yield stream
    finally:
        stream.stop()


def measure(bench: Bench, rates: Sequence[int], seconds: float, backlog: int, people: int) -> dict[str, object]:
    """What the last line says."""
    settings, contract = bench.settings, load_contract(bench.settings.schemas)
    ensure_topics(bench.bootstrap, contract.topics, settings.kafka.partitions)
    probes = Probes(settings, contract, Pseudonymizer((SALT,)))
    probes.describe(int((seconds + 1) * PROBES_PER_S * (len(rates) + 1)))
    hour_ago = int(time.time() * 1000) - 3_600_000
    send(settings, traffic(1000, EVENTS_A_PERSON * people / 1000, hour_ago, people), with_prologue=True)
    print(f"{people:,} people, {EVENTS_A_PERSON * people:,} events of before", flush=True)
    for station in ("ingest", "clean", "features"):
        print(f"{station}: {bench.reel(station).seconds:.1f} s", flush=True)
    p99_ms: dict[str, int] = {}
    store = open_online_store(settings.online_store_url)
    stream = Stream(settings, store)
    with running(bench):
        stream.wait_until_caught_up()
        probes.run(1, store)  # whatever is done the first time
        for rate in rates:
            feeder = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.freshness", "--feed", str(bench.folder / "config.yaml"),
                 "--rates", str(rate), "--seconds", str(seconds + 2), "--people", str(people)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert feeder.stdout is not None
            if feeder.stdout.readline() != "begins\n":
                raise RuntimeError("the traffic could not be made: see above")
            found = probes.run(seconds, store)
            sent = float(feeder.communicate()[0].split()[-1])
            p50, p99 = np.percentile(found, [50, 99])
            p99_ms[str(rate)] = round(p99)
            print(
                f"{rate:,} events/s (sent {sent:,.0f}): {len(found)} probes, p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
                f"longest {max(found):.0f} ms",
                flush=True,
            )
            stream.wait_until_caught_up()
    before = stream.consumed()
    send(settings, traffic(20_000, backlog / 20_000, int(time.time() * 1000), people), with_prologue=False)
    with running(bench):
        while stream.consumed() == before:
            time.sleep(0.005)
        first, began = stream.consumed(), time.monotonic()
        stream.wait_until_caught_up()
        read = stream.consumed() - first
        per_s = read / (time.monotonic() - began)
    if not read:
        raise RuntimeError(f"the backlog was one batch: --backlog must be above {settings.stream.batch_messages:,}")
    print(f"a backlog of {backlog:,} events of all topics: {per_s:,.0f} read events/s", flush=True)
    return {"p99_ms": p99_ms, "max_events_per_s": round(per_s)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--backlog", type=int, default=200_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--feed", metavar="CONFIG", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.feed:
        from pathlib import Path

        from pipelines.settings import load_settings

        settings = load_settings(Path(options.feed), {})
        print(feed(settings, options.rates[0], options.seconds, options.people))
        return
    with own_bench(lakehouse={"event_partition": "month"}, stream={"actors": options.actors}) as bench:
        print(json.dumps(measure(bench, options.rates, options.seconds, options.backlog, options.people)))


if __name__ == "__main__":
    main()
