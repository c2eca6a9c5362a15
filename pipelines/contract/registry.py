"""Schema registries: a small number in each message stands for the schema it was written with.

`FileRegistry` is embedded (one SQLite file); `ConfluentRegistry` talks to a server with Confluent's REST API. Both
refuse a schema that breaks the readers of the ones before it under the same subject.
"""

from pathlib import Path
from typing import Protocol

from pipelines.contract.file_registry import FileRegistry

__all__ = ["FileRegistry", "SchemaRegistry", "is_server", "open_registry"]


class SchemaRegistry(Protocol):
    """What a registry does; ids never change their meaning.

    Every call may raise `RegistryUnavailable` (it does not answer, which passes) or `RegistryRefused` (it is no
    registry, or lets nobody in).
    """

    @property
    def name(self) -> str:
        """Where it is, fit to be shown."""

    def register(self, subject: str, schema_json: str) -> int:
        """Return the id of `schema_json` (the same text always has the same id), made a version of `subject`.

        Raises `IncompatibleSchema` if it may not follow the versions that `subject` has.
        """

    def lookup(self, schema_id: int) -> str:
        """Return the schema of `schema_id`; raises `UnknownSchemaId`."""

    def subjects(self) -> list[str]:
        """Return the subjects that have a version."""

    def versions(self, subject: str) -> list[str]:
        """Return the schemas of `subject`, oldest first; [] if there are none."""

    def latest(self, subject: str) -> str | None:
        """Return the newest schema of `subject`; None if there is none."""

    def guard(self, subject: str) -> None:
        """Have the registry refuse, from now on and from everybody, versions of `subject` that break its readers."""


def is_server(location: str | Path) -> bool:
    """Whether `location` is the URL of a registry server, else it is the path of an embedded one."""
    return isinstance(location, str) and location.startswith(("http://", "https://"))


def open_registry(location: str | Path) -> SchemaRegistry:
    """Open the registry at an http(s) URL, else the one in the file of that path, made on first use."""
    if not is_server(location):
        return FileRegistry(Path(location))
    # Every station asks a registry, few of them a server: its client takes a third of a second to import.
    from pipelines.contract.confluent_registry import ConfluentRegistry

    return ConfluentRegistry(str(location))
