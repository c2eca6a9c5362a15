"""Names that were mistyped."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like this one; "nothing" where none is known."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0)), "nothing")
