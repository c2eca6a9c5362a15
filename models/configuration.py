"""What decides what a model learns: plain numbers by name, checked before anything is read."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from models.errors import ConfigurationError


@dataclass(frozen=True)
class Hyperparameters:
    """Base of every model's configuration: a frozen dataclass of whole and real numbers, each with a default."""

    of: ClassVar[str]
    """The model, as messages name it: "the recommender"."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration with `values` in place of defaults.

        Raises:
            ConfigurationError: a key is unknown, or a value is of the wrong type or outside its range.
        """
        is_whole = {one.name: isinstance(one.default, int) for one in fields(cls)}
        unknown = sorted(values.keys() - is_whole.keys())
        if unknown:
            raise ConfigurationError(f"unknown settings of {cls.of}: {unknown}; it knows {sorted(is_whole)}")
        read: dict[str, Any] = {}
        for name, value in values.items():
            wanted = "a whole number" if is_whole[name] else "a number"
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or (is_whole[name] and not float(value).is_integer()):
                raise ConfigurationError(f"{name} must be {wanted}: received {value!r}")
            read[name] = int(value) if is_whole[name] else float(value)
        return cls(**read)

    def as_dict(self) -> dict[str, int | float]:
        """The configuration as plain numbers."""
        return asdict(self)

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise ConfigurationError(f"{name} must be {expected}: received {getattr(self, name)!r}")

    def _at_least(self, least: float, *names: str) -> None:
        for name in names:
            self._require(getattr(self, name) >= least, name, f"at least {least:g}")
