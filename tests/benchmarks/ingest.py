"""Kafka to committed bronze, and on to silver, for the platform's whole mix of server topics.

    python -m tests.benchmarks.ingest [--rows N] [--no-spark] [--memory-growth]

A broker of its own is filled first, which is not timed. Then, in the same run on the same bytes and on as many
processes as this machine is taken to have processors for (2):

    floor       librdkafka hands the messages over and they are dropped
    Reel        `reel ingest` into committed bronze, `reel clean` on to silver
    fastavro    a consumer that works message by message: decode, hash the ids, write Parquet (on a sample)
    Spark       structured streaming, one query a topic: from_avro, write Parquet; nothing is hashed or admitted

Everybody's clock stands still while processes start. `bronze_events_per_s` is messages over the seconds of ingest,
`silver_events_per_s` messages over those of ingest and clean together; `vs_` is bronze's rate over the other's.
Spark's Parquet is written by no commit of a table and its ids are plain, so it does less. `peak_gb` is the most
memory of the command with all of its Ray (PSS). What must be there is checked against the ledger of what was sent,
and a sample of rows against what fastavro read of the same messages. With `--memory-growth` only the peaks are
measured, at 1,000,000 and at 10,000,000 events.
"""

import argparse
import json

from pipelines.contract.events import load_contract
from pipelines.contract.registry import open_registry
from pipelines.kafka.log import open_log
from pipelines.kafka.offsets import OffsetRange
from tests.benchmarks.bench import SALT, Bench, Run, own_bench
from tests.benchmarks.peers.consuming import Consumed
from tests.benchmarks.peers.floor import floor
from tests.benchmarks.peers.per_message import per_message
from tests.benchmarks.peers.spark import SparkMissing, spark
from tests.benchmarks.same_rows import check_same_rows
from tests.benchmarks.tally import adds_up, show_tally, tally

SAMPLE = 200_000
GROWTH = (1_000_000, 10_000_000)


def main() -> None:
    """Measure, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-spark", action="store_true", help="leave Spark out")
    parser.add_argument("--memory-growth", action="store_true", help="only the peaks, at two sizes")
    options = parser.parse_args()
    if options.memory_growth:
        print(json.dumps({"peak_gb": {rows: peak_at(rows, options.seed) for rows in GROWTH}}))
        return
    with own_bench() as bench:
        print(json.dumps(compare(bench, options.rows, options.seed, with_spark=not options.no_spark)))


def compare(bench: Bench, rows: int, seed: int, *, with_spark: bool) -> dict[str, int | float | None]:
    """Fill the log, then everybody's turn."""
    fill(bench, rows, seed)
    everything = ranges_of(bench)
    sample = [
        OffsetRange(one.topic, one.partition, one.start, one.start + -(-one.size * SAMPLE // max(rows, SAMPLE)))
        for one in everything
    ]
    stored = sum(file.stat().st_size for file in (bench.folder / "kafka" / "data").glob("*/*.log"))
    floored = floor(bench.bootstrap, everything)
    show("floor", floored, f"{stored / floored.seconds / 1e6:.0f} MB/s of {stored / 1e9:.2f} GB as the broker keeps it")
    ingested, cleaned = road(bench)
    messages = int(ingested.report["read"]["messages"])
    assert messages == floored.messages, f"ingest read {messages} of {floored.messages} messages"
    bronze = Consumed(messages, ingested.seconds)
    silver = Consumed(messages, ingested.seconds + cleaned.seconds)
    peak = max(ingested.peak_bytes, cleaned.peak_bytes)
    show("Reel, to bronze", bronze, f"peak {ingested.peak_bytes / 1e9:.2f} GB")
    show("Reel, to silver", silver, f"peak {cleaned.peak_bytes / 1e9:.2f} GB in cleaning")

    theirs = bench.folder / "per-message"
    consumer = per_message(bench.bootstrap, sample, bench.settings.registry_location, SALT, theirs)
    show("fastavro", consumer, "a sample")
    sparked = run_spark(bench) if with_spark else None
    if sparked is not None:
        assert sparked.messages == messages, f"Spark read {sparked.messages} of {messages} messages"
        show("Spark", sparked, "")

    check(bench)
    print(f"{check_same_rows(bench.settings, theirs):,} rows are as fastavro reads them")
    return {
        "events": messages,
        "bronze_events_per_s": round(bronze.per_s),
        "silver_events_per_s": round(silver.per_s),
        "vs_floor": round(bronze.per_s / floored.per_s, 3),
        "vs_fastavro": round(bronze.per_s / consumer.per_s, 2),
        "vs_spark": None if sparked is None else round(bronze.per_s / sparked.per_s, 2),
        "peak_gb": round(peak / 1e9, 2),
    }


def fill(bench: Bench, rows: int, seed: int) -> None:
    """The backlog."""
    sent = bench.reel("traffic", "--events", str(rows), "--seed", str(seed))
    print(f"{sent.report['wrote']['messages']:,} messages sent in {sent.seconds:.1f} s")


def road(bench: Bench) -> tuple[Run, Run]:
    """Ingest and clean, each a command of its own."""
    return bench.reel("ingest"), bench.reel("clean")


def ranges_of(bench: Bench) -> list[OffsetRange]:
    """Everything that the log holds."""
    topics = load_contract(bench.settings.schemas).topics
    bounds = open_log(bench.settings).available(topics).bounds
    return [
        OffsetRange(topic, partition, low, high)
        for topic, partitions in bounds.items()
        for partition, (low, high) in partitions.items()
        if high > low
    ]


def run_spark(bench: Bench) -> Consumed | None:
    """Spark's turn; where it cannot be had, why."""
    registry = open_registry(bench.settings.registry_location)
    written = {span.topic for span in ranges_of(bench)}
    writers: dict[str, dict[int, tuple[str, str]]] = {}
    for event in load_contract(bench.settings.schemas).events:
        if event.topic in written:
            schema_id = registry.register(event.subject, event.avro_json)
            column = event.name.replace(".", "_")
            writers.setdefault(event.topic, {})[schema_id] = (column, event.avro_json)
    try:
        return spark(bench.bootstrap, writers, bench.folder / "spark")
    except SparkMissing as reason:
        print(reason)
        return None


def peak_at(rows: int, seed: int) -> float:
    """The most memory of the road over a backlog of `rows`, in GB."""
    with own_bench() as bench:
        fill(bench, rows, seed)
        peak = max(run.peak_bytes for run in road(bench)) / 1e9
        check(bench)
    print(f"{rows:,} events: at most {peak:.2f} GB")
    return round(peak, 2)


def check(bench: Bench) -> None:
    """Everything that was sent is where it belongs, once."""
    lines = tally(bench.settings, bench.ledger)
    if not adds_up(lines):
        show_tally(lines)
        raise AssertionError("what was sent and what arrived differ")


def show(name: str, done: Consumed, remark: str) -> None:
    """One line of the table."""
    print(f"{name:<18}{done.messages:>12,} messages {done.seconds:>8.1f} s {done.per_s:>11,.0f}/s  {remark}".rstrip())


if __name__ == "__main__":
    main()
