"""What tests of several folders stand on: the project's folders, a real Kafka, a real Ray, the public data sets."""

import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import prometheus_client.values
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.errors import JavaMissing, MavenMissing
from pipelines.kafka.broker import DEFAULT_FOLDER, BrokerAddress, LocalBroker
from pipelines.processes import find_free_port
from tests.together import TogetherScheduling, long_ones_first

OBJECT_STORE_BYTES = 500_000_000

# Imported before Feast, which sets that metrics of one name are one number in all registries of a process.
assert not prometheus_client.values.ValueClass._multiprocess

# Hypothesis's own: the same examples every time, and none of them fails because the machine is slow just then.
hypothesis.settings.load_profile("ci")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherScheduling:
    """Several processes: see `tests.together`."""
    return TogetherScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One process runs the files in the order of their names; of several, each has a long unit to begin with."""
    if hasattr(config, "workerinput"):
        long_ones_first(items)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data(project_root: Path) -> Path:
    """The folder of the public data sets, `../shared/data` or REEL_SHARED_DATA."""
    folder = Path(os.environ.get("REEL_SHARED_DATA", project_root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("shared/data is not beside the project")
    return folder


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    return find_free_port()


@pytest.fixture(scope="session")
def kafka_libs(project_root: Path) -> Path:
    """Where all brokers of the tests have their jars from: fetched once for the project, not for each session."""
    return project_root / DEFAULT_FOLDER / "libs"


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_libs: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka: that of REEL_KAFKA_BOOTSTRAP_SERVERS, else one of this session's own."""
    elsewhere = os.environ.get("REEL_KAFKA_BOOTSTRAP_SERVERS")
    if elsewhere:
        yield elsewhere
        return
    folder = tmp_path_factory.mktemp("kafka")
    # It waits for the end of its input, which comes when this session closes it, and also if this session is killed.
    guard = subprocess.Popen(
        ["sh", "-c", 'read _; exec "$0" -m pipelines.kafka.broker stop --folder "$1"', sys.executable, str(folder)],
        cwd=project_root,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield start_or_skip(LocalBroker(folder, libs=kafka_libs)).bootstrap
    finally:
        guard.communicate()


def start_or_skip(broker: LocalBroker) -> BrokerAddress:
    """Start `broker`; skip the test where what it needs is not installed, fail it for every other reason."""
    try:
        return broker.start()
    except (JavaMissing, MavenMissing) as missing:
        pytest.skip(str(missing))


@pytest.fixture
def make_topic(kafka_bootstrap: str) -> Callable[..., str]:
    """Creates a topic that no other test has, and returns its name: `make_topic("client.playback", partitions=2)`."""
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})

    def make(stem: str = "test", partitions: int = 1) -> str:
        topic = f"{stem}.{uuid.uuid4().hex[:12]}"
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(timeout=30)
        return topic

    return make


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of this session's own on 2 cores, whatever others run on the machine."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def local_broker(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker of one module's own, for tests that kill it and start it again."""
    broker = LocalBroker(tmp_path_factory.mktemp("kafka"), kafka_libs)
    start_or_skip(broker)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def own_broker(local_broker: LocalBroker) -> str:
    """Bootstrap servers of a broker of one module's own, for tests that use the contract's topics."""
    address = local_broker.status()
    assert address is not None, "it was started"
    return address.bootstrap
