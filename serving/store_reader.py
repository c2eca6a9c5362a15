"""The online store as requests read it: off the event loop, within a budget, and JSON records decoded."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from serving.errors import StoreSlowError, StoreUnavailableError
from serving.online_store import OnlineStore, open_online_store
from serving.watch import deadline, measures, trace

Result = TypeVar("Result")

META, WATERMARK = "meta", "watermark_ms"
# Look-ups mostly wait, for Redis or for a page of LMDB; they are short.
THREADS = 8


class StoreReader:
    """One request's look-ups run as one function in a thread, so that the event loop never waits for the store."""

    def __init__(self, url: str, budget_ms: int) -> None:
        self._budget_ms = budget_ms
        self._store = open_online_store(url, readonly=True, timeout_s=budget_ms / 1000)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    async def read(self, look_up: Callable[[OnlineStore], Result]) -> Result:
        """What `look_up` finds.

        Raises StoreSlowError after the budget, or at the request's deadline if that is earlier, and
        StoreUnavailableError if it cannot read.
        """
        budget_s = deadline.shortened(self._budget_ms / 1000)
        started_s = time.perf_counter()
        outcome = "unavailable"
        with trace.span("store"):
            try:
                running = asyncio.get_running_loop().run_in_executor(self._threads, look_up, self._store)
                async with asyncio.timeout(budget_s):
                    found = await running
                outcome = "read"
                return found
            except TimeoutError:
                outcome = "slow"
                raise StoreSlowError(f"the online store took more than {budget_s * 1000:.0f} ms") from None
            finally:
                measures.STORE.labels(outcome).observe(time.perf_counter() - started_s)


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
        return None if value is None else json.loads(value)
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
