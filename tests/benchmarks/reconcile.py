"""Does everything add up when ingest follows a log that is still being written?

    python -m tests.benchmarks.reconcile [--events N] [--seed S] [--clients SHARE]

`reel ingest --follow` runs from before the first message until nothing has come for a while; meanwhile `reel traffic`
sends the platform's mix, with duplicates (soon after, and a whole run later), late events and malformed messages. At
the end every line of the reconciliation must have a difference of 0, else the exit code is 1.
"""

import argparse
import json
import sys

from pipelines.contract.events import load_contract
from pipelines.kafka.produce import ensure_topics
from tests.benchmarks.bench import Bench, Run, own_bench
from tests.benchmarks.tally import adds_up, show_tally, tally

IDLE_S = 30


def main() -> int:
    """Send and follow, then count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--clients", type=float, default=0.1)
    options = parser.parse_args()
    with own_bench() as bench:
        sent, followed = send_and_follow(bench, options.events, options.seed, options.clients)
        ledger = bench.ledger
        lines = tally(bench.settings, ledger)
    batches, messages = int(followed.report["did"]["batches"]), int(followed.report["read"]["messages"])
    print(
        f"{sent.report['wrote']['messages']:,} messages sent in {sent.seconds:.0f} s, {ledger['late']:,} of them late"
    )
    print(f"{messages:,} read in {batches} batches in {followed.seconds:.0f} s, the last {IDLE_S} s of it waiting")
    show_tally(lines)
    print(
        json.dumps(
            {
                "messages": messages,
                "batches": batches,
                "events_per_s": round(messages / (followed.seconds - IDLE_S)),
                "peak_gb": round(followed.peak_bytes / 1e9, 2),
                "adds_up": adds_up(lines),
            }
        )
    )
    return 0 if adds_up(lines) else 1


def send_and_follow(bench: Bench, events: int, seed: int, clients: float) -> tuple[Run, Run]:
    """Both at once; both ended."""
    settings = bench.settings
    ensure_topics(bench.bootstrap, load_contract(settings.schemas).topics, settings.kafka.partitions)
    follower = bench.start("ingest", "--follow", "--until-idle", str(IDLE_S))
    try:
        sent = bench.reel("traffic", "--events", str(events), "--seed", str(seed), "--clients", str(clients))
    except BaseException:
        follower.stop()
        raise
    return sent, follower.finish()


if __name__ == "__main__":
    sys.exit(main())
