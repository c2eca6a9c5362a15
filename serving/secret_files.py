"""Secrets that stand in files: read only where nobody else can read them."""

import stat
from pathlib import Path

from serving.errors import ConfigurationError


def read_private(file: Path, key: str) -> str:
    """What is in a file of mode 0600, which the setting `key` names. Raises ConfigurationError."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise ConfigurationError(f"{key}: others may read {file} (mode {mode:04o}): chmod 600 {file}")
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{key}: {file} cannot be read: {error}") from None
