"""Who is in which arm of an experiment: told by a stable hash, so that nobody changes sides and nothing is stored.

    SHA-256(name of the experiment + "\\n" + pseudonym), its first 8 bytes as a number, below share x 2^64: treated

Experiments of other names divide people independently of each other. A new salt gives people new pseudonyms, and so
divides them anew: end an experiment before.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from serving.hosting.questions import Arm
from serving.settings import ExperimentSettings

_BYTES = 8


@dataclass(frozen=True)
class Assignment:
    """The side of an experiment that somebody is on."""

    experiment: str
    answers: Arm
    """Whose answer they get."""
    shadow: bool
    """Whether the challenger is asked too, for the log alone."""


class Experiments:
    """Those that are configured, at most one a model."""

    def __init__(self, settings: Mapping[str, ExperimentSettings]) -> None:
        self._by_model = {one.model: (name, one) for name, one in settings.items()}

    def of(self, model: str, unit: str | None) -> Assignment | None:
        """The side of `unit`, a pseudonym or a series; None without an experiment, or if nobody is asked about."""
        if model not in self._by_model or unit is None:
            return None
        name, experiment = self._by_model[model]
        is_treated = is_in_share(name, unit, experiment.share)
        is_answered = is_treated and experiment.mode == "ab"
        return Assignment(name, "challenger" if is_answered else "champion", is_treated and experiment.mode == "shadow")


def is_in_share(name: str, unit: str, share: float) -> bool:
    """Whether `unit` is among the share that the experiment treats."""
    digest = hashlib.sha256(f"{name}\n{unit}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_BYTES]) < share * 2.0 ** (8 * _BYTES)
