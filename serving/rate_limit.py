"""How much one caller may ask: a bucket that fills steadily and every request takes from (a token bucket)."""

import time
from collections import OrderedDict
from collections.abc import Callable

BURST_S = 1.0
MOST_CALLERS = 10_000  # remembered; who asked longest ago is forgotten first, and starts with a full bucket


class RateLimit:
    """`requests_per_s` for each caller, and up to a second's worth of them at once. Of one event loop."""

    def __init__(self, requests_per_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._rate = requests_per_s
        self._size = max(1.0, requests_per_s * BURST_S)
        self._clock_s = clock_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller: (what is left, as of when)

    def wait_s(self, caller: str) -> float:
        """Take one request; 0 if it may go on, else in how many seconds the next one may."""
        now_s = self._clock_s()
        left, as_of_s = self._buckets.pop(caller, (self._size, now_s))
        left = min(self._size, left + (now_s - as_of_s) * self._rate)
        is_allowed = left >= 1
        self._buckets[caller] = (left - 1 if is_allowed else left, now_s)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) / self._rate
