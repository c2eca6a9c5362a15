"""Named failures of `features`: each says what was wrong, what was received and how to mend it."""

from typing import Any


class FeatureError(Exception):
    """Base of every failure that `features` raises on purpose. It keeps its message when pickled between processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made again by calling its class with the message, which needs other arguments.
        return _revive, (type(self), self.args)


def _revive(kind: type[FeatureError], arguments: tuple[Any, ...]) -> FeatureError:
    return kind.__new__(kind, *arguments)


class DeclarationError(FeatureError):
    """A feature or a group was declared wrongly (unknown column, empty window, bad range, name clash)."""


class UnknownGroupError(FeatureError):
    """No feature group has the name that was asked for."""


class UnknownSourceError(FeatureError):
    """No source has the name that was asked for."""


class UnknownEntityError(FeatureError):
    """No entity has the key that was asked for."""


class SelectionError(FeatureError):
    """Features were asked for in a way that says too little, too much, or nothing that there is."""


class PurposeNotAllowedError(FeatureError):
    """Features were asked for without a purpose, or for one that they are not declared for."""


class LogError(FeatureError):
    """A log, or a table handed to the engine, lacks a column or holds what it cannot hold."""


class PackedValueError(FeatureError):
    """Bytes from an online store are not a packed value of the group, or not of its present declaration."""
