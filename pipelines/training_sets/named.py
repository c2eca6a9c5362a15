"""A declared training set by the name of its module and its own."""

import importlib

from features.training import TrainingSet
from pipelines.errors import UsageError


class NotDeclaredError(UsageError):
    """No training set is declared under a name."""


def training_set_named(text: str) -> TrainingSet:
    """What `MODULE:NAME` names.

    Raises:
        NotDeclaredError: there is no such module, or nothing of that name in it, or no training set.
    """
    module, separator, name = text.partition(":")
    if not separator or not module or not name:
        raise NotDeclaredError(f"{text!r} names no training set; give MODULE:NAME, such as our.sets:CHURN")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise NotDeclaredError(f"{text!r} names no training set: {error}") from None
    if not isinstance(found, TrainingSet):
        raise NotDeclaredError(f"{text!r} is a {type(found).__name__}, not a TrainingSet")
    return found
