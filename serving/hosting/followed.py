"""One alias of one model: the version it names, loaded. The one before goes on answering until the next is loaded."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from models.errors import ModelError
from serving.hosting.questions import Arm, ServedVersion
from serving.hosting.registry import Registry

# What a registry, a file or a library says of a version that it cannot give.
_NOT_LOADED = (MlflowException, ModelError, OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError)

_PART = "part."  # tags of an assembled version begin with it
_log = logging.getLogger(__name__)


class Servable(Protocol):
    """A loaded model, asked with its own kind of questions (`serving.hosting.questions`)."""

    def answer(self, questions: Sequence[Any]) -> list[Any]:
        """One answer a question."""
        ...

    def warm_up(self) -> None:
        """Ask it once: the first pass through a library is slow, and no request should pay for it."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A version at work."""

    servable: Servable
    served: ServedVersion


class FollowedModel:
    """What the alias names. `refresh` is for one thread; `loaded` may be read by any."""

    def __init__(self, registry: Registry, model: str, alias: Arm, load: Callable[[Path], Servable]) -> None:
        self.model, self.alias = model, alias
        self.loaded: Loaded | None = None
        self.problem: str | None = "not looked up yet"
        self.is_published = True
        """Whether a version had the alias when that could be seen last."""
        self._registry, self._load = registry, load

    def refresh(self) -> None:
        """Look the alias up and load its version if it is another one.

        A registry that cannot be reached, or a version that cannot be loaded, leaves the loaded one in service; an
        alias that is gone was withdrawn on purpose, and ends it.
        """
        try:
            version = self._registry.version(self.model, self.alias)
        except (MlflowException, OSError) as error:
            self._note("the model registry cannot be reached; what is loaded goes on", error)
            return
        self.is_published = version is not None
        if version is None:
            self.loaded = None
            self._note(f"no version of {self.model} has the alias {self.alias}")
            return
        number = str(version.version)
        if self.loaded is None or self.loaded.served.version != number:
            try:
                self.loaded = Loaded(self._fetch(version), self._served(version))
            except _NOT_LOADED as error:
                self._note(f"version {number} cannot be loaded; what was loaded before goes on", error)
                return
            _log.info("%s of %s is version %s", self.alias, self.model, number)
        elif self.loaded.served.card != (version.description or ""):
            # A card is written anew when something becomes of the version: after the alias moved, too.
            self.loaded = replace(self.loaded, served=replace(self.loaded.served, card=version.description or ""))
        self.problem = None

    def _fetch(self, version: ModelVersion) -> Servable:
        with self._registry.fetched(version) as folder:
            servable = self._load(folder)
        servable.warm_up()
        return servable

    def _served(self, version: ModelVersion) -> ServedVersion:
        now_ms = time.time_ns() // 1_000_000
        tags = version.tags or {}
        parts = {tag.removeprefix(_PART): name for tag, name in tags.items() if tag.startswith(_PART)}
        number, made_ms = str(version.version), int(version.creation_timestamp)
        return ServedVersion(self.alias, number, made_ms, now_ms, version.description or "", parts)

    def _note(self, problem: str, error: Exception | None = None) -> None:
        """Callers read the problem; what was said by others may hold addresses and is for the log, once."""
        if problem != self.problem:
            _log.warning("%s %s: %s%s", self.model, self.alias, problem, "" if error is None else f": {error}")
        self.problem = problem
