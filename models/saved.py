"""A saved model's folder: what it says it holds, and one line for whatever in it is missing or broken.

One JSON file of the folder is its description, which begins {"format": 1, "architecture": "..."}; the other files are
the model's own. A folder is read inside `whole`, so that a file cut short, another model's weights or a wrong
configuration are all told the same way.
"""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import ConfigurationError, ModelFolderError

# What json, torch, XGBoost and the configurations raise for a file that is missing, cut short or of another model.
_BROKEN = (
    OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, ConfigurationError,
    pickle.UnpicklingError,
)  # fmt: skip
_LONGEST_REASON = 200


def describe(path: Path, form: int, architecture: str, **facts: Any) -> None:
    """Writes the description: its format, its architecture, and what else the model wants to be told when loaded."""
    path.write_text(json.dumps({"format": form, "architecture": architecture, **facts}, indent=2))


def described(path: Path, form: int, architecture: str) -> dict[str, Any]:
    """What `describe` wrote at `path`.

    Raises:
        ModelFolderError: it is of another format or architecture.
        OSError, ValueError, KeyError, TypeError: it is missing or no description; `whole` makes one line of these.
    """
    description: dict[str, Any] = json.loads(path.read_text())
    received = (description["format"], description["architecture"])
    if received != (form, architecture):
        raise ModelFolderError(
            f"{path.parent} holds format {received[0]!r} of {received[1]!r}; this version reads format {form} of "
            f"{architecture}: train again, or use the version of Reel that wrote it"
        )
    return description


@contextmanager
def whole(folder: Path, what: str) -> Iterator[None]:
    """Everything that a broken or missing file raises within becomes one line about `folder`, which should hold `what`.

    Raises:
        ModelFolderError: something in it could not be read.
    """
    try:
        yield
    except _BROKEN as error:
        reason = " ".join(f"{error}".split())[:_LONGEST_REASON] or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"it does not say {reason}"
        raise ModelFolderError(
            f"{folder} does not hold one whole {what} ({reason}); fetch or train it again"
        ) from error
