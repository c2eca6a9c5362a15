"""Named failures of `pipelines`: each says what was wrong, what was received and how to mend it."""

from typing import Any, ClassVar


class ReelError(Exception):
    """Base of every failure that a `reel` command reports as one clear line; exit code 1: the work failed.

    It keeps its message when it travels from a Ray task. `passes` says that the same work may succeed in a while
    without anybody mending anything: a broker restarts, a catalog is busy.
    """

    exit_code: ClassVar[int] = 1
    passes: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made again by calling its class with the message, which needs other arguments.
        return _revive, (type(self), self.args)


def _revive(kind: type[ReelError], arguments: tuple[Any, ...]) -> ReelError:
    return kind.__new__(kind, *arguments)


class UsageError(ReelError):
    """The command or its configuration is wrong, and running it again unchanged cannot help; exit code 2."""

    exit_code: ClassVar[int] = 2


class SimulationConfigError(UsageError):
    """A setting of the simulated platform is out of its range."""

    def __init__(self, setting: str, received: object, expected: str) -> None:
        super().__init__(f"simulation setting {setting} must be {expected}, got {received!r}")


class NotMovieLensError(UsageError):
    """A folder or file that was given as MovieLens 100K is not that."""


class ContractError(UsageError):
    """The event schemas contradict themselves, or something was asked of them that they do not define."""


class IncompatibleSchema(ReelError):
    """A writer's Avro schema cannot be read as, or evolved into, the event that the contract knows."""


class EncodeError(ReelError):
    """A table does not fit the event it is to be written as."""


class UnknownSchemaId(ReelError):
    """A message carries a schema id that the registry has never given out."""

    def __init__(self, schema_id: int, registry: object) -> None:
        super().__init__(
            f"schema id {schema_id} is not in the registry {registry}; "
            "the message is rubbish, or was written with another registry"
        )


class RegistryUnavailable(ReelError):
    """The schema registry does not answer, or not now."""

    passes: ClassVar[bool] = True

    def __init__(self, registry: object, reason: object) -> None:
        super().__init__(f"the schema registry {registry} is not available ({reason}); check registry.url")


class RegistryRefused(ReelError):
    """The schema registry answers, but not as one that Reel may use: another service, no access, a broken file."""

    def __init__(self, registry: object, reason: object) -> None:
        super().__init__(f"the schema registry {registry} cannot be used ({reason}); check registry.url")


class NoBaseline(UsageError):
    """There is nothing that the event contract could be compared with where it was asked for."""


class ContractBroken(ReelError):
    """A change of the event contract breaks those who read or write events."""


class DeliveryFailed(ReelError):
    """Kafka did not confirm every message that was handed to it."""

    def __init__(self, unconfirmed: int, reason: object) -> None:
        super().__init__(
            f"Kafka did not confirm {unconfirmed} messages ({reason}); run it again when the broker is well: "
            "events that did arrive are recognised by their event_id"
        )


class JavaMissing(ReelError):
    """The local Kafka broker needs a Java that is not there, or is too old."""


class MavenMissing(ReelError):
    """The local Kafka broker's jars are not there yet, and neither is the Maven that would fetch them."""


class KafkaJarsNotFetched(ReelError):
    """Maven could not fetch the jars of the local Kafka broker."""


class PortInUse(ReelError):
    """A port that something of ours is to listen on cannot be had."""

    def __init__(self, port: int, reason: str) -> None:
        super().__init__(f"port {port} cannot be had ({reason}): stop what uses it, or choose another port")


class BrokerStartFailed(ReelError):
    """The local Kafka broker died while it started, or does not answer in time."""


class BrokerStopFailed(ReelError):
    """The local Kafka broker outlived even SIGKILL."""


class BrokerRunsElsewhere(UsageError):
    """The local Kafka broker was asked for on one port while it runs on another."""
