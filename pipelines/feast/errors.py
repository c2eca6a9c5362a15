"""Named failures of Feast on Reel's engine."""

from pipelines.errors import UsageError


class NotReelsError(UsageError):
    """Feast asked for something that Reel does not do through it, or of a view that is not Reel's."""
