"""How long the request under way may still take: whatever waits for a store or a model asks here first.

The server has limits of its own for each of them; a caller may only make them shorter.
"""

import time
from contextvars import ContextVar

HEADER = "x-request-timeout-ms"
MOST_DIGITS = 9
# Whoever gives up on the store or the model at the deadline still has to write the answer that says so.
ANSWERING_S = 0.1

_until_s: ContextVar[float | None] = ContextVar("deadline", default=None)


def parse_ms(text: str) -> int | None:
    """A header's milliseconds; None if it is no whole number from 1 of at most nine digits."""
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        return None
    return int(text) or None


def begin(timeout_s: float | None) -> None:
    """From now on, in this request, waiting ends after `timeout_s`; None: only the server's limits count."""
    _until_s.set(None if timeout_s is None else time.monotonic() + timeout_s)


def shortened(limit_s: float) -> float:
    """`limit_s`, or what is left of the request's time if that is less; never below 0."""
    until_s = _until_s.get()
    if until_s is None:
        return limit_s
    return max(0.0, min(limit_s, until_s - time.monotonic()))
