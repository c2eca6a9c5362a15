"""Feeding the log: what the simulator and the importers make, sent to Kafka as a platform's services would send it.

input   batches of events, in the order of their receipt
does    registers schemas, makes topics that are missing, sends, and waits until the broker has everything
output  Kafka topics
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from pipelines.contract.events import load_contract
from pipelines.event_batch import EventBatch
from pipelines.kafka.log import bootstrap_servers
from pipelines.kafka.produce import open_producer
from pipelines.movielens import events, read_movielens
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings
from pipelines.simulator import SimulationConfig, simulate
from pipelines.traffic import Traffic, TrafficConfig, trace_headers

OnProgress = Callable[[int], None]


def feed_simulation(settings: Settings, config: SimulationConfig, on_progress: OnProgress) -> StationReport:
    """Simulate a platform into the log; the truth it was made from goes to `{work_dir}/truth`."""
    truth = settings.work_dir / "truth"
    with timed("simulate") as report:
        report.read = {"households": config.households, "days": config.days, "seed": config.seed}
        _feed(settings, simulate(config, truth), report, on_progress)
        report.wrote["truth"] = str(truth)
    return report


def feed_movielens(settings: Settings, folder: Path, on_progress: OnProgress) -> StationReport:
    """Import a MovieLens folder into the log. Raises NotMovieLensError when it is none."""
    with timed("import") as report:
        movielens = read_movielens(folder)
        report.read = {"folder": str(folder)}
        _feed(settings, events(movielens), report, on_progress)
    return report


def feed_traffic(settings: Settings, config: TrafficConfig, on_progress: OnProgress) -> StationReport:
    """Send the platform's mix of events; what a pipeline must arrive at goes to `{work_dir}/traffic.json`."""
    contract = load_contract(settings.schemas)
    traffic = Traffic(config, contract)
    with timed("traffic") as report, open_producer(settings, contract, contract.topics) as producer:
        report.read = {"events": config.events, "seed": config.seed, "people": config.people}
        sent = 0
        for batch in traffic:
            for event, table in batch.tables:
                producer.produce(event, table, trace_headers(config.seed, sent, table.num_rows))
                sent += table.num_rows
            for rubbish in batch.rubbish:
                producer.produce_rubbish(rubbish)
            on_progress(batch.messages)
    ledger = settings.work_dir / "traffic.json"
    ledger.write_text(json.dumps(traffic.ledger.to_json(), indent=2) + "\n")
    report.wrote = {"messages": traffic.ledger.messages, "ledger": str(ledger)}
    return report


def _feed(settings: Settings, batches: Iterable[EventBatch], report: StationReport, on_progress: OnProgress) -> None:
    sent: dict[str, int] = {}
    contract = load_contract(settings.schemas)
    with open_producer(settings, contract, contract.topics) as producer:
        for batch in batches:
            for name, table in batch.tables.items():
                producer.produce(name, table)
                add_counts(sent, {name: table.num_rows})
            for rubbish in batch.rubbish:
                producer.produce_rubbish(rubbish)
                add_counts(sent, {"rubbish": 1})
            on_progress(batch.events + len(batch.rubbish))
    report.did = {"kafka": bootstrap_servers(settings)}
    report.wrote = {"messages": sum(sent.values()), **dict(sorted(sent.items()))}
