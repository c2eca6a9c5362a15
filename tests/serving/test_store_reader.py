"""A request's look-ups keep their budget, whatever the store does."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from serving.errors import StoreSlowError, StoreUnavailableError
from serving.online_store import OnlineStore, open_online_store
from serving.store_reader import StoreReader, read_as_of_ms, read_records


def test_a_slow_store_is_given_up_within_the_budget_and_others_go_on(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/online"
    with open_online_store(url) as store:
        store.put_many("titles", [("a", b"1")])
    reader = StoreReader(url, budget_ms=500)
    answers = threading.Event()

    def slow(store: OnlineStore) -> None:
        answers.wait(60)

    async def ask() -> tuple[list[object], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        outcomes = await asyncio.gather(
            reader.read(slow),
            reader.read(slow),
            reader.read(lambda store: store.get_many("titles", ["a"])),
            return_exceptions=True,
        )
        ticking.cancel()
        return list(outcomes), ticks

    started = time.monotonic()
    outcomes, ticks = asyncio.run(ask())
    assert time.monotonic() - started < 30, "it waited for the store"
    answers.set()
    assert ticks > 2, "the event loop was blocked"
    assert isinstance(outcomes[0], StoreSlowError)
    assert "500 ms" in str(outcomes[0])
    assert outcomes[2] == [b"1"]


def test_records_that_are_not_json_and_a_wrong_watermark_are_failures_of_the_store(tmp_path: Path) -> None:
    with open_online_store(f"lmdb://{tmp_path}/online") as store:
        assert read_as_of_ms(store, "watermark") is None
        store.put_many("titles", [("a", b"{"), ("b", b"\xff")])
        for key in ("a", "b"):
            with pytest.raises(StoreUnavailableError, match="'titles' in the online store is not JSON"):
                read_records(store, "titles", [key])
        store.put_many("meta", [("watermark_ms", b'"noon"')])
        with pytest.raises(StoreUnavailableError, match="watermark"):
            read_as_of_ms(store, "watermark")
        store.put_many("meta", [("watermark_ms", b"1777896000000")])
        assert read_as_of_ms(store, "watermark") == 1_777_896_000_000
        assert abs(read_as_of_ms(store, "now") - time.time() * 1000) < 60_000  # type: ignore[operator]
