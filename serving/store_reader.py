"""The online store as requests read it: within a budget, so that nobody else waits, and JSON records decoded."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from serving.errors import StoreSlowError, StoreUnavailableError
from serving.online_store import OnlineStore, open_online_store
from serving.watch import deadline, measures, trace

Result = TypeVar("Result")

META, WATERMARK = "meta", "watermark_ms"
THREADS = 8
# After a look-up that was slow, none is made on the event loop for so long.
CAREFUL_FOR_S = 5.0


class StoreReader:
    """One request's look-ups run as one function, in a thread where they may wait: the event loop never waits for long.

    A short look-up of an embedded store is some microseconds of memory that is mapped already, and a thread for it
    costs ten times that, and under load up to 5 ms more, until the interpreter lets it run. So it is made at once,
    unless the disk was slow lately or some other look-up waits for it now.
    """

    def __init__(self, url: str, budget_ms: int) -> None:
        self._budget_ms = budget_ms
        self._store = open_online_store(url, readonly=True, timeout_s=budget_ms / 1000)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._under_way: set[Future[Any]] = set()
        self._careful_until_s = 0.0

    async def read(self, look_up: Callable[[OnlineStore], Result], *, is_short: bool = False) -> Result:
        """What `look_up` finds. `is_short`: it is of a few values.

        Raises StoreSlowError after the budget, or at the request's deadline if that is earlier, and
        StoreUnavailableError if it cannot read.
        """
        budget_s = deadline.shortened(self._budget_ms / 1000)
        started_s = time.perf_counter()
        outcome = "unavailable"
        with trace.span("store"):
            try:
                if is_short and budget_s > 0 and self._is_quick(started_s):
                    found = look_up(self._store)
                else:
                    found = await self._in_a_thread(look_up, budget_s)
                outcome = "read"
                return found
            except TimeoutError:
                outcome = "slow"
                raise StoreSlowError(f"the online store took more than {budget_s * 1000:.0f} ms") from None
            finally:
                taken_s = time.perf_counter() - started_s
                if taken_s * 1000 > self._budget_ms / 2:
                    self._careful_until_s = started_s + taken_s + CAREFUL_FOR_S
                _DURATIONS[outcome].observe(taken_s)

    def _is_quick(self, now_s: float) -> bool:
        return self._store.is_embedded and now_s >= self._careful_until_s and not self._under_way

    async def _in_a_thread(self, look_up: Callable[[OnlineStore], Result], budget_s: float) -> Result:
        running = self._threads.submit(look_up, self._store)
        self._under_way.add(running)  # until the thread is done with it, also when nobody waits any more
        running.add_done_callback(self._under_way.discard)
        async with asyncio.timeout(budget_s):
            return await asyncio.wrap_future(running)


_DURATIONS = {outcome: measures.STORE.labels(outcome) for outcome in ("read", "slow", "unavailable")}


def read_records(store: OnlineStore, group: str, entities: Sequence[str]) -> list[Any]:
    """The JSON records of `entities` in `group`; None where there is none."""
    return read_groups(store, [(group, entities)])[0]


def read_groups(store: OnlineStore, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[Any]]:
    """`read_records` of each (group, entities), in one read."""
    found = store.get_groups(wanted)
    return [[decoded(group, value) for value in values] for (group, _), values in zip(wanted, found, strict=True)]


def decoded(group: str, value: bytes | None) -> Any:
    """A JSON record of `group`; None for none. Raises StoreUnavailableError if it is no JSON."""
    try:
        return None if value is None else json.loads(value.decode())  # of bytes it would guess how they are encoded
    except ValueError as error:
        raise StoreUnavailableError(f"a record of {group!r} in the online store is not JSON: {error}") from None


def read_as_of_ms(store: OnlineStore, as_of: Literal["watermark", "now"]) -> int | None:
    """The instant that answers are valued at, ms since the epoch; None if the store has never been filled."""
    if as_of == "now":
        return time.time_ns() // 1_000_000
    return watermark_of(store.get_many(META, [WATERMARK])[0])


def watermark_of(value: bytes | None) -> int | None:
    """The watermark as the store has it, ms since the epoch. Raises StoreUnavailableError if it is none."""
    watermark = decoded(META, value)
    if watermark is not None and not isinstance(watermark, int):
        raise StoreUnavailableError("the watermark in the online store is not a number of milliseconds")
    return watermark
