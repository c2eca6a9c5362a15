"""Named failures of `pipelines`: each says what was wrong, what was received and how to mend it."""

from typing import ClassVar


class ReelError(Exception):
    """Base of every failure that a `reel` command reports as one clear line; exit code 1: the work failed."""

    exit_code: ClassVar[int] = 1


class UsageError(ReelError):
    """The command or its configuration is wrong, and running it again unchanged cannot help; exit code 2."""

    exit_code: ClassVar[int] = 2
