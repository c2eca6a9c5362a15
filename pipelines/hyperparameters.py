"""What a training is configured with: settings, files and `key=value`, each over the one before."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import UsageError
from pipelines.settings import Settings


class HyperparameterError(UsageError):
    """A `--config` of `reel train` is neither a file of hyperparameters nor `key=value`."""


def hyperparameters(settings: Settings, model: str, given: Sequence[str]) -> dict[str, Any]:
    """The model's hyperparameters: the seed, `training.models`, then each of `given`, a YAML file or `key=value`.

    Whether the model knows them, it says itself.

    Raises:
        HyperparameterError: one of `given` is neither.
    """
    found: dict[str, Any] = {"seed": settings.training.seed, **settings.training.models.get(model, {})}
    for one in given:
        found |= _pair(one) if "=" in one else _file(Path(one))
    return found


def _pair(text: str) -> dict[str, int | float]:
    key, _, written = text.partition("=")
    value: int | float | None = None
    for kind in (float, int):  # a whole number is left one
        with suppress(ValueError):
            value = kind(written)
    if not key.isidentifier() or value is None:
        raise HyperparameterError(f"--config {text}: write a hyperparameter as key=number, such as epochs=5")
    return {key: value}


def _file(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(path.read_text())
    except OSError as error:
        raise HyperparameterError(f"--config {path}: {error.strerror}; give a YAML file, or key=number") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise HyperparameterError(f"--config {path} is not YAML; give a mapping of hyperparameters") from None
    if not isinstance(read, dict):
        raise HyperparameterError(f"--config {path} holds a {type(read).__name__}; give a mapping of hyperparameters")
    return read
