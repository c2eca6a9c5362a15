"""Named failures of `models`: each says what was wrong, what was received and how to mend it."""


class ModelError(Exception):
    """Base of every failure that `models` raises on purpose."""
