"""Named failures of `serving`: each says what was wrong, what was received and how to mend it."""

from typing import ClassVar


class ServingError(Exception):
    """Base of every failure that `serving` raises on purpose; exit code 1: the work failed."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(ServingError):
    """The configuration is wrong, and starting again unchanged cannot help; exit code 2."""

    exit_code: ClassVar[int] = 2


class StoreUrlError(ConfigurationError):
    """The address of the online store is not one that any backend understands."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"online store address {url!r}: {problem}; write lmdb:///absolute/path or redis://host:port/db"
        )


class StoreKeyError(ServingError):
    """A group or an entity cannot name a value in the online store."""


class StoreUnavailableError(ServingError):
    """The online store cannot be read or written now."""


class StoreSlowError(StoreUnavailableError):
    """The online store did not answer within its budget."""


class ModelUnavailableError(ServingError):
    """No champion model can answer now."""


class NoVersionError(ModelUnavailableError):
    """No version of the model is published, or the service does not run it: nothing failed."""


class ModelSlowError(ModelUnavailableError):
    """The champion model did not answer within the request's deadline."""


class PortInUseError(ServingError):
    """The service's port, or its address, cannot be listened on."""


class IngressError(ServingError):
    """The HAProxy ingress was asked for and cannot run on this machine."""
