"""Named failures of `features`: each says what was wrong, what was received and how to mend it."""


class FeatureError(Exception):
    """Base of every failure that `features` raises on purpose."""
