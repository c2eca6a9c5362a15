"""One Kafka with one backlog, and what an undisturbed run makes of it, for all fault tests together."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.feed import feed_traffic
from pipelines.kafka.broker import LocalBroker
from pipelines.traffic import TrafficConfig
from tests.benchmarks.tally import adds_up, tally
from tests.conftest import start_or_skip
from tests.faults.road import Road
from tests.faults.topics import Topics
from tests.joined import session_ray

TRAFFIC = TrafficConfig(
    6_000, clients=0.05, people=200, titles=40, duplicates=0.03, late=0.03, malformed=0.005, nameless=0.002,
    analytics_refusal=0.2, events_per_batch=2_000,
)  # fmt: skip
# Some ten commits of several tasks, so that there are moments between.
PORTIONS = {
    "REEL_INGEST_MESSAGES_PER_TASK": "500",
    "REEL_INGEST_MESSAGES_PER_COMMIT": "1000",
    "REEL_INGEST_BATCH_SECONDS": "0.2",
    "REEL_LAKEHOUSE_EVENT_PARTITION": "month",
    "REEL_KAFKA_PARTITIONS": "2",
}

MakeRoad = Callable[..., Road]


@dataclass(frozen=True)
class Backlog:
    """What lies in Kafka, and the road of the run that nothing disturbed."""

    broker: LocalBroker
    bootstrap: str
    calm: Road

    @property
    def registry(self) -> str:
        """Where its schemas are."""
        return self.calm.environment["REEL_REGISTRY_URL"]


@pytest.fixture(scope="package")
def cluster(ray_session: None) -> dict[str, str]:
    """Variables of `reel` processes that join the session's Ray, so that not each of them has to start one."""
    return session_ray()


@pytest.fixture(scope="package")
def backlog(cluster: dict[str, str], kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backlog]:
    """The platform's mix of events in a Kafka of the fault tests' own. The undisturbed run agrees with its ledger."""
    folder = tmp_path_factory.mktemp("backlog")
    broker = LocalBroker(folder / "kafka", kafka_libs)
    bootstrap = start_or_skip(broker).bootstrap
    try:
        calm = Road(folder / "calm", _environment(bootstrap, folder / "registry.db", cluster))
        feed_traffic(calm.settings, TRAFFIC, lambda messages: None)
        calm.ingest_and_clean()
        ledger = json.loads((calm.folder / "traffic.json").read_text())
        assert adds_up(tally(calm.settings, ledger))
        yield Backlog(broker, bootstrap, calm)
    finally:
        broker.stop()


@pytest.fixture
def make_road(backlog: Backlog, tmp_path: Path) -> MakeRoad:
    """Roads from the backlog into folders of their own; the variables that differ are given."""
    made: list[Road] = []

    def make(**variables: str) -> Road:
        made.append(Road(tmp_path / f"road-{len(made)}", backlog.calm.environment | variables))
        return made[-1]

    return make


def _environment(bootstrap: str, registry: Path, cluster: dict[str, str]) -> dict[str, str]:
    return (
        PORTIONS
        | cluster
        | {
            "REEL_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "REEL_REGISTRY_URL": str(registry),
        }
    )


@pytest.fixture
def topics(backlog: Backlog) -> Topics:
    """Topics of a test's own in the broker of the backlog."""
    return Topics(backlog.bootstrap, backlog.registry)
