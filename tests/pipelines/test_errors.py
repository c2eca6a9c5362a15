"""Failures keep their message and their kind between processes: Ray's tasks send theirs that way."""

import pickle
from pathlib import Path

import pytest

from features.errors import DeclarationError, FeatureError
from features.pseudonyms import NoSaltError
from pipelines.errors import DeliveryFailed, PortInUse, ReelError, SimulationConfigError, UnknownSchemaId, UsageError
from pipelines.kafka.embedded import EmbeddedLogError
from pipelines.kafka.offsets import BrokerUnreachableError, UnknownTopicError
from pipelines.kafka.read import ReadStalledError
from pipelines.lakehouse.commits import ConcurrentCommitError

FAILURES = [
    ReelError("it failed"),
    UsageError("that is wrong"),
    SimulationConfigError("days", -1, "at least 1"),
    UnknownSchemaId(7, "registry.db"),
    DeliveryFailed(3, "timed out"),
    PortInUse(8000, "in use"),
    BrokerUnreachableError("localhost:9092", 10, "refused"),
    UnknownTopicError("a", ["b"]),
    ReadStalledError("t", 0, 3, 5, "silence"),
    ConcurrentCommitError("bronze.events"),
    EmbeddedLogError(Path("log.db"), "disk full"),
    NoSaltError(),
    DeclarationError("a window of 0"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_travels_with_its_message(failure):
    arrived = pickle.loads(pickle.dumps(failure))
    assert type(arrived) is type(failure)
    assert str(arrived) == str(failure)
    assert arrived.args == failure.args
    assert isinstance(arrived, ReelError | FeatureError)


def test_exit_codes():
    assert {failure.exit_code for failure in FAILURES if isinstance(failure, UsageError)} == {2}
    assert {failure.exit_code for failure in FAILURES if isinstance(failure, ReelError)} == {1, 2}
    assert ReelError.exit_code == 1
