"""Named failures of `serving`: each says what was wrong, what was received and how to mend it."""


class ServingError(Exception):
    """Base of every failure that `serving` raises on purpose."""
