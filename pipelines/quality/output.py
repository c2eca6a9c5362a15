"""Files that others read while they are written: whole or not at all."""

import os
from pathlib import Path

from pipelines.errors import ReelError


class OutputNotWritten(ReelError):
    """A page or a file of metrics could not be written."""


def write_whole(path: Path, text: str) -> None:
    """Put `text` at `path` in one step. Raises OutputNotWritten where that cannot be."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")  # no *.prom, which a textfile collector would read
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputNotWritten(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that can be"
        ) from None
