"""Named failures of `features`: each says what was wrong, what was received and how to mend it."""


class FeatureError(Exception):
    """Base of every failure that `features` raises on purpose."""


class DeclarationError(FeatureError):
    """A feature or a group was declared wrongly (unknown column, empty window, bad range, name clash)."""


class UnknownGroupError(FeatureError):
    """No feature group has the name that was asked for."""


class LogError(FeatureError):
    """A log, or a table handed to the engine, lacks a column or holds what it cannot hold."""


class PackedValueError(FeatureError):
    """Bytes from an online store are not a packed value of the group, or not of its present declaration."""
